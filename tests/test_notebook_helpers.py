"""What notebooks show: the card, source code, the footer, the explorer; and that nbval can compare all of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import types

import ipywidgets
import matplotlib.pyplot as plt
import nbclient
import nbformat
import pytest

from lib import claims, config, errors, files, notebook, paths, plotting, store
from lib.errors import UserError

PARAMETERS = """\
config: lib.toy.config:ToyConfig
card:
  question: Does x < y & z?
  task: Nothing in production.
  data: 32 points
  figures: [training, samples]
  tables: [scores]
  minutes: {smoke: 0.5, laptop: 3, full: 9 hours on an H200}
  memory: {laptop: 1.5}
  note: Only a test.
smoke: {}
laptop: {}
full: {}
"""
TIMINGS = """\
chapter,variant,seconds,peak_memory_mb,device,threads
09_toy,laptop,131.4,1234,cpu,2
09_toy,full,30000,81234,cuda,16
09_toy,laptop-seed3,999,999,cpu,2
02_background,smoke,1,1,cpu,2
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """The folder of a repository with the one chapter ``09_toy``."""
    monkeypatch.setattr(paths, "PARAMETERS", tmp_path)
    monkeypatch.setenv("GMMP_FIGURES", str(tmp_path / "figures"))
    (tmp_path / "09_toy.yaml").write_text(PARAMETERS)
    return tmp_path


# --- the card --------------------------------------------------------------------------------------------------------


def test_card_shows_what_the_parameters_say(chapter):
    card = notebook.chapter_card("09_toy")
    assert str(card) == (
        "Question: Does x < y & z?\n"
        "In production: Nothing in production.\n"
        "Data: 32 points\n"
        "Note: Only a test.\n"
        "preset  takes               memory  measured\n"
        "smoke   0.5 min             –       –\n"
        "laptop  3 min               1.5 GB  –\n"
        "full    9 hours on an H200  –       –\n"
        "Figures: training; samples\n"
        "Tables: scores"
    )
    bundle = card._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert "Does x &lt; y &amp; z?" in bundle["text/html"]
    assert "training; samples" in bundle["text/html"]


def test_card_shows_measured_times_of_the_plain_presets(chapter):
    (chapter / "figures/performance").mkdir(parents=True)
    (chapter / "figures/performance/timings.csv").write_text(TIMINGS)
    rows = str(notebook.chapter_card("09_toy")).splitlines()
    assert rows[5].endswith("–")
    assert rows[6].endswith("2.2 min, 1.2 GB (CPU, 2 threads)")
    assert rows[7].endswith("8.33 h, 81.2 GB (GPU)")


@pytest.mark.parametrize("text", ["", "chapter\n09_toy\n", TIMINGS.replace("131.4", "soon"), "a,b\n1,2,3,4\n\n5\n"])
def test_damaged_timings_are_named(chapter, text):
    (chapter / "figures/performance").mkdir(parents=True)
    (chapter / "figures/performance/timings.csv").write_text(text)
    with pytest.raises(UserError, match=r"timings.csv is damaged"):
        notebook.chapter_card("09_toy")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("question", "qestion", "qestion"),
        ("laptop: 3,", "lapptop: 3,", "laptop"),
        ("{laptop: 1.5}", "{laptop: [1]}", "memory"),
        ("  data: 32 points\n", "", "data"),
    ],
)
def test_a_faulty_card_is_refused(chapter, old, new, message):
    (chapter / "09_toy.yaml").write_text(PARAMETERS.replace(old, new))
    with pytest.raises(UserError, match=message):
        notebook.chapter_card("09_toy")


def test_a_missing_card_is_refused(chapter):
    (chapter / "09_toy.yaml").write_text("config: lib.toy.config:ToyConfig\nlaptop: {}\n")
    with pytest.raises(UserError, match="has no card: add one"):
        notebook.chapter_card("09_toy")
    with pytest.raises(UserError, match="unknown chapter '09_toi'"):
        notebook.chapter_card("09_toi")


# --- source code -----------------------------------------------------------------------------------------------------


def test_source_is_shown_with_its_file_and_counted_from_its_first_line():
    shown = notebook.show_source(errors.UserError, paths.runs)
    lines = str(shown).splitlines()
    assert lines[0] == "# lib/errors.py · UserError"
    assert lines[1] == "   1  class UserError(Exception):"
    assert "# lib/paths.py · runs" in lines and "   1  def runs() -> Path:" in lines
    page = shown._repr_mimebundle_()["text/html"]
    assert "lib/errors.py · UserError" in page and page.count("<pre") == 2
    assert "<style" not in page and 'class="s' not in page.replace('class="source"', ""), "styles are all inline"
    assert notebook.show_source(errors.UserError, paths.runs) == shown


def test_an_excerpt_runs_from_one_text_to_the_next():
    lines = str(notebook.show_source(claims.Bound.holds, start="return {", stop='">="')).splitlines()
    assert lines[0] == "# lib/claims/schema.py · Bound.holds"
    assert [line[6:] for line in lines[1:]] == [
        "return {",
        '    "<=": measured <= self.value,',
        '    ">=": measured >= self.value,',
    ]
    numbers = [int(line[:4]) for line in lines[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + 3)) and numbers[0] > 1
    assert str(notebook.show_source(claims.Bound.holds, stop="def holds")).splitlines()[1:] == [
        "   1  def holds(self, measured: float) -> bool:"
    ]


def test_properties_and_decorated_functions_have_source():
    assert "def fig(self)" in str(notebook.show_source(plotting.Diagram.fig))
    assert "def locked(" in str(notebook.show_source(files.locked))
    assert "@classmethod" in str(notebook.show_source(claims.Bound.parse))


@pytest.mark.parametrize(
    ("objects", "options", "message"),
    [
        ((), {}, "one object or more"),
        ((paths.runs, paths.cache), {"start": "x"}, "with one only"),
        ((paths.runs,), {"start": "no such text"}, "'no such text' after line 0"),
        ((paths.runs,), {"start": "return", "stop": "def"}, "'def' after line"),
        ((textwrap.dedent,), {}, "not part of this repository"),
        ((len,), {}, "no source"),
        ((3,), {}, "no source"),
    ],
)
def test_what_has_no_source_is_refused(objects, options, message):
    with pytest.raises(ValueError, match=message):
        notebook.show_source(*objects, **options)


# --- the footer ------------------------------------------------------------------------------------------------------


def test_footer_names_what_was_used(monkeypatch):
    monkeypatch.setattr(store, "code_version", lambda: {"commit": "0123456789abcdef", "dirty": True})
    made = store.Provenance(
        path=paths.ROOT / "checkpoints" / "toy" / "line.safetensors",
        source="checkpoints",
        log=None,
        data={"config_hash": "ab" * 32, "steps": 12000, "seconds": 75.0, "device": "NVIDIA H200", "date": "2025-01-01"},
    )
    parameters = config.parameters(preset="smoke", seed=3, device="cpu", recompute=True)
    shown = notebook.provenance_footer(parameters, data=["mnist"], checkpoints=[made])
    page = shown._repr_mimebundle_()["text/html"]
    for text in ("0123456789ab with changes", "preset smoke, seed 3, recompute", "(mnist), SHA-256", "torch 2",
                 "abababab", "checkpoints/toy/line.safetensors", "12,000 steps", "on NVIDIA H200"):  # fmt: skip
        assert text in page, text
    assert str(paths.ROOT) not in page
    assert str(shown) == "provenance of this run"
    assert page.startswith('<div class="provenance"') and "\n" not in page, "a sanitiser can replace it"


# --- the explorer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "live"),
    [
        ({}, False),
        ({"GMMP_HEADLESS": "0"}, True),
        ({"GMMP_HEADLESS": "1"}, False),
        ({"JPY_SESSION_NAME": "a.ipynb"}, True),
        ({"JPY_SESSION_NAME": "a.ipynb", "GMMP_HEADLESS": "1"}, False),
        ({"JPY_SESSION_NAME": "a.ipynb", "PYTEST_CURRENT_TEST": "x"}, False),
    ],
)
def test_a_front_end_must_show_itself(monkeypatch, environment, live):
    for name in ("GMMP_HEADLESS", "JPY_SESSION_NAME", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shell = types.SimpleNamespace(kernel=object(), user_ns={})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert notebook.in_live_frontend() is live


def test_no_kernel_no_front_end(monkeypatch):
    monkeypatch.delenv("GMMP_HEADLESS", raising=False)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    assert not notebook.in_live_frontend()


@pytest.fixture
def drawn():
    """A function that draws and remembers what with."""
    plt.close("all")  # what tests before this one left
    calls = []

    def draw(**values):
        calls.append(values)
        fig, ax = plt.subplots()
        return fig

    return draw, calls


def test_explorer_draws_its_start_values_without_a_front_end(monkeypatch, drawn, capsys):
    monkeypatch.setenv("GMMP_HEADLESS", "1")
    draw, calls = drawn
    notebook.explorer(draw, x=(0.0, 2.0, 0.5), digit=[3, 1], kind="flow", on=True, n=ipywidgets.IntSlider(7, 0, 9))
    assert calls == [{"x": 1.0, "digit": 3, "kind": "flow", "on": True, "n": 7}]
    assert not plt.get_fignums()


@pytest.mark.parametrize("live", ["0", "1"])
def test_explorer_starts_at_the_defaults_of_its_function(monkeypatch, live):
    monkeypatch.setenv("GMMP_HEADLESS", live)
    calls = []

    def draw(photo="kodim23", quality=40.0, levels=6, grey=False, size=12, *, mood):
        calls.append({"photo": photo, "quality": quality, "levels": levels, "grey": grey, "size": size, "mood": mood})

    notebook.explorer(
        draw, photo=["astronaut", "kodim23"], quality=(1.0, 99.0, 1.0), levels=(1, 6, 1), grey=True,
        size=ipywidgets.IntSlider(7, 0, 9), mood={"happy": 1, "sad": 2},
    )  # fmt: skip
    assert calls == [{"photo": "kodim23", "quality": 40.0, "levels": 6, "grey": True, "size": 7, "mood": 1}]


@pytest.mark.parametrize("given", [(0.0, 10.0), ["a", "b"]])
def test_a_default_that_the_widget_does_not_offer_is_refused(monkeypatch, given):
    monkeypatch.setenv("GMMP_HEADLESS", "1")
    with pytest.raises(ValueError, match="x starts at 11.0, which .* does not offer"):
        notebook.explorer(lambda x=11.0: None, x=given)


def test_explorer_redraws_when_a_widget_moves(monkeypatch, drawn):
    monkeypatch.setenv("GMMP_HEADLESS", "0")
    draw, calls = drawn
    slider = ipywidgets.FloatSlider(0.5, min=0, max=1)
    notebook.explorer(draw, x=slider)
    slider.value = 0.75
    assert calls == [{"x": 0.5}, {"x": 0.75}]
    assert not plt.get_fignums()


@pytest.mark.parametrize("given", [object(), None, (3, 1)])
def test_explorer_refuses_what_is_no_widget(given):
    with pytest.raises(ValueError, match="explorer: x="):
        notebook.explorer(lambda x: None, x=given)


# --- in a kernel -----------------------------------------------------------------------------------------------------

CELLS = [
    "from lib import claims, config, notebook, paths, plotting\nimport matplotlib.pyplot as plt\n"
    "import numpy as np\nimport pandas as pd\nplotting.use_style()",
    "notebook.show_source(paths.runs)",
    "fig, ax = plt.subplots(figsize=plotting.size(2))\nax.plot([0, 1])\n"
    "plotting.save(fig, 'toy/line', data={'x': [0, 1]}, caption='A line with $x$.')\nprint('after')",
    "plotting.table(pd.DataFrame({'x': [1.5]}), 'toy/table', caption='A table.')",
    "def draw(x):\n    plt.plot([0, x])\nnotebook.explorer(draw, x=(0.0, 1.0, 0.25))",
    "fig = plotting.image_grid(np.random.rand(3, 256, 256), tile=2)\nplotting.save(fig, 'toy/grid', caption='Noise.')",
    "pd.DataFrame({'claim': ['a long claim ' * 20], **{f'c{i}': [i] for i in range(30)}})",
    "notebook.provenance_footer(config.parameters(device='cpu'))",
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook of all helpers, executed by nbclient as papermill does, and its path."""
    folder = tmp_path_factory.mktemp("notebook")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[-1].metadata["tags"] = [notebook.VOLATILE]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    document = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    environment = {
        "GMMP_FIGURES": str(folder / "figures"),
        "PYTHONPATH": str(paths.ROOT),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("GMMP_HEADLESS", raising=False)
        nbclient.NotebookClient(document, timeout=120).execute()
        nbformat.write(document, folder / "helpers.ipynb")
        yield document, folder / "helpers.ipynb"


def data_of(cell):
    return [output["data"] for output in cell.outputs if "data" in output]


def test_a_notebook_shows_each_figure_once_with_its_caption(executed):
    document, path = executed
    picture, caption = data_of(document.cells[2])
    assert "image/png" in picture and picture["text/plain"] == "<figure>"
    assert caption["text/markdown"] == "A line with $x$."
    assert [output.text for output in document.cells[2].outputs if "text" in output] == ["after\n"]
    assert sorted(p.name for p in (path.parent / "figures/toy").iterdir()) == [
        "captions.yaml", "grid.csv", "grid.pdf", "grid.png", "line.csv", "line.pdf", "line.png", "table.csv",
        "table.md",
    ]  # fmt: skip


def test_a_notebook_shows_markdown_tables_and_html_source(executed):
    document, _ = executed
    (table,) = data_of(document.cells[3])
    assert table["text/markdown"].startswith("| x |") and "text/html" not in table
    (source,) = data_of(document.cells[1])
    assert "def runs() -&gt; Path:" not in source["text/plain"] and "<pre" in source["text/html"]


def test_a_notebook_cuts_no_pandas_table(executed):
    (shown,) = data_of(executed[0].cells[6])
    assert "..." not in shown["text/plain"] and "..." not in shown["text/html"]


def test_an_executed_notebook_holds_a_picture_and_no_dead_widget(executed):
    document, _ = executed
    picture, note = data_of(document.cells[4])
    assert "image/png" in picture
    assert note["text/markdown"] == "*Drawn at x = 0.5. In JupyterLab this cell shows widgets that change the picture.*"
    assert not any("widget" in mime for cell in document.cells for data in data_of(cell) for mime in data)
    assert "widgets" not in document.metadata


def test_heavy_pictures_are_smaller_on_screen_than_on_disk(executed):
    document, path = executed
    inline = len(data_of(document.cells[5])[0]["image/png"]) * 3 / 4
    assert inline < 0.6 * (path.parent / "figures/toy/grid.png").stat().st_size


def test_nbval_replays_what_the_helpers_show(executed):
    _, path = executed
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval",
        "--nbval-current-env",
        path.name,
    ]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(CELLS)} passed" in done.stdout, done.stdout[-3000:]
