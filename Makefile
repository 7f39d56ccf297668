# `make` lists the targets. Everything happens in .venv, data/, runs/,
# build/ and, where `make exercises` meets your answers, answers/.
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.PHONY: help install data run notebooks exercises handout book try ablate bench study checkpoints \
    stamp test test-rest test-all mutants soak lint lab lock clean

PY := .venv/bin/python
INSTALLED := .venv/.installed
JSWS := $(PY) -m jsws_lib.cli

PYTHONS = $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11)

# What the shell exported must not change what a test or the course measures.
CLEAN_ENV := env -u MPLBACKEND -u JSWS_DEVICE -u JSWS_TRAIN -u JSWS_PROFILE -u JSWS_DATA \
    -u JSWS_RUNS OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=2000

# Two processes of one thread each; the tests of a file share one, and what it prepares.
PYTEST := $(CLEAN_ENV) JSWS_COURSE=strict OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadscope

help:           ## this list
	@awk -F ' *## ' '/^[a-z-]+:.*##/ { sub(/:.*/, "", $$1); \
	    printf "make %-12s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## make .venv with the pinned packages

data: $(INSTALLED)  ## draw the embedded data sets into data/mini
	$(CLEAN_ENV) $(JSWS) data make-mini

run: data       ## execute the whole course on the CPU, into build/course; TRAIN=1 trains
	$(CLEAN_ENV) $(if $(TRAIN),JSWS_TRAIN=1) $(PY) -m tools.course

notebooks: data  ## the same, and store the outputs in notebooks/
	$(CLEAN_ENV) JSWS_RUNS="$(CURDIR)/build/runs" $(PY) -m tools.course --update
	$(CLEAN_ENV) JSWS_RUNS="$(CURDIR)/build/runs" $(PY) -m tools.course --update \
	    --notebooks notebooks/solutions --build build/solutions

exercises: $(INSTALLED)  ## reset the exercises, or some: NOTEBOOKS=03; answers/ keeps yours
	$(PY) -m jsws_lib.course.from_solutions $(NOTEBOOKS)

handout: $(INSTALLED)  ## the notebooks for a class, into build/handout: no outputs, no key
	rm -rf build/handout
	$(PY) -m jsws_lib.course.from_solutions --handout build/handout $(NOTEBOOKS)

book: $(INSTALLED)  ## the course as a site: build/book/index.html; KEY=0: no solutions
	rm -rf build/book build/book-doctrees
	$(if $(KEY),SITE_KEY=$(KEY)) $(PY) -m sphinx -q -W --keep-going -c docs \
	    -d build/book-doctrees . build/book

try: $(INSTALLED)  ## the networks on a picture of yours, in your browser; needs npm once
	$(PY) -m tools.try_page

ablate: data    ## Tables 5 and 6 again: six settings, three seeds, into results/
	$(CLEAN_ENV) $(JSWS) ablate --profile mini --seeds 3 --out results/ablation_mini.json
	$(CLEAN_ENV) $(PY) -m tools.blocks

bench: $(INSTALLED)  ## ours against what the released code is known to do, into results/
	$(CLEAN_ENV) $(JSWS) bench
	$(CLEAN_ENV) $(PY) -m tools.blocks

study: data     ## what makes stage 1 learn: one change at a time, into results/
	$(CLEAN_ENV) $(JSWS) study
	$(CLEAN_ENV) $(PY) -m tools.blocks

checkpoints: ablate  ## ship what the ablation trained with seed 0; tables and charts
	$(CLEAN_ENV) $(PY) -m tools.ship S M MM
	$(CLEAN_ENV) $(PY) -m tools.pictures

stamp: $(INSTALLED)  ## write where the course is hosted: TAG=v1.0, REPO=owner/name
	$(PY) -m tools.stamp $(if $(REPO),--repo "$(REPO)") $(if $(TAG),--tag "$(TAG)")
	$(PY) -m tools.blocks
	@touch $(INSTALLED)

test: data lint  ## the fast tests, in minutes; what `slow` marks and notebooks are left out
	$(PYTEST) -m "not slow" tests

test-rest: data  ## what `test` leaves out: every notebook against its stored outputs, too
	$(PYTEST) -m slow --durations=15 --nbval-lax --nbval-current-env \
	    --nbval-cell-timeout=300 tests notebooks

test-all: test test-rest  ## all there is, before a change is handed on

mutants: $(INSTALLED)  ## break the method on purpose, in fifty places: do its tests notice?
	$(CLEAN_ENV) $(PY) -m tools.mutants

soak: $(INSTALLED)  ## kill an ablation 20 times: nothing orphaned, nothing lost
	$(CLEAN_ENV) $(PY) -m pytest -q --kills 20 tests/engine/test_resume.py

lint: $(INSTALLED)  ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check --quiet .

lab: data       ## open the notebooks in JupyterLab; LAB="--port 9000 --allow-root"
	$(PY) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(LAB)

lock: $(INSTALLED)  ## renew requirements.txt after a change in pyproject.toml
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile --quiet --universal --generate-hashes --no-header \
	    --no-annotate --all-extras --group build pyproject.toml -o requirements.txt

clean:          ## remove what was made, except .venv and trained runs/
	rm -rf build data/mini .pytest_cache .ruff_cache .hypothesis *.egg-info
	find data_utils jsws_lib tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.txt pyproject.toml
	@python=; for name in $(PYTHONS); do \
	    "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	        && python=$$name && break; done; \
	test -n "$$python" || { echo "Python 3.11 or newer not found (tried: $(subst ",,$(PYTHONS)));" \
	    "install one, or name it: make PYTHON=/path/to/python3"; exit 1; }; \
	"$$python" -m tools.make venv
