# `make run` serves the embedded model, `make test` runs the tests; both need only Python 3.11+ and a package index.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
BIN := $(VENV)/bin
INSTALL := pyproject.toml client/pyproject.toml constraints.txt
DIST := dist

.PHONY: run test test-page test-slow test-gpu client lint lint-page vendor-page screenshots format setup release bench gpu-report faults soak capacity golden clean

run: $(VENV)/.core ## serve the embedded model on 127.0.0.1:8000
	$(BIN)/emotion2vec-service serve

# Tests often wait, so that three processes are faster than two on two cores. The tests of a file share expensive
# fixtures, so they run in one process.
test: $(VENV)/.dev ## the default tests; CONTRIBUTING.md describes them
	$(BIN)/python -m pytest -m "not slow and not gpu and not page" -n 3 --dist loadfile

test-page: $(VENV)/.dev ## tests of the web page, in an installed Chromium
	$(BIN)/python -m pytest -m "page and not slow"

test-slow: $(VENV)/.dev ## tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.dev ## tests that need CUDA
	$(BIN)/python -m pytest -m gpu

client: $(VENV)/.dev ## generate the blocking client from the async one
	$(BIN)/python client/generate_sync_client.py

lint: $(VENV)/.dev ## style, types, imports between modules, and declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	cd client && $(abspath $(BIN))/deptry emotion2vec_client

lint-page: tools/page/node_modules ## style and types of the web page's scripts; needs node 20 or newer
	npm --prefix tools/page run lint

vendor-page: tools/page/node_modules ## copy the locked version of the chart library into the web page
	npm --prefix tools/page run vendor

screenshots: $(VENV)/.dev ## take the README's screenshots of the web page; needs Chromium
	$(BIN)/python -m tests.page.screenshots

bench: $(VENV)/.dev ## compare with FunASR on this machine (about 25 minutes)
	$(BIN)/python -m loadtests.bench

gpu-report: $(VENV)/.dev ## one report of everything that needs a GPU: tests, benchmark, soak test
	$(BIN)/python -m loadtests.gpu

faults: $(VENV)/.dev ## inject faults; writes docs/reliability.md (about 10 minutes)
	$(BIN)/python -m tests.faults.report

soak: $(VENV)/.dev ## soak test: ten minutes at 80 % load; writes docs/reliability.md
	$(BIN)/python -m loadtests.capacity.soak --document docs/reliability.md

capacity: $(VENV)/.dev ## measure a server's capacity on this machine; writes docs/capacity.md (about 5 minutes)
	$(BIN)/python -m loadtests.capacity --document docs/capacity.md

golden: $(VENV)/.dev ## regenerate what tests compare with: the OpenAPI document, docs/configuration.md, the answers stored for the page
	$(BIN)/python -m tests.api.golden
	$(BIN)/python docs/configuration.py
	$(BIN)/python -m tests.page.stored_answers

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.dev ## everything for development, extras included

# Links of the README and the project's URLs point to REPOSITORY, at the tag v<version>: push that tag before uploading.
release: $(VENV)/.dev ## build and check both distributions: make release REPOSITORY=https://…
	$(if $(filter https://%,$(REPOSITORY)),,$(error the package index needs the public address of the repository: make release REPOSITORY=https://…))
	rm -rf $(DIST)
	RELEASE_REPOSITORY=$(REPOSITORY) $(BIN)/python -m build --no-isolation --outdir $(DIST) client
	RELEASE_REPOSITORY=$(REPOSITORY) $(BIN)/python -m build --no-isolation --outdir $(DIST) .
	$(BIN)/twine check --strict $(DIST)/*
	check=$$(mktemp -d) && trap 'rm -rf "$$check"' EXIT && \
	$(BIN)/python -m venv $$check && \
	$$check/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt $(DIST)/*.whl && \
	$$check/bin/emotion2vec-service --version && \
	$$check/bin/python -I -c "import emotion2vec_client"

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
	rm -rf $(DIST) tools/page/node_modules $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
