"""A small copy of this repository with two made-up chapters that run in a second, for the tests of the runner."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from lib import config

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "Snakefile", "sweep.smk", "Makefile", "pyproject.toml", "requirements.txt", "requirements-test.txt",
    "constraints.txt",
)  # fmt: skip

CONFIG = """
from pydantic import Field
from lib.config import Config

class TrainConfig(Config):
    steps: int = Field(gt=0)

class TinyConfig(Config):
    train: TrainConfig
    name: str = "tiny"
"""
# stands for data_scripts/fetch.py: remembers that it was called
FETCH = """
import pathlib, sys
with open(pathlib.Path(__file__).parent / "calls.txt", "a") as file:
    print(*sys.argv[1:], file=file)
"""
PARAMETERS_CELL = 'preset = "laptop"\nseed = 0\nretrain = False\nrecompute = False\ndevice = "auto"\noverrides = {}'
WORK_CELL = """
import os, pathlib
from lib import claims, config
from lib.{package} import value
settings = config.load("{chapter}", preset, overrides)
folder = pathlib.Path(os.environ["GMMP_FIGURES"]) / "{chapter}"
folder.mkdir(parents=True, exist_ok=True)
(folder / "steps.csv").write_text(f"steps,seed\\n{{settings.train.steps}},{{seed}}\\n")
claims.record("{chapter}.steps", settings.train.steps, preset=preset, data="none", device="cpu");
"""


def notebook(*code: str) -> nbformat.NotebookNode:
    """A notebook with a parameters cell and the given code cells."""
    cells = [nbformat.v4.new_markdown_cell("# Tiny"), nbformat.v4.new_code_cell(PARAMETERS_CELL)]
    cells[1].metadata["tags"] = ["parameters"]
    cells += [nbformat.v4.new_code_cell(source.strip()) for source in code]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


class Skeleton:
    """The copy at ``root``: `command` runs something in it with this Python and folders of its own."""

    def __init__(self, root: Path, chapters: tuple[str, ...] = ("02_tiny", "03_other")) -> None:
        self.root = root
        for name in FILES:
            shutil.copy(ROOT / name, root / name)
        for name in ("scripts", "profiles"):
            shutil.copytree(ROOT / name, root / name)
        # the engine without the thesis' chapters and what only they need
        chapters_of_thesis = {config.chapter_package(chapter) for chapter in config.chapters()}
        ignored = shutil.ignore_patterns("__pycache__", *chapters_of_thesis, "data", "flows", "coding", "vision")
        shutil.copytree(ROOT / "lib", root / "lib", ignore=ignored)
        (root / "data_scripts").mkdir()
        (root / "data_scripts" / "fetch.py").write_text(FETCH)
        (root / "data_scripts" / "catalog.yaml").write_text("{}\n")
        (root / "notebooks" / "parameters").mkdir(parents=True)
        claims = ""
        for chapter in chapters:
            package = chapter.partition("_")[2]
            (root / "lib" / package).mkdir()
            (root / "lib" / package / "__init__.py").write_text("value = 1\n")
            (root / "lib" / package / "config.py").write_text(CONFIG)
            self.parameters(chapter).write_text(
                f"config: lib.{package}.config:TinyConfig\n"
                "smoke: {train: {steps: 1}}\nlaptop: {train: {steps: 10}}\nfull: {train: {steps: 100}}\n"
            )
            claims += (
                f"- {{id: {chapter}.steps, chapter: {chapter}, section: laptop preset, claim: It runs., "
                "quantity: steps, unit: '', bound: '>= 1', kind: target}\n"
            )
            self.write(chapter, WORK_CELL.format(chapter=chapter, package=package))
        (root / "notebooks" / "claims.yaml").write_text(claims)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GMMP_")},
            "PYTHONPATH": str(root),
            "GMMP_CACHE": str(root / "cache"),
            "XDG_CACHE_HOME": str(root / "xdg"),  # snakemake's own
            "GIT_PYTHON_REFRESH": "quiet",
            "PYTHONDONTWRITEBYTECODE": "1",  # tests rewrite modules within one second
        }
        (root / "cache").mkdir()

    def parameters(self, chapter: str) -> Path:
        return self.root / "notebooks" / "parameters" / f"{chapter}.yaml"

    def notebook(self, chapter: str) -> Path:
        return self.root / "notebooks" / f"{chapter}.ipynb"

    def write(self, chapter: str, *code: str) -> None:
        """Replace a chapter's notebook by one with these code cells."""
        nbformat.write(notebook(*code), self.notebook(chapter))

    def command(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.root, env={**self.environment, **environment}, capture_output=True, text=True, timeout=300
        )

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``python -m lib.run …``."""
        return self.command(sys.executable, "-m", "lib.run", *options, **environment)

    def snakemake(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``snakemake --cores 2 …``."""
        return self.command(sys.executable, "-m", "snakemake", "--cores", "2", "--keep-going", *options, **environment)
