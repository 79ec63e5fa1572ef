# `make run` serves the embedded model, `make test` passes the tests; both start from nothing but Python 3.11+.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
BIN := $(VENV)/bin
INSTALL := pyproject.toml constraints.txt

.PHONY: run test test-slow test-gpu lint format setup bench golden clean

run: $(VENV)/.core ## serve the embedded model on 127.0.0.1:8000
	$(BIN)/emotion2vec-service serve

test: $(VENV)/.dev ## the core suite
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: $(VENV)/.dev ## what takes minutes
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.dev ## everything that needs CUDA
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev ## measure against FunASR on this machine (some 25 minutes)
	$(BIN)/python -m loadtests.bench

golden: $(VENV)/.dev ## renew the files that tests compare with: the OpenAPI document and docs/configuration.md
	$(BIN)/python -m tests.api.golden
	$(BIN)/python docs/configuration.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.dev ## everything for development, extras included

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python $(INSTALL)
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python $(INSTALL)
	$(PIP) install -c constraints.txt -e '.[torch,otel,test,bench,dev]'
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
