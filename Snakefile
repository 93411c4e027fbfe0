# data -> (checkpoints) -> notebook and figures -> report
#
#   snakemake --cores 2                                                  every chapter, preset laptop
#   snakemake --cores 8 --config preset=full chapters="02 05" seed=1     two chapters at the thesis' scale
#   snakemake --profile profiles/slurm --config preset=full              the same on a cluster
#
# A chapter is run again when anything it depends on has changed: the hash in runs/done/ says so, not the time stamps
# of a checkout. A chapter that fails does not stop the others; the report is written for those that succeeded, and the
# exit code says that something is missing. `make figures` calls this.
import shlex
import sys
from functools import cache
from pathlib import Path

# lib lies beside this file, whatever folder snakemake was called from
workdir: workflow.basedir
sys.path.insert(0, str(workflow.basedir))

from lib import config as presets
from lib import paths, run
from lib.errors import UserError, fail
from lib.run.workflow import choose_status_command, own_locks


def read(value):
    """Snakemake leaves some words of --config as text, `false` and all numbers inside braces for example."""
    if isinstance(value, dict):
        return {key: read(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [read(inner) for inner in value]
    return presets.scalar(value) if isinstance(value, str) else value


KNOWN = ("chapters", *presets.NotebookParameters.model_fields)
try:
    for name in config:
        if name not in KNOWN:
            raise UserError(f"--config: unknown key {name!r}{presets.nearest(name, KNOWN)}; there are: {', '.join(KNOWN)}")
    CHAPTERS = run.resolve(str(config.get("chapters") or ""))
    VALUES = {name: read(value) for name, value in config.items() if name != "chapters"}
    # jobs may run elsewhere, so the device is looked for where they do; its name is checked here
    PARAMETERS = [run.check(chapter, False, **VALUES) for chapter in CHAPTERS][0]
except UserError as error:
    fail(error)

VARIANT = run.variant(PARAMETERS)
FULL = PARAMETERS.preset == "full"
DONE = paths.runs() / "done"
LOGS = paths.runs() / "logs"
FIGURES = run.figures_path(PARAMETERS)
PYTHON = shlex.quote(sys.executable)
REPORT = f"GMMP_FIGURES={shlex.quote(str(FIGURES))} {PYTHON} -m lib.claims && {PYTHON} -m lib.timings {VARIANT}"

# A record that no longer fits what lies here has no value; without it the step is out of date.
for chapter in CHAPTERS:
    if not run.is_current(chapter, PARAMETERS):
        run.record_path(chapter, PARAMETERS).unlink(missing_ok=True)
    fetched = DONE / f"data-{chapter}"
    if not paths.cache().is_dir() or not fetched.is_file() or fetched.read_text().strip() != str(paths.cache()):
        fetched.unlink(missing_ok=True)


if workflow.is_main_process:
    own_locks(Path(".snakemake"))


@cache
def trainings(chapter):
    return run.trainings(chapter, PARAMETERS)


def done(models):
    return [DONE / f"train-{model}-{VARIANT}.json" for model in models]


def trained(wildcards):
    """At preset full the models of a chapter are jobs of their own: in parallel, each resumed where it was stopped."""
    return done(trainings(wildcards.chapter)) if FULL and not PARAMETERS.retrain else []


def needed(wildcards):
    """What a training waits for: the data of its chapter, and the trainings that its task needs before it."""
    chapter = presets.package_chapter(wildcards.model.split(".")[0])
    return [DONE / f"data-{chapter}", *done(trainings(chapter)[wildcards.model])]


def others(wildcards):
    """The introduction shows what was reproduced: it is executed after all other chapters that were asked for."""
    mine = presets.chapter_package(wildcards.chapter) == "introduction"
    return expand(f"{DONE}/{{chapter}}-{VARIANT}.json", chapter=set(CHAPTERS) - {wildcards.chapter}) if mine else []


wildcard_constraints:
    chapter=r"[0-9A-Z][0-9]_\w+",
    model=r"\w+\.\w+",


localrules: all, data


# Has no output, so it always runs; it takes a second.
rule all:
    input:
        expand(f"{DONE}/{{chapter}}-{VARIANT}.json", chapter=CHAPTERS),
    shell:
        REPORT


rule data:
    input:
        paths.CATALOG,
    output:
        f"{DONE}/data-{{chapter}}",
    params:
        cache=str(paths.cache()),
    shell:
        "{PYTHON} data_scripts/fetch.py --chapters {wildcards.chapter} && echo {params.cache:q} > {output:q}"


rule train:
    input:
        needed,
    output:
        touch(f"{DONE}/train-{{model}}-{VARIANT}.json"),
    log:
        f"{LOGS}/train-{{model}}-{VARIANT}.log",
    params:
        options=run.options(PARAMETERS, "preset", "seed", "device", "overrides"),
    threads: 8
    resources:
        mem_mb=32000,
        runtime=24 * 60,
        gpu=1,
    shell:
        "{PYTHON} -m lib.training {wildcards.model} {params.options} --resume > {log:q} 2>&1"


rule chapter:
    input:
        f"{DONE}/data-{{chapter}}",
        trained,
        others,
        notebook=ancient("notebooks/{chapter}.ipynb"),
    output:
        f"{DONE}/{{chapter}}-{VARIANT}.json",
    log:
        f"{LOGS}/{{chapter}}-{VARIANT}.log",
    params:
        options=run.options(PARAMETERS, *presets.NotebookParameters.model_fields),
    # tiny models are fastest on one thread; two are what the laptop budget counts with
    threads: {"smoke": 1, "full": 8}.get(PARAMETERS.preset, 2)
    resources:
        mem_mb=32000 if FULL else 3000,
        runtime=24 * 60 if FULL else 90,
        gpu=1 if FULL else 0,
    shell:
        # the whole log stays in a file; what went wrong is said here, too
        "{PYTHON} -m lib.run {wildcards.chapter} {params.options} 2> {log:q} || {{ tail -n 1 {log:q} >&2; exit 1; }}"


onstart:
    choose_status_command(workflow.executor_settings)


onerror:
    shell(REPORT)
