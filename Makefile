# LexMotion: every target sets up what it needs. Bare machine: Python (>= 3.11) and make.
#
#   make quickstart   install and run the whole pipeline on a synthetic corpus (`lexmotion quickstart`)
#   make test         install with the test extras and run the suite
#   make test-fast    run only the tests that are not marked slow, in under a minute
#   make style        format the code and fix what can be fixed
#   make quality      check style and types
#   make docs         build the documentation site in site/; a warning is an error
#
# PYTHON=python3.12 make test    another interpreter        CONSTRAINTS= make quickstart    no pinned torch (GPU machines)

PYTHON      ?= python3
VENV        ?= .venv
CONSTRAINTS ?= constraints.txt
WORKERS     ?= 2
ARGS        ?=

BIN     := $(VENV)/bin
FOLDERS   := modeling_lexmotion processing training evaluation hub_cards
CHECKED := $(FOLDERS) tests examples setup.py
PINNED  := $(if $(strip $(CONSTRAINTS)),-c $(CONSTRAINTS),)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINNED)
INPUTS  := setup.py pyproject.toml $(CONSTRAINTS)
COVERAGE := --cov-fail-under=85

.PHONY: help quickstart test test-fast style quality docs tree clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "LexMotion needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-quality: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[quality]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[docs]'
	@touch $@ $(VENV)/.installed

quickstart: $(VENV)/.installed
	$(BIN)/lexmotion quickstart $(ARGS)

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
		$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered $(COVERAGE) $(ARGS)

test-fast: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
		$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' $(ARGS)

style: $(VENV)/.installed-quality
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

# The folders are sub-packages of lexmotion only once installed; links show mypy and mkdocstrings the same tree.
tree:
	@rm -rf $(VENV)/tree && mkdir -p $(VENV)/tree/lexmotion
	@ln -s $(addprefix $(CURDIR)/,$(filter-out %/__pycache__,$(wildcard modeling_lexmotion/*)) $(filter-out modeling_lexmotion,$(FOLDERS))) $(VENV)/tree/lexmotion/

quality: $(VENV)/.installed-quality tree
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	MYPYPATH=$(VENV)/tree $(BIN)/mypy -p lexmotion

docs: $(VENV)/.installed-docs tree
	NO_MKDOCS_2_WARNING=1 LEXMOTION_TREE=$(VENV)/tree $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) *.egg-info build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
