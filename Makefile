# make install   the library with MuJoCo, and its command line, in .venv
# make train     train CartPole-v1 into runs/
# make test      everything but the slow tests      make slow    the slow ones
# make fuzz      damaged, hostile and random files and command lines, twenty times as many as the tests have
# make chaos     a hundred kills of running trainings, each of which has to end as one that nobody killed
# make check     lint, format, types, layering      make docs    the pages, into docs/_build
# make bench     speed beside other libraries, minutes      make bench-full   with returns, hours, resumable
# make bench-gpu the functional worlds on a GPU             make peers        only install those libraries
# make clean     remove .venv, .venv-peers, caches and builds
#
# PYTHON=python3.12 make …  chooses the interpreter; versions are those of constraints.txt.

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BESIDE_jax := -e .  # this library, to be measured beside what is in that environment
BESIDE_gpu := -e .
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_VERSION := pip==26.*  # --group needs 25.1
INPUTS := pyproject.toml constraints.txt

.PHONY: install train test slow fuzz chaos check docs clean peers bench bench-full bench-gpu
.DELETE_ON_ERROR:

install: $(VENV)/installed

train: $(VENV)/installed
	$(BIN)/steepest train CartPole-v1 --steps 100_000

test: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 -m "not slow"

slow: $(VENV)/installed-dev
	XLA_FLAGS= $(BIN)/pytest -n 2 -m slow  # compiled as for users; the others are compiled quickly

fuzz: $(VENV)/installed-dev
	STEEPEST_FUZZ=20 $(BIN)/pytest -s tests/test_corruption.py tests/test_hostile_files.py tests/test_fuzzing.py
	$(PIP) install --quiet -c constraints.txt --group fuzz
	$(BIN)/python tests/coverage_fuzzing.py -max_total_time=120

chaos: $(VENV)/installed-dev
	STEEPEST_CHAOS=100 $(BIN)/pytest -s tests/test_chaos.py

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest tests/test_layering.py

docs: $(VENV)/installed-dev
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

peers: $(PEERS)/torch/installed $(PEERS)/jax/installed

bench: $(VENV)/installed-dev peers
	status=0; $(BIN)/python benchmarks/speed.py || status=1; $(BIN)/python benchmarks/speed_tables.py && exit $$status

bench-full: $(VENV)/installed-dev peers
	status=0; $(BIN)/python benchmarks/speed.py --full || status=1; \
	  for study in minutes steps; do $(BIN)/python benchmarks/returns.py $$study || status=1; done; \
	  $(BIN)/python benchmarks/speed_tables.py && exit $$status

bench-gpu:
	@command -v nvidia-smi >/dev/null || { \
	  echo "bench-gpu: there is no NVIDIA driver here, so no GPU; nothing was measured" >&2; exit 1; }
	$(MAKE) $(VENV)/installed-dev $(PEERS)/gpu/installed
	$(PEERS)/gpu/bin/python benchmarks/gpu.py
	$(BIN)/python benchmarks/speed_tables.py

clean:
	rm -rf docs/_build $(VENV) $(PEERS) .pytest_cache .ruff_cache .hypothesis build dist
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
	$(PIP) install --quiet -c constraints.txt -e '.[mujoco]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/made $(INPUTS)
	$(PIP) install --quiet -c constraints.txt -e '.[mujoco,box2d,atari,gymnax,minigrid,pettingzoo]' --group dev
	@touch $@ $(VENV)/installed

$(PEERS)/%/installed: benchmarks/peers/requirements-%.txt | $(VENV)/made
	$(PYTHON) -m venv --clear $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check --upgrade '$(strip $(PIP_VERSION))'
	$(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $< $(BESIDE_$*)
	@touch $@
