# make install   the library and its command line, in .venv
# make train     train CartPole-v1 into runs/
# make test      everything but the slow tests      make slow    the slow ones
# make check     lint, format, types, layering      make docs    the pages, into docs/_build
# make clean     remove .venv, caches and builds
#
# PYTHON=python3.12 make …  chooses the interpreter; versions are those of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_VERSION := pip==26.*  # --group needs 25.1
INPUTS := pyproject.toml constraints.txt

.PHONY: install train test slow check docs clean
.DELETE_ON_ERROR:

install: $(VENV)/installed

train: $(VENV)/installed
	$(BIN)/steepest train CartPole-v1 --steps 100_000

test: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 -m "not slow"

slow: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 -m slow

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest tests/test_layering.py

docs: $(VENV)/installed-dev
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

clean:
	rm -rf docs/_build $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "steepest needs Python 3.11 or newer; there is no '$(PYTHON)'. Try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "steepest needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --upgrade '$(strip $(PIP_VERSION))'
	@touch $@

$(VENV)/installed: $(VENV)/made $(INPUTS)
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/made $(INPUTS)
	$(PIP) install --quiet -c constraints.txt -e '.[mujoco]' --group dev
	@touch $@ $(VENV)/installed
