# make demo   installs everything into .venv and runs the main job
# make test   installs everything into .venv and runs the tests
# make docs   builds the site into site/
# make soak   all tests, also the exhaustive ones that `make test` has a sample of; writes tests/soak.json

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
EXTRAS  = --constraint constraints.txt --editable '.[dev]'
# uv installs in a third of pip's time, but does not read where pip is told to look; there pip does it.
MIRROR  = $(shell $(BIN)/python -m pip config list 2>/dev/null | grep -E '\.(no-)?index(-url)?=')
DEMO   ?= demo
# Processes that the tests run in. What a file compiles its tests share, so files are not split; the longest come first.
JOBS   ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)

.PHONY: demo test soak install lint docs release constraints clean

# Reinstalled when the declared or pinned versions, or the C source, change.
$(BIN)/installed: pyproject.toml constraints.txt hatch_build.py epvf_data/physics/mujoco_step.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "epvf-data needs Python 3.11 or newer, got $$($(PYTHON) --version): run make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(if $(MIRROR),false,$(PIP) uv && $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(EXTRAS)) || $(PIP) $(EXTRAS)
	@touch $@

install: $(BIN)/installed

demo: $(BIN)/installed
	@mkdir -p $(DEMO)
	cd $(DEMO) && $(abspath $(BIN))/epvf-data doctor
	cd $(DEMO) && rm -rf ant.zarr ant-ridge-actions returns.png && $(abspath $(BIN))/epvf-data collect --env ant --envs 4096
	cd $(DEMO) && $(abspath $(BIN))/epvf-data info ant.zarr --plot returns.png
	cd $(DEMO) && $(abspath $(BIN))/epvf-data train-offline

test: $(BIN)/installed
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

soak: $(BIN)/installed
	$(BIN)/python tests/soak.py -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(BIN)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/lint-imports

docs: $(BIN)/installed
	$(PIP) --editable '.[dev,docs]'
	$(BIN)/mkdocs build --strict

# Source distribution and wheel in dist/, looked at, installed into a fresh environment and tried there.
release: $(BIN)/installed
	grep -q "^## $$($(BIN)/python -c 'import epvf_data; print(epvf_data.__version__)')$$" CHANGELOG.md || \
	  { echo "CHANGELOG.md has no heading for this version" >&2; exit 1; }
	rm -rf dist && $(BIN)/python -m pip install --quiet --disable-pip-version-check build twine
	$(BIN)/python -m build && $(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest tests/test_installation.py::test_the_wheel_works_in_a_fresh_environment

# The same versions install twice: pins for every Python and platform, from the ranges in pyproject.toml.
constraints:
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --extra dev --extra docs --extra gpu pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) $(DEMO)
