# The environment lives in .venv and is made from requirements.lock; nothing is installed outside it.
# Only Python 3.11, make and git are needed.

PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
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

test: $(READY)  ## the tests that need neither minutes nor a GPU
	$(BIN)/pytest -q -m "not slow and not gpu"

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
	@command -v "$(PYTHON)" >/dev/null || { echo "Python 3.11 is needed; say where it is: make PYTHON=..." >&2; exit 2; }
	@test -f $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --python $(BIN)/python -r requirements.lock -e .
	@touch $@
