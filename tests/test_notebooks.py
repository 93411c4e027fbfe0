"""Every chapter: its form, what it wrote, its replay by nbval, and a training run from scratch at preset smoke."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import skeleton

from lib import claims, config, paths, run
from lib.claims.overview import MARKS, chapters_table
from lib.notebook import checks
from lib.run import compare

FIGURES = paths.ROOT / "figures"
CHAPTERS = run.notebooks()
# the chapters of the thesis have every section; introduction and appendices leave some out
WHOLE = re.compile(r"0[2-9]_")


def read(chapter: str):
    return nbformat.read(paths.NOTEBOOKS / f"{chapter}.ipynb", 4)


@pytest.fixture(scope="module", params=CHAPTERS)
def chapter(request):
    return request.param


# ----------------------------------------------------------------------------------------------------------- as it lies


def test_there_is_a_preset_file_for_every_notebook():
    assert CHAPTERS
    assert set(CHAPTERS) <= set(config.chapters())  # a chapter's models may be there before its notebook
    for name in CHAPTERS:
        for preset in config.PRESETS:
            config.load(name, preset)


def test_anatomy(chapter):
    assert checks.anatomy_problems(read(chapter), whole=bool(WHOLE.match(chapter))) == []


def test_parameters_cell(chapter):
    assert checks.parameter_problems(read(chapter), config.NotebookParameters().model_dump()) == []


def test_prose_and_code(chapter):
    assert checks.prose_problems(read(chapter)) == []


def test_executed_from_top_to_bottom(chapter):
    assert checks.execution_problems(read(chapter)) == []


def test_outputs_are_the_same_on_every_machine(chapter):
    assert checks.output_problems(read(chapter)) == []
    assert checks.metadata_problems(read(chapter)) == []
    assert (paths.NOTEBOOKS / f"{chapter}.ipynb").stat().st_size <= checks.MEGABYTES * 2**20


def test_pictures_have_a_print_version_and_their_numbers(chapter):
    files = {path.relative_to(FIGURES / chapter) for path in (FIGURES / chapter).rglob("*") if path.is_file()}
    assert files, "the chapter wrote no figure"
    assert Path("captions.yaml") in files
    for path in files - {Path("captions.yaml")}:
        assert path.suffix in (".png", ".pdf", ".csv", ".md"), path
        if path.suffix in (".png", ".pdf"):
            for suffix in (".png", ".pdf", ".csv"):
                assert path.with_suffix(suffix) in files, f"{path} without its {suffix}"
        else:  # a table, or the numbers of a picture
            assert path.with_suffix(".csv") in files
            assert {path.with_suffix(".md"), path.with_suffix(".png")} & files, f"{path} is behind nothing"


def test_report_is_up_to_date(monkeypatch, tmp_path):
    shutil.copytree(FIGURES, tmp_path / "figures")
    monkeypatch.setenv("GMMP_FIGURES", str(tmp_path / "figures"))
    claims.report()
    for name in ("REPORT.md", "claims.csv"):
        assert (tmp_path / "figures" / name).read_bytes() == (FIGURES / name).read_bytes(), f"run make figures: {name}"


def test_the_readme_shows_chapters_and_verdicts_as_they_are():
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{MARKS[0]}\n{chapters_table()}\n{MARKS[1]}" in text, "run python -m lib.claims"


def test_every_claim_is_measured_or_says_why_it_is_not(chapter):
    ledger, known = claims.ledger(), claims.load()
    left = ledger[(ledger["chapter"] == chapter) & (ledger["verdict"] == "not measured")]["id"]
    assert [name for name in left if not any("not measured" in reason for reason in known[name].changed)] == []


# ----------------------------------------------------------------------------------------------------------- executed


def environment(figures: Path, runs: Path) -> dict[str, str]:
    """No GPU (its numbers differ) and no runs of this user: what a fresh clone has must be enough."""
    with run.kernel_environment(figures, own_runs=False):
        found = dict(os.environ)
    # the folders of that context are gone; those that are not there yet will be made
    found |= {"IPYTHONDIR": str(runs / "ipython"), "GMMP_RUNS": str(runs), "CUDA_VISIBLE_DEVICES": ""}
    # one thread costs a quarter of the time on an idle machine and saves most of it on one that is busy
    return found | {"OMP_NUM_THREADS": "1"}


def nbval(notebook: Path, figures: Path, runs: Path) -> subprocess.CompletedProcess[str]:
    """Execute a notebook's cells again and compare their outputs with the stored ones."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=900"]
    command += ["--nbval-sanitize-with", str(paths.ROOT / "tests" / "nbval.cfg"), "-p", "nbval_tolerance"]
    command += ["-rA", "-q", "-p", "no:cacheprovider", f"--rootdir={notebook.parent}", str(notebook)]
    told = environment(figures, runs)
    told["PYTHONPATH"] = os.pathsep.join([str(paths.ROOT / "tests"), told["PYTHONPATH"]])
    return subprocess.run(command, env=told, capture_output=True, text=True)


@pytest.fixture(scope="module")
def replay(chapter, tmp_path_factory):
    """nbval's verdict on a chapter, and the folder with the figures of its replay."""
    folder = tmp_path_factory.mktemp(chapter)
    (folder / "figures" / chapter).mkdir(parents=True)
    # a first fetch tells of itself, which would stand in the cell that happens to ask for the data
    fetch = [sys.executable, "data_scripts/fetch.py", "--chapters", chapter[:2]]
    fetched = subprocess.run(fetch, cwd=paths.ROOT, capture_output=True, text=True)
    assert fetched.returncode == 0, fetched.stderr[-2000:]
    # the chapter card shows what was measured, and the introduction what all chapters reproduced
    for name in ("performance", "claims.d"):
        if (FIGURES / name).is_dir():
            shutil.copytree(FIGURES / name, folder / "figures" / name)
    (folder / "figures" / "claims.d" / f"{chapter}.csv").unlink(missing_ok=True)
    result = nbval(paths.NOTEBOOKS / f"{chapter}.ipynb", folder / "figures", folder / "runs")
    return result, folder / "figures"


def test_replay_prints_the_same(replay):
    result, _ = replay
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " skipped" not in result.stdout.splitlines()[-1]


def test_replay_writes_the_same_figures(chapter, replay):
    _, fresh = replay

    def files(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert files(fresh / chapter) == files(FIGURES / chapter)
    names = sorted(f"{chapter}/{name}" for name in files(fresh / chapter))
    # a chapter may claim nothing, and an appendix show what benchmarks have recorded
    names += [f"claims.d/{chapter}.csv"] if (claims.ledger()["notebook"] == chapter).any() else []
    assert [text for name in names for text in compare.compare(name, FIGURES / name, fresh / name).problems] == []


def test_tolerances_name_files_and_columns_that_exist():
    for name, entry in compare.tolerances().items():
        columns = (FIGURES / name).read_text(encoding="utf-8").splitlines()[0]
        for column in (*entry.get("skip", ()), *entry.get("columns", ())):
            assert column in columns, f"{name} has no column {column}"


def test_tolerances_hold_in_the_cell_that_shows_the_table():
    for name, entry in compare.tolerances().items():
        cells = nbformat.read(paths.ROOT / "notebooks" / f"{Path(name).parts[0]}.ipynb", 4).cells
        limits = [compare.limits_of_cell(cell.outputs) for cell in cells if cell.cell_type == "code"]
        assert compare.limits(entry) in limits, name


def test_smoke_trains_from_scratch(chapter, tmp_path):
    told = environment(tmp_path, tmp_path / "runs") | {"GMMP_FIGURES": ""}
    command = [sys.executable, "-m", "lib.run", chapter, "--preset", "smoke"]
    result = subprocess.run(command, cwd=paths.ROOT, env=told, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    drawn = tmp_path / "runs" / "figures" / "smoke" / chapter
    assert {path.name for path in drawn.iterdir()} == {path.name for path in (FIGURES / chapter).iterdir()}


# ------------------------------------------------------------------------------------------------ the rules themselves


def good():
    """A notebook that keeps all rules of its outputs and metadata."""
    made = skeleton.notebook("value = 1", "value + 1")
    made.cells[0].source = "# Title\n" + "".join(f"\n## {name.capitalize()}\n" for name in checks.SECTIONS)
    for count, cell in enumerate(made.cells[1:], 1):
        cell.execution_count = count
    made.cells[3].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=3)]
    return checks.clean(made)


def output(cell, **data):
    cell.outputs = [nbformat.v4.new_output("display_data", data)]


def test_rules_accept_what_is_right():
    made = good()
    assert checks.anatomy_problems(made) == []
    assert checks.parameter_problems(made, config.NotebookParameters().model_dump()) == []
    assert checks.execution_problems(made) == []
    assert checks.output_problems(made) == []
    assert checks.metadata_problems(made) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda nb: nb.cells[3].update(execution_count=None, outputs=[]), "not executed from top to bottom"),
        (lambda nb: nb.cells[2].update(execution_count=9), "not executed from top to bottom"),
        (lambda nb: nb.cells[3].update(outputs=[]), "ends with a value to show, but holds no output"),
        (lambda nb: nb.cells[3].update(outputs=[nbformat.v4.new_output("error")]), "holds an error"),
        (lambda nb: output(nb.cells[3], **{"image/svg+xml": "<svg/>"}), "is SVG"),
        (lambda nb: output(nb.cells[3], **{"text/plain": "/home/me/x.py"}), "holds a path of a machine"),
        (lambda nb: output(nb.cells[3], **{"text/plain": "UserWarning: old"}), "holds a warning"),
        (lambda nb: output(nb.cells[3], **{"application/vnd.jupyter.widget-view+json": {}}), "is a live widget"),
        (lambda nb: output(nb.cells[3], **{"image/png": "A" * 2**22}), "MB, at most 3"),
        (lambda nb: nb.cells[3].outputs.append(nbformat.v4.new_output("stream", name="stderr")), "holds stderr"),
        (lambda nb: nb.cells[1].update(source="seed = 0"), "the parameters cell assigns {'seed': 0}"),
        (lambda nb: nb.cells[1].update(source="seed = int(0)"), "may only assign literals"),
        (lambda nb: nb.cells[1].metadata.pop("tags"), "0 cells are tagged 'parameters'"),
        (lambda nb: nb.metadata.update(papermill={"duration": 3}), "metadata are not clean"),
        (lambda nb: nb.cells[0].update(source=nb.cells[0].source.replace("## Theory", "## Thoughts")), "'Thoughts'"),
        (lambda nb: nb.cells[0].update(source=nb.cells[0].source.replace("## Claims", "")), "missing: claims"),
        (lambda nb: nb.cells[0].update(source="## Data\n" + nb.cells[0].source), "exactly one first-level"),
        (lambda nb: nb.cells[0].update(source=nb.cells[0].source + "\n## Data\n"), "they must be"),
        (lambda nb: nb.cells[0].update(source="# Title\n\n## Results\n\nIt reaches 27.5 dB."), "'27.5 dB' is typed"),
        (lambda nb: nb.cells[2].update(source="x = 1\n" * 26), "has 26 lines, at most 25"),
    ],
)
def test_rules_name_what_is_wrong(change, problem):
    made = good()
    change(made)
    found = checks.anatomy_problems(made)
    found += checks.parameter_problems(made, config.NotebookParameters().model_dump())
    found += checks.execution_problems(made) + checks.output_problems(made)
    found += checks.metadata_problems(made) + checks.prose_problems(made)
    assert any(problem in text for text in found), found


def test_replay_finds_what_changed_and_forgives_rounding(tmp_path):
    now = ["value 1.25", "value 1.25", "8 of 8 modes", "took 1.5 s"]
    then = ["value 1.26", "value 1.45", "7 of 8 modes", "took 9.9 s"]
    made = skeleton.notebook(*(f"print({text!r})" for text in now))
    for cell, text in zip(made.cells[2:], then, strict=True):
        cell.execution_count = 1
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{text}\n")]
    made.cells[1].execution_count = 1
    nbformat.write(made, tmp_path / "made.ipynb")
    told = nbval(tmp_path / "made.ipynb", tmp_path, tmp_path).stdout
    verdicts = re.findall(r"^(PASSED|FAILED) .*Cell (\d)", told, re.MULTILINE)
    assert sorted((cell, verdict) for verdict, cell in verdicts) == [
        ("0", "PASSED"),
        ("1", "PASSED"),
        ("2", "FAILED"),
        ("3", "FAILED"),
        ("4", "PASSED"),
    ]


def test_cleaning_leaves_the_original_alone():
    made = good()
    made.metadata["papermill"] = {"duration": 3}
    before = copy.deepcopy(made)
    cleaned = checks.clean(made)
    assert made == before
    assert "papermill" not in cleaned.metadata
    assert cleaned.cells[1].metadata == {"tags": ["parameters"]}
    assert [cell.id for cell in cleaned.cells] == [cell.id for cell in made.cells]


@pytest.mark.parametrize(
    ("stored", "fresh", "same"),
    [
        ("52% | 221.1 | 1.2e-05", "53% | 221.2 | 1.3e-05", True),
        ("4.05e-06", "5.33e-06", True),  # rounding errors of two processors
        ("4.05e-06", "5.33e-05", False),
        ("52%", "54%", False),
        ("0.16", "0.18", False),
        ("8 of 8 modes", "7 of 8 modes", False),  # a count is not rounded
        ("12,345.6 images", "12,346.1 images", True),
        ("exact", "WRONG", False),
    ],
)
def test_printed_numbers_may_differ_by_rounding(stored, fresh, same):
    assert compare.close(stored, fresh, printed=True) == same


@pytest.mark.parametrize(
    ("fresh", "problems"),
    [
        ("name,value,seconds\nA,1.0004,9\nB ± 2,2,1\n", 0),
        ("name,value,seconds\nA,1.01,9\nB ± 2,2,1\n", 1),
        ("name,value,seconds\nA,1,9\nB ± 3,2,1\n", 1),
        ("name,value,seconds\nC,1,9\nB ± 2,2,1\n", 1),
        ("name,value,seconds\nA,nan,9\nB ± 2,2,1\n", 1),
        ("name,value,seconds\nA,1,9\n", 1),
        ("name,worth,seconds\nA,1,9\nB ± 2,2,1\n", 1),
        ("", 1),
    ],
)
def test_tables_are_compared_with_tolerance(tmp_path, fresh, problems):
    (tmp_path / "old.csv").write_text("name,value,seconds\nA,1,5\nB ± 2,2,5\n")
    (tmp_path / "new.csv").write_text(fresh)
    assert len(compare.compare("new.csv", tmp_path / "old.csv", tmp_path / "new.csv").problems) == problems
    (tmp_path / "old.md").write_text("| a | 1,234.5 |\n|---|---|\n")
    for text, expected in (("| a |   1,234.6 |\n|----|---|\n", 0), ("| a | 1,300 |\n|---|---|\n", 1)):
        (tmp_path / "new.md").write_text(text)
        assert len(compare.compare("new.md", tmp_path / "old.md", tmp_path / "new.md").problems) == expected
