# make quickstart   set up and post-train the example (examples/quickstart.yaml)
# make test         set up and run every check: lint, types, layers, tests
# make cluster      the tests of the real one-node Kubernetes (root, Debian; tests/cluster/harness builds it)
# make gpu          what needs a CUDA device, with the 7B at its true size; GPU_FOLDER=/big/disk/folder (150 GB)
# make constraints  choose new versions of all packages

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(shell command -v uv || echo $(CURDIR)/$(BIN)/uv)
CONSTRAINTS := docker/constraints.txt
UV_VERSION := $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' $(CONSTRAINTS))

# with it, every process would compile its packages again: twice the time to start
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup quickstart test unit multiproc multiproc-start multiproc-compute cluster gpu lint dataset constraints clean

setup: $(READY)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@test -x "$(UV)" || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) "$(UV)" pip sync --quiet --require-hashes $(CONSTRAINTS)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) "$(UV)" pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

quickstart: $(READY)
	$(BIN)/cosmos run examples/quickstart.yaml

test: lint unit multiproc
multiproc: multiproc-start multiproc-compute

unit: $(READY)
	$(BIN)/pytest

# how processes start, stop and fail, and whole jobs; then what processes compute together
COMPUTING := tests/worker/stages tests/worker/train

multiproc-start: $(READY)
	$(BIN)/pytest -m multiproc $(COMPUTING:%=--ignore=%)

multiproc-compute: $(READY)
	$(BIN)/pytest -m multiproc $(COMPUTING)

cluster: $(READY)
	$(BIN)/pytest -v -rs --timeout 900 --durations 15 -m "not multiproc" --real-cluster tests/cluster tests/scenarios
	$(BIN)/pytest -rs -q --real-cluster -k contract tests/fakekube

gpu: $(READY)
	$(BIN)/pytest -v -s -rs --timeout 7200 -m gpu $(if $(GPU_FOLDER),--basetemp $(GPU_FOLDER)) tests/gpu tests/worker

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dataset: $(READY)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) "$(UV)" pip install --quiet --editable '.[sim]'
	$(BIN)/python examples/pushing/render.py --help

constraints: | $(BIN)/python
	"$(UV)" pip compile --quiet pyproject.toml --extra operator --extra worker --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --upgrade --custom-compile-command "make constraints" -o $(CONSTRAINTS)

clean:
	rm -rf $(VENV) runs
