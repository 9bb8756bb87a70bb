# Two commands do everything on a machine with Python 3.11 or 3.12, make and git:
#   make reproduce    run the notebooks of PROFILE and compile the book
#   make test         run the whole test suite
PROFILE ?= smoke
# The first interpreter in range; name another with `make PYTHON=/path/to/python3.11 ...`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help reproduce test lint format book record clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12
	@echo "Profiles: smoke (default), cpu, gpu, paper; for example: make reproduce PROFILE=cpu"

reproduce: $(INSTALLED)  ## run the notebooks of PROFILE and compile the book
	@$(BIN)/morelib reproduce --profile $(PROFILE)

test: $(INSTALLED)  ## run the whole test suite
	@$(BIN)/python -m pytest

lint: $(INSTALLED)  ## ruff, mypy, and notebooks without outputs
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

format: $(INSTALLED)  ## let ruff and nbstripout repair what they can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/nbstripout --keep-id notebooks/*.ipynb

book: $(INSTALLED)  ## compile the book from the chapters already run
	@$(BIN)/python -c 'from morelib.companion.book import build_book; print(build_book("."))'

record:  ## keep the results of PROFILE, with their run cards, in book/results, for the book to show
	@mkdir -p book/results/$(PROFILE)
	@cp runs/$(PROFILE)/results/*.json book/results/$(PROFILE)/

clean:  ## remove everything that was made, except .venv and runs/
	rm -rf book/_build book/chapters .pytest_cache .mypy_cache .ruff_cache

# One environment serves both commands. The stamp is written last, so an interrupted installation starts again.
$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) lacks venv or ensurepip; install them (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
