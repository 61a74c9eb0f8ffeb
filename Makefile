# Everything runs in .venv, which `make setup` builds; PYTHON chooses its interpreter (3.11 or newer).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.set-up
ROOMS := compiler passes codegen runtime models bench

.PHONY: help setup demo test test-slow lint

help:
	@echo "make setup      build .venv with everything needed to compile, run and test"
	@echo "make demo       compile the bundled model to build/demo.engine and let it write"
	@echo "make test       lint, then every test that is not slow"
	@echo "make test-slow  the slow tests"
	@echo "make lint       ruff and mypy"

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"xllmc requires Python 3.11 or newer, got {v[0]}.{v[1]}; try make PYTHON=python3.11 ...")'
	@echo "Building .venv; the first time takes a few minutes, most of them for torch."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation --editable '.[compile,cuda,mlir,onnx,bench,dev]'
	$(BIN)/python -m xllmc.codegen.ascend.install_adapter
	touch $@

demo: $(STAMP)
	$(BIN)/xllmc demo

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# mypy does not follow the editable install's mapping of folders to packages, so it reads a tree of links.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/mypy/xllmc
	@for room in $(ROOMS); do ln -sfn ../../../$$room build/mypy/xllmc/$$room; done
	MYPYPATH=build/mypy $(BIN)/mypy -p xllmc | sed 's|^build/mypy/xllmc/||'
