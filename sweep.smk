# A chapter for several seeds and values: every execution a job, then one table of them all (lib/run/sweep.py).
#
#   snakemake -s sweep.smk --cores 2 --config chapter=02 seeds=0-4 grid="flow.train.lr=1e-3,2e-3" preset=laptop
#
# Executions that were done stay; those that failed do not stop the others. `make sweep` calls this.
import shlex
import sys
from pathlib import Path

workdir: workflow.basedir
sys.path.insert(0, str(workflow.basedir))

from lib import config as presets
from lib import paths, run
from lib.errors import UserError, fail
from lib.run.sweep import Sweep
from lib.run.workflow import choose_status_command, own_locks

KNOWN = ("chapter", "seeds", "grid", "preset", "device")
try:
    for name in config:
        if name not in KNOWN:
            raise UserError(f"--config: unknown key {name!r}{presets.nearest(name, KNOWN)}; there are: {', '.join(KNOWN)}")
    ASKED = {name: str(config.get(name) or default) for name, default in zip(KNOWN, ("", "0", "", "laptop", "auto"))}
    SWEEP = Sweep(*ASKED.values())
except UserError as error:
    fail(error)

PYTHON = shlex.quote(sys.executable)
FULL = ASKED["preset"] == "full"
RUNS = {run.variant(each): each for each in SWEEP.runs}
RECORDS = [run.record_path(SWEEP.chapter, each) for each in SWEEP.runs]
GATHER = shlex.join([sys.executable, "-m", "lib.run.sweep", SWEEP.chapter, "--seeds", ASKED["seeds"], "--grid",
                     ASKED["grid"], "--preset", ASKED["preset"]])

for each in SWEEP.runs:
    if not run.is_current(SWEEP.chapter, each):
        run.record_path(SWEEP.chapter, each).unlink(missing_ok=True)

if workflow.is_main_process:
    own_locks(Path(".snakemake"))


localrules: all, data


rule all:
    input:
        RECORDS,
    shell:
        "{GATHER}"


rule data:
    output:
        touch(paths.runs() / "done" / f"data-{SWEEP.chapter}-sweep"),
    shell:
        "{PYTHON} data_scripts/fetch.py --chapters {SWEEP.chapter}"


rule execution:
    input:
        rules.data.output,
    output:
        str(paths.runs() / "done" / f"{SWEEP.chapter}-{{variant}}.json"),
    log:
        str(paths.runs() / "logs" / f"{SWEEP.chapter}-{{variant}}.log"),
    params:
        options=lambda wildcards: run.options(RUNS[wildcards.variant], *presets.NotebookParameters.model_fields),
    threads: {"smoke": 1, "full": 8}.get(ASKED["preset"], 2)
    resources:
        mem_mb=32000 if FULL else 3000,
        runtime=24 * 60,
        gpu=1 if FULL else 0,
    shell:
        "{PYTHON} -m lib.run {SWEEP.chapter} {params.options} 2> {log:q} || {{ tail -n 1 {log:q} >&2; exit 1; }}"


onstart:
    choose_status_command(workflow.executor_settings)


onerror:
    shell("{GATHER} || true")
