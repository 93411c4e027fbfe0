# make figures [PRESET=laptop] [CHAPTERS="02 05"] [SEED=0] [JOBS=cores] [RETRAIN=1] [RECOMPUTE=1] [DEVICE=auto] [GPUS=1]
SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: figures test test-quick lab gpu data timings claim audit sweep fuzz clean help setup setup-test

PRESET ?= laptop
CHAPTERS ?=
SEED ?= 0
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
RETRAIN ?=
RECOMPUTE ?=
DEVICE ?= auto
# trainings and chapters of preset full that run side by side, each on a GPU of its own
GPUS ?= 1
OPTIONS ?=
ID ?=
WHOLE ?=
MINUTES ?=
PYTHON ?=

BIN := .venv/bin
# MB that chapters running side by side may take together
MEMORY := $(shell awk '/^MemAvailable/ { print int($$2 / 1024) }' /proc/meminfo 2>/dev/null || echo 6000)

export PYTHON
# the kernel of this environment, not one of the same name in the home folder; snakemake must not insist on git
export JUPYTER_PREFER_ENV_PATH := 1
export GIT_PYTHON_REFRESH := quiet
export PYTHONNOUSERSITE := 1

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@sed -n 1p Makefile | cut -c 3-

setup:
	@scripts/setup.sh requirements.txt

setup-test:
	@scripts/setup.sh requirements-test.txt

figures: export GMMP_GPUS = $(GPUS)
figures: setup  ## execute the chapters and write figures/ with REPORT.md (only what is out of date)
	@$(BIN)/python -m lib.run.watch $(BIN)/python -m snakemake --cores "$(JOBS)" --resources gpu=$(GPUS) \
	    mem_mb=$(MEMORY) --keep-going --rerun-incomplete --quiet $(if $(filter full,$(PRESET)),rules host,all) \
	    --config preset="$(PRESET)" seed="$(SEED)" device="$(DEVICE)" chapters="$(CHAPTERS)" \
	    retrain="$(if $(RETRAIN),true,false)" recompute="$(if $(RECOMPUTE),true,false)"

test: setup-test  ## lint, then all tests; every committed notebook is replayed
	@$(BIN)/ruff check .
	@$(BIN)/python -m pytest --by-file --numprocesses 2 --dist loadscope --no-loadscope-reorder --durations 20

test-quick: setup-test  ## lint, then what takes seconds: nothing is trained or replayed, no program is started
	@$(BIN)/ruff check .
	@$(BIN)/python -m pytest --quick --by-file --numprocesses 2 --dist loadscope --no-loadscope-reorder

lab: setup  ## JupyterLab with this environment's kernel; on a server: make lab OPTIONS="--no-browser --ip=0.0.0.0"
	@$(BIN)/python -m jupyterlab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) $(OPTIONS)

gpu: setup  ## try every model of preset full on this machine's GPU for ten minutes: loss, speed, memory, hours
	@$(BIN)/python -m lib.gpu --device "$(DEVICE)"

data: setup  ## fetch the data that arrives in packages, of all chapters or CHAPTERS (figures does it as needed)
	@$(BIN)/python data_scripts/fetch.py --chapters $(or $(CHAPTERS),01 02 03 04 05 06 07 A1)

claim: setup  ## measure one claim again and compare: make claim ID=5.jpeg (WHOLE=1 where it takes long)
	@$(BIN)/python -m lib.claims claim "$(ID)" $(if $(WHOLE),--whole)

audit: setup  ## measure every claim again (hours; go on after an interruption) and write figures/audit.md
	@$(BIN)/python -m lib.claims audit $(if $(CHAPTERS),--chapters $(CHAPTERS)) $(if $(MINUTES),--minutes $(MINUTES)) \
	    $(if $(WHOLE),--whole)

fuzz: setup-test  ## hunt for files that the readers do not survive, SECONDS=600 [SEED=0] [CORPUS=folder]
	@PYTHONPATH=. $(BIN)/python tests/fuzz/hunt.py --seconds "$(or $(SECONDS),600)" --seed "$(or $(SEED),0)" $(if $(CORPUS),--corpus "$(CORPUS)") --keep runs/fuzz

sweep: setup  ## a chapter for several seeds and values: make sweep CH=02 SEEDS=0-4 [GRID="flow.train.lr=1e-3,2e-3"]
	@$(BIN)/python -m snakemake -s sweep.smk --cores "$(JOBS)" --resources gpu=$(GPUS) mem_mb=$(MEMORY) --keep-going \
	    --rerun-incomplete --quiet rules host --config chapter="$(CH)" seeds="$(or $(SEEDS),0)" grid="$(GRID)" \
	    preset="$(PRESET)" device="$(DEVICE)"

timings:  ## keep time and memory of the last executions in figures/performance/timings.csv
	@$(BIN)/python -m lib.timings --record

clean:  ## remove the environment and executed notebooks; figures, checkpoints, trained models and data stay
	rm -rf .venv .snakemake build .pytest_cache .ruff_cache *.egg-info
	rm -rf runs/done runs/logs runs/notebooks runs/figures runs/staging
