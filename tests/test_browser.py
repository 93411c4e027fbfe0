"""A reader's JupyterLab: Chromium opens a chapter, runs its explorer and moves a widget; the picture changes."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from lib import paths, run
from lib.notebook import checks

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
# in a container Chromium has neither a sandbox nor a GPU; the rest keeps it from asking the network for anything
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # every output stays in the page
}
EXPLORERS = [
    chapter
    for chapter in run.notebooks()
    if any(
        level == 2 and re.search(r"\bexplorer\b", title.lower())
        for level, title in checks.headings(nbformat.read(paths.NOTEBOOKS / f"{chapter}.ipynb", 4))
    )
]


def given_and_asked(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell gives to later ones, and names that it takes from earlier ones (or a few more)."""
    given, asked = set(), set()
    for statement in ast.parse(source).body:
        loads, stores, bound = set(), set(), set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                (loads if isinstance(node.ctx, ast.Load) else stores).add(node.id)
            elif isinstance(node, ast.FunctionDef):
                stores.add(node.name)
                inside = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
                bound |= {part.id for part in inside if isinstance(part.ctx, ast.Store)}
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                stores |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, (ast.comprehension, ast.For)):
                bound |= {part.id for part in ast.walk(node.target) if isinstance(part, ast.Name)}
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                loads.add(node.target.id)
            elif isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
                # a part of it is given: the rest must come from where the whole was made
                names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                stores |= names
                loads |= names
        asked |= loads - bound - given
        given |= stores
    return given, asked


def cut_to_explorer(chapter: str, path: Path) -> None:
    """The chapter's explorer and the cells that it needs, without outputs; the explorer is the last cell.

    All other cells are executed where the chapter is replayed.
    """
    notebook = nbformat.read(paths.NOTEBOOKS / f"{chapter}.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    while "notebook.explorer(" not in code[-1].source:
        code.pop()
    kept, needed = [code[-1]], given_and_asked(code[-1].source)[1]
    for cell in reversed(code[:-1]):
        given, asked = given_and_asked(cell.source)
        if given & needed:
            kept.insert(0, cell)
            needed = needed - given | asked
    for cell in kept:
        cell.outputs, cell.execution_count = [], None
    notebook.cells = kept
    nbformat.write(notebook, path)


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """A server on a free port, with its settings, kernels and runtime files in ``folder``; yields its URL."""
    (folder / "settings").mkdir()
    (folder / "settings" / "overrides.json").write_text(json.dumps(SETTINGS))
    ours = ("GMMP_", "JUPYTER", "PYTEST_")  # any of them could say that nobody is there to move a widget
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        environment[f"JUPYTER_{name}"] = str(folder / name.lower())
    environment |= {
        "GMMP_FIGURES": str(folder / "figures"),
        "GMMP_RUNS": str(folder / "runs"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "user-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "PYTHONPATH": str(paths.ROOT),
    }
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'notebooks'}"]
    command += [f"--LabApp.app_settings_dir={folder / 'settings'}", "--LabApp.news_url="]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while not (found := list((folder / "runtime_dir").glob("jpserver-*.json"))):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()[-3000:]
            time.sleep(0.2)
        address = json.loads(found[0].read_text())["url"]
        yield f"{address}lab/tree/{{}}?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()


def run_all(page, last) -> None:
    """Run every cell by the menu and wait until the last one has been executed."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(
        """() => {
            const shown = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent);
            const wrong = document.querySelector('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]');
            return wrong || (shown.length && shown.every(text => /\\[\\d+\\]/.test(text)));
        }""",
        timeout=900_000,
    )
    wrong = page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]')
    assert wrong.count() == 0, wrong.first.inner_text()
    last.wait_for(timeout=60_000)


def move(page, cell) -> None:
    """Change the first widget: a slider by the keyboard, a menu by its next entry, a check box by a click."""
    # the picture may stand before the widgets do
    any_widget = ".noUi-handle, .widget-dropdown select, .widget-checkbox input, .widget-toggle-button"
    cell.locator(any_widget).first.wait_for(timeout=120_000)
    slider, menu = cell.locator(".noUi-handle"), cell.locator(".widget-dropdown select")
    if slider.count():
        slider.first.focus()
        for _ in range(12):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Tab")  # some sliders report when they are left
    elif menu.count():
        menu.first.select_option(index=1)
    else:
        cell.locator(".widget-checkbox input, .widget-toggle-button").first.click()


@pytest.mark.parametrize("chapter", EXPLORERS)
def test_a_widget_changes_the_picture(chapter, tmp_path):
    from playwright.sync_api import sync_playwright

    (tmp_path / "notebooks").mkdir()
    (tmp_path / "figures").mkdir()
    cut_to_explorer(chapter, tmp_path / "notebooks" / f"{chapter}.ipynb")
    with jupyterlab(tmp_path) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(address.format(f"{chapter}.ipynb"))
        cell = page.locator(".jp-CodeCell").last
        picture = cell.locator(".jp-OutputArea-output img, .widget-image").first
        cell.wait_for(timeout=120_000)
        page.get_by_text("| Idle").wait_for(timeout=120_000)  # the kernel, in the status bar
        run_all(page, picture)
        before = picture.get_attribute("src")
        move(page, cell)
        page.wait_for_function(
            "([element, before]) => element.isConnected ? element.src !== before : true",
            arg=[picture.element_handle(), before],
            timeout=60_000,
        )
        picture.wait_for(timeout=60_000)
        assert picture.get_attribute("src").startswith("data:image/png;base64,")
        assert picture.get_attribute("src") != before
        browser.close()
