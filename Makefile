# Everything a fresh machine needs is Python 3.11 or newer and make.
#
#   make demo    word vectors, stored and searched, with recall and speed printed
#   make test    the fast tier of tests, on all cores (WORKERS=0: in one process, for a debugger)
#   make check   format, lint, types
#   make proto   the gRPC stubs in vecdb/v1, from proto/
#   make bench   vecdb beside hnswlib and faiss on the same data (hnswlib needs a C++ compiler)
#
# An active virtual environment is used as it is; otherwise .venv is made here. Stamp files in the
# environment remember what is installed, so that a second run installs nothing.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check format proto bench clean

VENV ?= $(or $(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
# one environment may serve several checkouts: each has stamps of its own
STAMP := $(BIN)/.vecdb-$(shell pwd -P | cksum | cut -d' ' -f1)
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
SOURCES := vecdb datasets bench server tests
PYTEST_ARGS ?= -q
# one more than there are cores: tests wait for disks, servers and other processes a sixth of their time
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
# hundreds of short processes would each compile all sources anew, and so would the next run
unexport PYTHONDONTWRITEBYTECODE

help:
	@sed -n 's/^#  //p' Makefile

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || continue; \
	    "$$python" -m venv "$(VENV)" && exit 0; \
	    rm -rf "$(VENV)"; exit 1; \
	done; echo "vecdb needs Python 3.11 or newer; set PYTHON=/path/to/python" >&2; exit 1

$(STAMP)-demo: pyproject.toml | $(BIN)/python
	@echo "installing vecdb[cli,data] into $(VENV)"
	@$(PIP) -e '.[cli,data]'
	@touch $@

$(STAMP)-test: pyproject.toml | $(BIN)/python
	@echo "installing vecdb[test] into $(VENV)"
	@$(PIP) -e '.[test]'
	@touch $@

$(STAMP)-bench: pyproject.toml | $(BIN)/python
	@echo "installing vecdb[bench] into $(VENV)"
	@$(PIP) -e '.[bench]'
	@touch $@

demo: $(STAMP)-demo
	@$(BIN)/vecdb demo $(ARGS)

test: $(STAMP)-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: $(STAMP)-test
	$(BIN)/python -m ruff format --check $(SOURCES)
	$(BIN)/python -m ruff check $(SOURCES)
	$(BIN)/python -m mypy -p vecdb -p vecdb_datasets -p vecdb_bench -p vecdb_server

format: $(STAMP)-test
	$(BIN)/python -m ruff check --fix $(SOURCES)
	$(BIN)/python -m ruff format $(SOURCES)

# the oldest generator whose stubs need no more than the extras ask for
proto: | $(BIN)/python
	@$(BIN)/python -m venv --clear build/proto && build/proto/bin/pip install --quiet grpcio-tools==1.76.0
	@cd proto && ../build/proto/bin/python -m grpc_tools.protoc -I. --python_out=.. --pyi_out=.. --grpc_python_out=.. vecdb/v1/*.proto

bench: $(STAMP)-bench
	@$(BIN)/vecdb bench run --dataset glove-50 --peers hnswlib,faiss $(ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-data bench-results
