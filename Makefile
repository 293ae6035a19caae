# `make study` and `make test` are all a newcomer needs; `make help` lists the rest.
# Any Python >= 3.11 will do:  make test PYTHON=python3.13

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check
PYTEST := $(RUN) pytest -n 2

# pytest-xdist already keeps two cores busy: a BLAS that starts two threads in each process makes small products slower.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help study test lint types layers parity bench coverage readme clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

study: $(VENV)/study.installed ## check all statements, train, and write study/report.html
	$(RUN) models study

test: $(VENV)/test.installed ## every test and every statement that needs no other library
	$(ONE_THREAD) $(PYTEST)

lint: $(VENV)/lint.installed ## ruff, and its formatter
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(VENV)/test.installed $(VENV)/lint.installed ## mypy
	$(RUN) mypy

layers: $(VENV)/lint.installed ## import-linter: imports go down only
	$(VENV)/bin/lint-imports

parity: $(VENV)/test.installed $(VENV)/parity.installed ## against implementations that other people wrote
	$(ONE_THREAD) $(PYTEST) -m parity

bench: $(VENV)/parity.installed ## timings beside those of other libraries
	$(RUN) benchmarks run
	$(RUN) benchmarks scale
	$(RUN) benchmarks plot
	$(RUN) benchmarks table

coverage: $(VENV)/test.installed $(VENV)/lint.installed ## which lines the tests never run
	$(ONE_THREAD) $(RUN) coverage run -m pytest
	$(RUN) coverage report

readme: $(VENV)/test.installed ## rewrite the tables of README.md and docs/ from the code
	$(RUN) docs.tables

clean: ## remove the environment and every cache; study/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made once. Each extra leaves a stamp, and is brought up to date when the metadata or a pin changes.
$(VENV)/created:
	@command -v $(PYTHON) >/dev/null || { echo "make: no '$(PYTHON)' on PATH; say which Python to use: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make: $(PYTHON) lacks the venv module (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/%.installed: setup.cfg pyproject.toml constraints.txt $(VENV)/created
	$(PIP) install --quiet -c constraints.txt setuptools
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[$*]'
	@touch $@
