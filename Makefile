# The commands of the README. Everything is installed into .venv from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= checkpoints/quickstart
CODE := cython_vm interp probes app benchmarks tests examples docs/site_hooks.py
CYTHON := $(wildcard cython_vm/*.pyx cython_vm/*.pxd)

.PHONY: demo app test test-long docs lint format house browser clean

demo: $(VENV)/.installed  ## train, probe, intervene, find circuits, report, serve
	$(BIN)/tapelens demo $(if $(FRESH),--fresh) $(if $(filter 0,$(APP)),--no-app)

app: $(VENV)/.installed  ## browse the bundled run (RUN=runs/quickstart for another)
	$(BIN)/tapelens app $(RUN)

test: $(VENV)/.installed-dev browser lint  ## everything that CI runs
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-long: $(VENV)/.installed-dev  ## what takes minutes, and CI leaves out
	$(BIN)/python -m pytest -m long $(ARGS)

docs: $(VENV)/.installed-dev  ## the documentation site, into site/: strict, offline
	$(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint $(CYTHON)
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

house: $(VENV)/.installed-dev  ## docs/house.md from the modules' docstrings
	$(BIN)/python tests/house.py && $(BIN)/python tests/extending.py

browser:  ## Chromium from the system's packages, where we may install it
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } \
	  || echo "Chromium is not here and could not be installed; the browser tests will skip."

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed, $$($(PYTHON) --version) was found; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt $(CYTHON)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable .
	@$(BIN)/python -c "import interp.cli.verbs, interp.probing, interp.training.loop, interp.report, app.attention_data, app.circuit_data, app.results_view, app.session, app.step_panels"  # compiles what is used
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev,sweep]'
	@touch $@

clean:  ## remove what was built; runs/ stays
	rm -rf $(VENV) build *.egg-info cython_vm/*.c cython_vm/*.so
