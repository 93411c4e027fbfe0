"""Strict execution of one chapter, and the workflow over all of them, on two made-up chapters that take a second."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import types

import nbformat
import numpy as np
import pytest
import skeleton

from lib import config, paths, run, timings
from lib.notebook import checks
from lib.run import workflow
from lib.run.staleness import imported_files


@pytest.fixture
def repository(tmp_path):
    return skeleton.Skeleton(tmp_path)


def done(repository):
    return sorted(path.name for path in (repository.root / "runs" / "done").glob("*.json"))


# ---------------------------------------------------------------------------------------------------------- one chapter


@pytest.fixture
def refusing(monkeypatch, tmp_path):
    """A folder with two chapters that could not be executed, for ``lib.run`` in this process."""
    (tmp_path / "parameters").mkdir()
    for chapter in ("02_background", "03_faces"):
        (tmp_path / f"{chapter}.ipynb").write_text("not a notebook")
        presets = "smoke: {train: {steps: 1}}\nlaptop: {train: {steps: 1}}\n"
        (tmp_path / "parameters" / f"{chapter}.yaml").write_text(f"config: lib.config:Chapter\n{presets}")

    class Train(config.Config):
        steps: int = config.Field(gt=0)

    class Chapter(config.Config):
        train: Train

    monkeypatch.setattr(config, "config_class", lambda chapter: Chapter)
    monkeypatch.setattr(config, "chapter_file", lambda chapter: {p: {"train": {"steps": 1}} for p in config.PRESETS})
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(paths, "PARAMETERS", tmp_path / "parameters")
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path / "runs"))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["02", "--preset", "smok"], "'preset' is 'smok' (did you mean 'smoke'?)"),
        (["02", "--preest", "smoke"], "unknown argument '--preest' (did you mean '--preset'?)"),
        (["02", "--set", "train.step=3"], "unknown key 'train.step' (did you mean 'steps'?)"),
        (["02", "--set", "train.steps=0"], "'train.steps' is 0: it must be greater than 0"),
        (["02", "--set", "train.steps"], "--set 'train.steps': write key=value"),
        (["02", "--set", "train.steps=1", "--set", "train.steps=2"], "--set train.steps: given twice"),
        (["02", "--seed", "1.5"], "'seed' is 1.5: it must be a valid integer"),
        (["02", "--device", "cdua"], "unknown device 'cdua'"),
        (["backgroud"], "unknown chapter 'backgroud' (did you mean 'background'?); there are: 02_background"),
        (["02", "--preset", "smoke", "--update"], "--update stores the notebook as a reader gets it"),
        ([], "the following arguments are required: chapter"),
    ],
)
def test_what_is_wrong_is_refused_before_it_starts(refusing, call, options, message):
    code, _, said = call(run.main, *options)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("error: ") and message in said
    assert not (refusing / "runs").exists()


def test_an_unwritable_folder_is_one_sentence(refusing, call):
    (refusing / "runs").write_text("a file")
    code, _, said = call(run.main, "02")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("error: cannot write to")


def test_a_chapter_runs_with_what_it_is_given(repository):
    ran = repository.run("tiny", "--preset", "smoke", "--seed", "3", "--set", "train.steps=7")
    assert ran.returncode == 0, ran.stderr
    (name,) = done(repository)
    variant = name.removeprefix("02_tiny-").removesuffix(".json")
    assert variant.startswith("smoke-seed3-")
    # an altered run leaves the figures of the repository alone
    assert not (repository.root / "figures").exists()
    figures = repository.root / "runs" / "figures" / variant
    assert (figures / "02_tiny" / "steps.csv").read_text() == "steps,seed\n7,3\n"
    assert (figures / "claims.d" / "02_tiny.csv").is_file()
    executed = nbformat.read(repository.root / "runs" / "notebooks" / f"02_tiny-{variant}.ipynb", 4)
    assert any("seed = 3" in cell.source for cell in executed.cells)
    assert not checks.execution_problems(executed)
    record = json.loads((repository.root / "runs" / "done" / name).read_text())
    assert record["seconds"] > 0
    assert record["peak_memory_mb"] > 10
    assert record["device"] == "cpu"
    assert not list((repository.root / "runs" / "staging").glob("*"))


def test_a_chapter_replaces_its_figures_and_a_failing_one_touches_none(repository):
    figure = repository.root / "figures" / "02_tiny" / "steps.csv"
    old, other = figure.with_name("old.csv"), repository.root / "figures" / "03_other" / "kept.csv"
    for path in (old, other):
        path.parent.mkdir(parents=True)
        path.write_text("x\n")
    assert repository.run("02").returncode == 0
    assert other.exists() and not old.exists()  # of an earlier version of the chapter

    before = figure.read_bytes()
    repository.write(
        "02_tiny",
        "import os, pathlib\n(pathlib.Path(os.environ['GMMP_FIGURES']) / '02_tiny' / 'half.csv').write_text('x')",
        "print('so far')\nraise ValueError('no such thing')",
        "print('never')",
    )
    failed = repository.run("02")
    assert failed.returncode == 1
    last = failed.stderr.splitlines()[-1]
    kept = repository.root / "runs" / "notebooks" / "02_tiny-laptop.ipynb"
    assert last.startswith("error: 02_tiny failed in cell [3]: ValueError: no such thing")
    assert last.endswith(str(kept))
    cells = [cell for cell in nbformat.read(kept, 4).cells if cell.cell_type == "code"]
    assert [output.output_type for output in cells[2].outputs] == ["stream", "error"]
    assert cells[3].execution_count is None
    assert done(repository) == []  # the record of the run before no longer holds
    assert figure.read_bytes() == before
    assert not (figure.parent / "half.csv").exists()


def test_a_dying_kernel_is_reported(repository):
    repository.write("02_tiny", "import os\nos._exit(1)")
    failed = repository.run("02")
    assert failed.returncode == 1
    assert "error: the kernel of 02_tiny died" in failed.stderr


def test_an_interruption_reaches_the_cell_and_is_said(repository):
    repository.write(
        "02_tiny",
        "import pathlib, time\npathlib.Path('started').touch()\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pathlib.Path('saved').touch()\n    raise",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "lib.run", "02"],
        cwd=repository.root,
        env=repository.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (repository.root / "notebooks" / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # of a cluster; Ctrl-C has the same handler
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: 02_tiny was interrupted" in said
    assert (repository.root / "notebooks" / "saved").exists()
    assert done(repository) == []


def test_update_stores_a_clean_notebook_or_none(repository):
    stored = repository.notebook("02_tiny")
    assert repository.run("02", "--update").returncode == 0
    updated = nbformat.read(stored, 4)
    assert not checks.execution_problems(updated)
    assert not checks.metadata_problems(updated)
    assert str(repository.root) not in stored.read_text()
    # what an execution stores does not make the chapter out of date, what a reader changes does
    ask = (
        "import sys; from pathlib import Path; from lib import config, run\n"
        "stored = Path(sys.argv[1]); text = stored.read_text()\n"
        "for old, new in (('\"execution_count\": 1', '\"execution_count\": 41'), ('# Tiny', '# Large')):\n"
        "    assert old in text; stored.write_text(text.replace(old, new))\n"
        "    print(run.is_current('02_tiny', config.NotebookParameters()))\n"
    )
    assert repository.command(sys.executable, "-c", ask, stored).stdout.split() == ["True", "False"]

    repository.write("02_tiny", "import sys\nprint('mind', file=sys.stderr)")
    before = stored.read_text()
    refused = repository.run("02", "--update")
    assert refused.returncode == 2
    assert "is not fit for notebooks/: output of cell 2 holds stderr: 'mind'" in refused.stderr
    assert stored.read_text() == before


# ---------------------------------------------------------------------------------------------------- names and hashes


def test_papermill_itself_refuses_a_wrong_name(repository):
    repository.write(
        "02_tiny",
        "from lib import config\nrun = config.parameters(\n    preset=preset, seed=seed, retrain=retrain, "
        "recompute=recompute, device=device, overrides=overrides\n)\nprint('variant', run.variant)",
    )
    command = (sys.executable, "-m", "papermill", str(repository.notebook("02_tiny")), "out.ipynb", "--log-output")
    wrong = repository.command(*command, "-p", "presett", "smoke")
    assert wrong.returncode != 0
    assert "unknown key 'presett' (did you mean 'preset'?)" in wrong.stderr
    right = repository.command(*command, "-p", "preset", "smoke", "-p", "seed", "3")
    assert right.returncode == 0, right.stderr
    assert "variant smoke-seed3" in right.stderr


def test_variant_and_options_name_what_differs_from_the_defaults():
    parameters = config.NotebookParameters
    assert run.variant(parameters()) == "laptop"
    assert run.variant(parameters(device="cpu")) == "laptop"
    assert run.variant(parameters(preset="full", seed=2, retrain=True)) == "full-seed2-retrain"
    altered = parameters(overrides={"train.steps": 5, "name": "a b"})
    assert run.variant(altered) == run.variant(altered) != run.variant(parameters(overrides={"train.steps": 6}))
    names = list(parameters.model_fields)
    assert run.options(parameters(), *names) == ""
    assert run.options(parameters(preset="full", recompute=True), *names) == "--preset full --recompute"
    assert run.options(altered, "overrides") == "--set train.steps=5 --set 'name=\"a b\"'"
    assert config.parse_overrides(["train.steps=5", 'name="a b"']) == altered.overrides


def test_imports_are_followed_through_lib():
    files = {path.relative_to(paths.ROOT).as_posix() for path in imported_files(["from lib import claims"])}
    assert {"lib/__init__.py", "lib/claims/records.py", "lib/errors.py", "lib/paths.py"} <= files
    assert not any(file.startswith(("lib/background", "lib/flows", "lib/run")) for file in files)
    magics = "%matplotlib inline\nimport lib.flows.layers\n!ls"
    files = {path.relative_to(paths.ROOT).as_posix() for path in imported_files([magics])}
    assert {"lib/flows/__init__.py", "lib/flows/layers.py", "lib/flows/multiscale.py"} <= files
    assert not any(file.startswith(("lib/background", "lib/claims", "lib/run")) for file in files)


# --------------------------------------------------------------------------------------------------------- the workflow


def test_workflow_keeps_going_reports_and_resumes(repository):
    repository.write("02_tiny", "1 / 0")
    failed = repository.snakemake()
    assert failed.returncode != 0
    assert "error: 02_tiny failed in cell [2]: ZeroDivisionError" in failed.stderr
    assert done(repository) == ["03_other-laptop.json"]
    report = (repository.root / "figures" / "REPORT.md").read_text()
    assert "03_other.steps" in (repository.root / "figures" / "claims.csv").read_text()
    assert "| [Chapter 3: other]" in report
    assert "03_other" in failed.stdout  # the table of times
    assert (repository.root / "data_scripts" / "calls.txt").read_text().count("--chapters") == 2

    # mended: only what is missing runs, and the data is not asked for again
    repository.write("02_tiny", skeleton.WORK_CELL.format(chapter="02_tiny", package="tiny"))
    other = repository.root / "runs" / "done" / "03_other-laptop.json"
    before = other.read_bytes()
    mended = repository.snakemake("--config", "chapters=", "retrain=false", "seed=0")  # as the Makefile says it
    assert mended.returncode == 0, mended.stderr
    assert done(repository) == ["02_tiny-laptop.json", "03_other-laptop.json"]
    assert other.read_bytes() == before
    assert (repository.root / "data_scripts" / "calls.txt").read_text().count("--chapters") == 2

    # code of one chapter, and a figure of the other that somebody changed
    stamps = {path: path.stat().st_mtime_ns for path in (repository.root / "runs" / "done").glob("*.json")}
    figures = {path: path.read_bytes() for path in (repository.root / "figures").rglob("*") if path.is_file()}
    os.utime(repository.notebook("02_tiny"))  # a checkout changes times, not contents
    os.utime(repository.root / "data_scripts" / "catalog.yaml", (1, 1))
    assert repository.snakemake().returncode == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    (repository.root / "figures" / "02_tiny" / "steps.csv").write_text("changed by hand")
    (repository.root / "lib" / "other" / "__init__.py").write_text("value = 1  # changed\n")
    assert repository.snakemake().returncode == 0
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in stamps.items())
    assert {path: path.read_bytes() for path in figures} == figures


def test_workflow_goes_on_after_it_was_killed(tmp_path, capsys):
    (tmp_path / "locks").mkdir()
    lock = tmp_path / "locks" / "0.output.lock"
    lock.touch()
    workflow.own_locks(tmp_path)  # whose it is nobody knows
    assert lock.exists()
    running, killed = tmp_path / "owners" / "other", tmp_path / "owners" / "killed"
    killed.write_text(f"{socket.gethostname()} 999999999 1.00")
    workflow.own_locks(tmp_path)  # the first call's workflow, this process, still runs
    assert lock.exists()
    assert not killed.exists()
    for note in (tmp_path / "owners").iterdir():
        note.unlink()
    killed.write_text(f"{socket.gethostname()} 999999999 1.00")
    running.write_text("a-node-elsewhere 1 1.00")
    workflow.own_locks(tmp_path)  # whether that one runs is not known here
    assert lock.exists()
    for note in (tmp_path / "owners").iterdir():
        note.unlink()
    killed.write_text(f"{socket.gethostname()} 999999999 1.00")
    workflow.own_locks(tmp_path)
    assert not lock.exists()
    assert "an earlier run was killed: its locks are cleared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kept", "asked"), [("accounting_storage/none", "squeue"), ("accounting_storage/slurmdbd", "sacct")]
)
def test_state_of_slurm_jobs_is_asked_where_it_is_known(tmp_path, monkeypatch, kept, asked):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho 'AccountingStoragePort   = 0'\necho 'AccountingStorageType   = {kept}'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    settings = types.SimpleNamespace(status_command="sacct")
    workflow.choose_status_command(settings)
    assert settings.status_command == asked
    workflow.choose_status_command(types.SimpleNamespace())  # another executor's


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["device=cude"], "unknown device 'cude' (did you mean 'cuda'?)"),
        (["overrides={train.steps: [1, 2]}"], "'train.steps' is [1, 2]"),
        (["prest=smoke"], "--config: unknown key 'prest' (did you mean 'preset'?)"),
        (["overrides={train.stps: 3}"], "unknown key 'train.stps' (did you mean 'steps'?)"),
    ],
)
def test_workflow_refuses_before_anything_starts(tmp_path_factory, shared, options, message):
    refused = shared.snakemake("--config", *options)
    assert refused.returncode == 2
    assert refused.stderr.count("error: ") == 1
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (shared.root / "runs").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """For tests that leave nothing behind."""
    return skeleton.Skeleton(tmp_path_factory.mktemp("shared"))


EXPERIMENTS = """
from lib.errors import UserError
from lib.training import Task, task

@task("model")
def model(chapter, seed):
    return Task("tiny.model", chapter, seed)

@task("late", needs=("model",))
def late(chapter, seed):
    return Task("tiny.late", chapter, seed)

@task("of_{}", ["bikes"])
def of(chapter, seed, clip):
    raise UserError(f"this preset has no sequence of {clip}")
"""


def test_workflow_asks_slurm_for_a_gpu_at_preset_full_only(shared):
    (shared.root / "lib" / "tiny" / "experiments.py").write_text(EXPERIMENTS)
    command = ("--profile", "profiles/slurm", "--dry-run", "--config")
    full = shared.snakemake(*command, "preset=full", "device=cuda")  # which the machine that sends the jobs may lack
    assert full.returncode == 0, full.stderr
    # the models of a chapter are jobs of their own, and the chapter waits for them
    assert "rule train:" in full.stdout
    assert "train-tiny.model-full.json" in full.stdout.partition("rule chapter:")[2]
    assert full.stdout.count("gpu=1") == 4
    assert full.stdout.count("runtime=1440") == 4
    # one that starts from another waits for it; one that the settings have no room for is no job
    late = next(
        job for job in full.stdout.split("rule ") if "output: " in job and "train-tiny.late" in job.split("output:")[1]
    )
    assert "train-tiny.model-full.json" in late.partition("output:")[0]
    assert "train-tiny.of_bikes" not in full.stdout
    laptop = shared.snakemake(*command, "preset=laptop", "chapters=02", "seed=4", "overrides={train.steps: 3}")
    assert laptop.returncode == 0, laptop.stderr
    assert "rule train:" not in laptop.stdout
    assert "gpu=1" not in laptop.stdout
    assert "laptop-seed4-" in laptop.stdout
    assert "03_other" not in laptop.stdout


# -------------------------------------------------------------------------------------------------------------- timings


def test_times_are_kept_only_when_asked(monkeypatch, tmp_path, call):
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GMMP_FIGURES", str(tmp_path / "figures"))
    folder = tmp_path / "runs" / "done"
    folder.mkdir(parents=True)

    def record(chapter, variant, seconds):
        row = {"chapter": chapter, "variant": variant, "seconds": seconds, "peak_memory_mb": 900, "device": "cpu"}
        (folder / f"{chapter}-{variant}.json").write_text(json.dumps(row | {"threads": 2, "recipe": "x"}))

    record("02_a", "laptop", 10.5)
    record("02_a", "smoke", 1.5)
    (folder / "train-a.model-full.json").touch()  # not an execution
    _, printed, _ = call(timings.main, "laptop")
    assert "10.5" in printed
    assert "smoke" not in printed
    assert not (tmp_path / "figures").exists()

    call(timings.main, "--record")
    record("02_a", "laptop", 8.25)
    (folder / "02_a-smoke.json").unlink()
    call(timings.main, "--record")
    lines = (tmp_path / "figures" / "performance" / "timings.csv").read_text().splitlines()
    assert lines == [
        "chapter,variant,seconds,peak_memory_mb,device,threads",
        "02_a,laptop,8.25,900,cpu,2",
        "02_a,smoke,1.5,900,cpu,2",
    ]


def test_peak_memory_is_that_of_this_process_alone():
    held = np.ones(64 * 2**20)  # half a gigabyte, which a process that is started from here must not be charged for
    code = "from lib.timings import peak_memory; print(peak_memory())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10 < float(found.stdout) < 400 < timings.peak_memory() and held.size
