# `make run` serves the embedded model, `make test` passes the tests; both start from nothing but Python 3.11+.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
BIN := $(VENV)/bin
INSTALL := pyproject.toml client/pyproject.toml constraints.txt

.PHONY: run test test-page test-slow test-gpu lint lint-page vendor-page screenshots format setup bench gpu-report faults soak capacity golden clean

run: $(VENV)/.core ## serve the embedded model on 127.0.0.1:8000
	$(BIN)/emotion2vec-service serve

# Tests wait much of the time, so three processes are of use on two cores; files stay together, since their tests share
# what is costly to start.
test: $(VENV)/.dev ## the core suite
	$(BIN)/python -m pytest -m "not slow and not gpu and not page" -n 3 --dist loadfile

test-page: $(VENV)/.dev ## the web page, in an installed Chromium
	$(BIN)/python -m pytest -m "page and not slow"

test-slow: $(VENV)/.dev ## what takes minutes
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.dev ## everything that needs CUDA
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint-page: tools/page/node_modules ## style and types of the web page's scripts; needs node 20 or newer
	npm --prefix tools/page run lint

vendor-page: tools/page/node_modules ## copy the chart library into the web page from the version that is locked
	npm --prefix tools/page run vendor

screenshots: $(VENV)/.dev ## the pictures of the web page in the README; needs Chromium
	$(BIN)/python -m tests.page.screenshots

bench: $(VENV)/.dev ## measure against FunASR on this machine (some 25 minutes)
	$(BIN)/python -m loadtests.bench

gpu-report: $(VENV)/.dev ## all that only a GPU can show, its tests and the benchmark included, in one report
	$(BIN)/python -m loadtests.gpu

faults: $(VENV)/.dev ## what happens when something goes wrong; writes docs/reliability.md (some 10 minutes)
	$(BIN)/python -m tests.faults.report

soak: $(VENV)/.dev ## ten minutes at 80 % load; writes docs/reliability.md
	$(BIN)/python -m loadtests.capacity.soak --document docs/reliability.md

capacity: $(VENV)/.dev ## how much a server on this machine can take; writes docs/capacity.md (some 5 minutes)
	$(BIN)/python -m loadtests.capacity --document docs/capacity.md

golden: $(VENV)/.dev ## renew what tests compare with: the OpenAPI document, docs/configuration.md, the answers stored for the page
	$(BIN)/python -m tests.api.golden
	$(BIN)/python docs/configuration.py
	$(BIN)/python -m tests.page.stored_answers

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.dev ## everything for development, extras included

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python $(INSTALL)
	$(PIP) install -c constraints.txt -e client -e .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python $(INSTALL)
	$(PIP) install -c constraints.txt -e client -e '.[torch,otel,parquet,test,bench,dev]'
	touch $@ $(VENV)/.core

tools/page/node_modules: tools/page/package-lock.json
	npm --prefix tools/page ci --no-audit --no-fund
	touch $@

clean:
	rm -rf tools/page/node_modules $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
