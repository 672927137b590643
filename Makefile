# make quickstart   set up and post-train the example (examples/quickstart.yaml)
# make test         set up and run every check: lint, types, layers, tests
# make api-server   the tests of a real API server without a node; make api-server-programs builds its programs (Go)
# make browser      the report and the viewer in a browser (Chromium)
# make cluster      the tests of the real one-node Kubernetes (root, Debian; tests/cluster/harness builds it)
# make gpu          the tests that need a CUDA device, with the 7B at its true size; GPU_FOLDER=/big/disk/folder (150 GB)
# make bench-gpu    measures on one GPU within MINUTES=5, see docs/benchmarks.md; make gpu-wheels GPU_PYTHON=3.12 downloads
#                   what such a machine without a network lacks
# make operator-sweep  the operator under SCHEDULES=5000 random schedules of crashes and faults, which SEED=1 chooses
# make bench        the benchmarks that a CPU can do; figures in bench/*.json, tables in bench/*.md
# make fuzz         damaged and hostile inputs for everything that reads other people's files, for MINUTES=5; make fuzz-jobs
#                   gives NUMBER=10000 mutated jobs to a real API server with an operator
# make soak         churn of jobs on the running cluster of tests/cluster/harness for MINUTES=60, with a verdict on growth
# make worker-sweep kills a worker's processes RUNS=200 times and breaks its storage; tables of docs/reliability.md
# make images       the images, with docker, podman or buildah; REGISTRY=registry.example.com/team PUSH=1 pushes them, and
#                   docker/images.sh has the other variables
# make chart        the chart as dist/cosmos-VERSION.tgz; REGISTRY=… PUSH=1 pushes it to oci://REGISTRY/charts
# make constraints  choose new versions of all packages

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(shell command -v uv || echo $(CURDIR)/$(BIN)/uv)
CONSTRAINTS := docker/constraints.txt
UV_VERSION := $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' $(CONSTRAINTS))

# where it is set, every process compiles its packages again and takes twice the time to start
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup quickstart test unit unit-others unit-stages unit-train multiproc multiproc-computing multiproc-others browser \
  api-server api-server-programs cluster gpu bench bench-gpu gpu-wheels fuzz fuzz-jobs soak worker-sweep operator-sweep FORCE \
  lint dataset images chart constraints clean

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

# `make -j3 test` keeps two cores busy; the longest parts come first
test: multiproc unit lint api-server
multiproc: multiproc-others multiproc-computing
unit: unit-others unit-stages unit-train

# tests of the numbers that stages and the training compute, with one process and with several; the others are tests of
# processes that start, stop and fail, of whole jobs, and much else
COMPUTING := tests/worker/stages tests/worker/train

unit-stages: $(READY)
	$(BIN)/pytest tests/worker/stages

unit-train: $(READY)
	$(BIN)/pytest tests/worker/train

unit-others: $(READY)
	$(BIN)/pytest $(COMPUTING:%=--ignore=%)

multiproc-computing: $(READY)
	$(BIN)/pytest -m multiproc $(COMPUTING)

multiproc-others: $(READY)
	$(BIN)/pytest -m multiproc $(COMPUTING:%=--ignore=%)

browser: $(READY)
	$(BIN)/pytest -m browser -rs tests/worker/stages tests/worker/view

# REQUIRE_API_SERVER=1 first builds missing programs, or waits for a process that does; else the tests are skipped and named
api-server: $(READY) $(if $(REQUIRE_API_SERVER),api-server-programs)
	$(BIN)/pytest -q -m api_server $(if $(REQUIRE_API_SERVER),--require-api-server) tests/fakekube tests/api_server

api-server-programs: $(READY)
	PYTHONPATH=tests/cluster $(BIN)/python -m harness api-server-programs

SCHEDULES ?= 5000
SEED ?= 1

operator-sweep: $(READY)
	PYTHONHASHSEED=0 PYTHONPATH=tests $(BIN)/python -m support.crash_sweep --schedules $(SCHEDULES) --seed $(SEED) $(if $(MINUTES_OF_SWEEP),--minutes $(MINUTES_OF_SWEEP))

cluster: $(READY)
	$(BIN)/pytest -v -rs --timeout 900 --durations 15 -m "not multiproc" --real-cluster tests/cluster tests/scenarios
	$(BIN)/pytest -rs -q -m cluster tests/fakekube

gpu: $(READY)
	$(BIN)/pytest -v -s -rs --timeout 7200 -m gpu $(if $(GPU_FOLDER),--basetemp $(GPU_FOLDER)) tests/gpu tests/worker

SEED ?= 0
NUMBER ?= 10000

fuzz: $(READY)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m fuzz --minutes $(MINUTES) --seed $(SEED)

fuzz-jobs: $(READY) api-server-programs
	PYTHONPATH=tests:tests/cluster $(BIN)/python -m fuzz.resources --number $(NUMBER) --seed $(SEED)

soak: MINUTES = 60
soak: $(READY)
	PYTHONPATH=tests:tests/cluster $(BIN)/python -m soak --minutes $(MINUTES) --seed $(SEED)

# on a bare machine with the Python that is there
BENCH_PYTHON ?= $(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON))
MINUTES ?= 5

bench-gpu:
	$(BENCH_PYTHON) -m benchmarks.gpu --minutes $(MINUTES) $(BENCH_OPTIONS)

gpu-wheels: $(READY)
	@test -n "$(GPU_PYTHON)" || { echo "gpu-wheels: which Python has the GPU's machine? GPU_PYTHON=3.12"; exit 2; }
	$(BIN)/python -m benchmarks.gpu.wheels --python $(GPU_PYTHON) $(if $(GPU_MACHINE),--machine $(GPU_MACHINE))

# each is a program of its own; ROUNDS_name keeps all of them together under 15 minutes on 2 idle cores
BENCHMARKS := $(filter $(notdir $(basename $(wildcard benchmarks/*.py))), \
  start_up preparation whole_loop training_step sampling)
ROUNDS_start_up := --rounds 3
ROUNDS_preparation := --rounds 1

bench: $(BENCHMARKS:%=bench/%.json)

bench/%.json: benchmarks/%.py FORCE | $(READY)
	@mkdir -p bench
	$(BIN)/python $< $(ROUNDS_$*) --json $@ > bench/$*.md
	@cat bench/$*.md

FORCE:

RUNS ?= 200

worker-sweep: $(READY)
	@mkdir -p bench
	$(BIN)/python benchmarks/worker_sweep.py --runs $(RUNS) --json bench/worker_sweep.json $(SWEEP_OPTIONS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dataset: $(READY)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) "$(UV)" pip install --quiet --editable '.[sim]'
	$(BIN)/python examples/pushing/render.py --help

# the variables of the command line and of the environment are those of docker/images.sh
export REGISTRY PUSH IMAGES ENGINE TAG BASE_IMAGE CUDA_BASE_IMAGE CUDA_BUILD_IMAGE EXTENSIONS CA_BUNDLE UV_CONFIG \
  BUILD_OPTIONS PUSH_OPTIONS

images:
	docker/images.sh

HELM ?= helm
CHART_VERSION := $(shell sed -n 's/^version: //p' charts/cosmos/Chart.yaml)

chart:
	@command -v $(HELM) >/dev/null || { echo "chart: no $(HELM); install Helm 3 or 4, or name it: HELM=/path/to/helm"; exit 2; }
	@test "$(PUSH)" != 1 -o -n "$(REGISTRY)" || { echo "chart: PUSH=1 needs a registry: REGISTRY=registry.example.com/team"; exit 2; }
	$(HELM) package charts/cosmos --destination dist
	$(if $(filter 1,$(PUSH)),$(HELM) push dist/cosmos-$(CHART_VERSION).tgz oci://$(REGISTRY)/charts $(PUSH_OPTIONS))

constraints: | $(BIN)/python
	"$(UV)" pip compile --quiet pyproject.toml --extra operator --extra worker --extra view --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --upgrade --custom-compile-command "make constraints" -o $(CONSTRAINTS)

clean:
	rm -rf $(VENV) runs
