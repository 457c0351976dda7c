# `make demo` and `make test` first install everything that they need, also on a fresh Debian or Ubuntu.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
DOCS_VENV := .venv-docs
DOCS_READY := $(DOCS_VENV)/.ready
PIPELINE_PYTHON ?= python3
BROWSER := .browser

.PHONY: help setup demo test test-all test-cluster test-browser check-pipeline wheel docs lint clean

help:  ## Show this.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

setup: $(READY)  ## Make .venv with the pinned requirements; install Procgen's system libraries if root.

$(READY): requirements.txt pyproject.toml scripts/setup.sh
	@scripts/setup.sh $(VENV)
	@touch $@

demo: $(READY)  ## A trained agent plays, memory is learned beside none, a level is learned; one page of it all.
	$(PYTHON) scripts/demo.py

test: $(READY)  ## Run the tests but for the slow ones, in ten minutes (those for a GPU only where there is one).
	$(PYTHON) -m pytest -q -n 2 --dist worksteal -m "not slow and not hosts"

test-all: $(READY)  ## Run the slow tests too, whole trainings among them (half an hour).
	$(PYTHON) -m pytest -q -n 2 --dist worksteal -m "not hosts"

test-cluster: $(READY)  ## Run the tests that start clusters, on two hosts too (as root), and that kill runs (minutes).
	$(PYTHON) -m pytest -q -m "cluster or hosts"

test-browser: $(READY) $(BROWSER)/.ready  ## Run the tests of pages in a headless Chromium, which npm installs into .browser.
	SRWM_BROWSER_FOLDER=$(abspath $(BROWSER)) $(PYTHON) -m pytest -q -m browser

$(BROWSER)/.ready:
	mkdir -p $(BROWSER)
	npm install --prefix $(BROWSER) --no-fund --no-audit @sparticuz/chromium@147.0.0 puppeteer-core@24.43.1
	@touch $@

check-pipeline:  ## Build the wheel; install it into a project with newer packages; check that nothing there changes.
	tests/packaging/check_pipeline.sh $(PIPELINE_PYTHON)

wheel: $(READY)  ## Build the wheel and the source distribution in dist/, and check them as a package index would.
	@$(PYTHON) -m pip install -q --disable-pip-version-check "build>=1.2" "twine>=6"
	$(PYTHON) -m build
	$(PYTHON) -m twine check --strict dist/*

docs: $(READY) $(DOCS_READY)  ## Build the documentation site, build/site/index.html; warnings are errors.
	SRWM_PYTHON=$(PYTHON) NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build
	@echo "build/site/index.html; with search: python3 -m http.server -d build/site"

$(DOCS_READY): scripts/site/requirements.txt
	@python3 -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/pip install -q --disable-pip-version-check -r $<
	@touch $@

lint: $(READY)  ## Style, types, and the direction of imports.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

clean:  ## Remove the virtual environments and caches; keep experiments.
	rm -rf $(VENV) $(DOCS_VENV) $(BROWSER) .venv-gymnasium1 .pytest_cache .ruff_cache build dist *.egg-info
