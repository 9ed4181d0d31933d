# Sets itself up in $(VENV) and runs what there is to run. Try: make help
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

bin := $(VENV)/bin
python := $(bin)/python
stamps := $(VENV)/.stamps

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test check bench browser setup clean

help: ## show this list
	@echo "make TARGET, with PYTHON=$(PYTHON) and VENV=$(VENV) unless you say otherwise:"
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  %-9s %s\n' "$$name" "$$text"; done

demo: $(stamps)/demo ## start the shop and the collector and send visitors; with ONCE=1, end after the summary
	@$(python) -m examples.demo $(if $(ONCE),--once)

test: $(stamps)/test ## run every test that needs no Chromium and no nginx; ARGS="-k cookie" for some
	@$(python) -m pytest $(ARGS)

check: $(stamps)/check ## lint, types, imports between modules, samples in the docs
	@echo "ruff check" && $(bin)/ruff check .
	@echo "ruff format --check" && $(bin)/ruff format --check .
	@echo "mypy" && $(bin)/mypy
	@echo "lint-imports" && $(bin)/lint-imports
	@echo "samples in the docs" && $(python) -m pytest tests/test_docs.py

bench: $(stamps)/bench ## measure against the yardsticks
	@$(python) -m benchmarks $(ARGS)

browser: $(stamps)/browser ## run the tests that need Chromium or nginx
	@$(python) -m pytest -m "browser or nginx" $(ARGS)

setup: $(stamps)/dev ## install everything for development

clean: ## remove the environment and everything that was made
	@rm -rf $(VENV) build dist .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# One stamp for each dependency group of pyproject.toml; a changed pyproject.toml makes them all old.
groups := demo test check bench browser dev
$(groups:%=$(stamps)/%): $(stamps)/%: pyproject.toml $(stamps)/pip
	@echo "Installing the $* group into $(VENV) ..."
	@$(python) -m pip install -qq --disable-pip-version-check --editable . $(group_$*:%=--group %)
	@touch $@

$(foreach group,$(groups),$(eval group_$(group) := $(group)))
group_browser := test browser

# pip knows dependency groups since 25.1.
$(stamps)/pip: $(python)
	@$(python) -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@mkdir -p $(stamps)
	@touch $@

$(python):
	@command -v $(PYTHON) >/dev/null || { \
		echo "There is no $(PYTHON). Install Python 3.11 or newer, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is not Python 3.11 or newer; it says: $$($(PYTHON) -V 2>&1 | head -n 1)" >&2; \
		echo "Name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) -V) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -f $@; \
		echo "$(PYTHON) cannot make virtual environments. On Debian: apt install python3-venv" >&2; exit 1; }
