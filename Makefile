# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
INSTALLED := $(VENV)/.installed
# The package with its folders where they are once installed, as links: for tools that do not follow pyproject.toml.
PACKAGE := build/package/nnunet_attenscribble
FOLDERS := trainers dataset_conversion evaluation

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-oldest test-newest lint typecheck format docs docs-serve bench bench-gpu $(PACKAGE)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable '.[dev,docs]'
	touch $@

$(PACKAGE):
	@rm -rf $@ && mkdir -p $@
	@ln -s $(CURDIR)/nnunet_attenscribble/[!_]* $(CURDIR)/nnunet_attenscribble/__init__.py $@
	@ln -s $(FOLDERS:%=$(CURDIR)/%) $@

demo: $(INSTALLED)  ## the whole chain on a phantom: data, training on the CPU, prediction, comparison
	$(BIN)/attenscribble demo $(ARGS)

test: $(INSTALLED)  ## the fast tests
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow' $(ARGS)

test-all: $(INSTALLED)  ## all tests
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

# Their own environments, gigabytes each with torch; PYTHON=python3.10 is the oldest supported.
test-oldest:  ## the fast tests with the oldest supported packages
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install --constraint constraints-oldest.txt --editable '.[dev,docs]'
	build/oldest/bin/python -m pytest -n $(WORKERS) -m 'not slow' $(ARGS)

test-newest:  ## the fast tests with the newest supported packages
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/python -m pip install --upgrade --upgrade-strategy eager --editable '.[dev,docs]'
	build/newest/bin/python -m pytest -n $(WORKERS) -m 'not slow' $(ARGS)

lint: $(INSTALLED)  ## what pre-commit checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(INSTALLED) $(PACKAGE)  ## types of the four folders
	$(BIN)/mypy

format: $(INSTALLED)  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED) $(PACKAGE)  ## the documentation, in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

docs-serve: $(INSTALLED) $(PACKAGE)  ## the documentation on this machine, rebuilt as it is edited
	$(BIN)/mkdocs serve $(ARGS)

bench: $(INSTALLED)  ## time and memory of the losses against dense references
	$(BIN)/python -m tools.timing $(ARGS)

bench-gpu: $(INSTALLED)  ## time and memory on a GPU, against stock nnU-Net
	$(BIN)/python -m tools.timing.gpu $(ARGS)
