# The environment lives in .venv and is made from requirements.lock; nothing is installed outside it.
# Only make, git and a Python from 3.11 to 3.14 are needed: the newest that can make an environment, or make PYTHON=...

PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NOISE := metadata.papermill cell.metadata.papermill cell.metadata.editable cell.metadata.slideshow

# Every notebook starts Pythons of its own: what they import is compiled once and kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help digits smoke run lab test slow lint format lock

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

digits: $(READY)  ## the paper's argument on real digits: all notebooks of params/digits.yaml
	$(BIN)/cdlib run params/digits.yaml

smoke: $(READY)  ## the same chain in about a minute
	$(BIN)/cdlib run params/smoke.yaml

run: $(READY)  ## any run: make run PARAMS=params/digits_full.yaml
	@test -n "$(PARAMS)" || { echo "say which run: make run PARAMS=params/digits.yaml" >&2; exit 2; }
	$(BIN)/cdlib run $(PARAMS)

lab: $(READY)  ## JupyterLab, to step through the notebooks
	$(BIN)/jupyter lab

test: $(READY)  ## the tests that need neither minutes nor a GPU, or some: make test TESTS=tests/test_run.py
	$(BIN)/pytest -q -n auto --dist loadfile -m "not slow and not gpu" $(TESTS)

slow: $(READY)  ## the tests that take minutes
	$(BIN)/pytest -q -m slow

lint: $(READY)  ## ruff, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(READY)  ## ruff, and the outputs out of the notebooks
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/nbstripout --extra-keys "$(NOISE)" notebooks/*.ipynb

lock: $(READY)  ## requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --universal --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
		--extra dev -p 3.11 pyproject.toml -o requirements.lock

# Made anew when it was never finished, brought up to date when the lock or the project has changed.
$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || \
		{ echo "Python 3.11 to 3.14 with venv is needed; say where it is: make PYTHON=..." >&2; exit 2; }
	@test -f $@ || "$(PYTHON)" -m venv --clear $(VENV)
	@rm -f $@
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --python $(BIN)/python -r requirements.lock -e .
	@touch $@
