# Everything a developer or a newcomer calls. `make help` explains the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.run-installed
DEV_STAMP := $(VENV)/.dev-installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PARALLEL ?= 2
# A file's tests share a process, and each process its own servers: two of each at once, whatever the machine has.
RUN_TESTS := $(BIN)/pytest -n $(PARALLEL) --dist loadfile
PACKAGES := api operator worker cli testbed
IMAGE ?= localhost/whimbrel:dev
BUILDER ?= $(if $(shell command -v buildah),buildah,docker)
REVISION = $(shell git describe --always --abbrev=40 --dirty --exclude '*' 2>/dev/null || echo unknown)
# Below what `make generate` writes.
TREE := .

# The cluster of `make e2e`: the one that runs or one for it alone, or with CLUSTER=existing that of KUBECONFIG.
OWN_CLUSTER = WHIMBREL_TEST_CLUSTER=own WHIMBREL_TEST_KUBECONFIG="$${KUBECONFIG:?names no cluster: KUBECONFIG=… make e2e CLUSTER=existing}"
WITH_CLUSTER = $(if $(filter existing,$(CLUSTER)),$(OWN_CLUSTER),$(BIN)/python -m whimbrel_testbed.kubernetes.standing run)
E2E_GIVEN = $(if $(ADDRESS),WHIMBREL_TESTBED_ADDRESS=$(ADDRESS)) \
  $(if $(filter command environment,$(firstword $(origin IMAGE))),WHIMBREL_E2E_IMAGE=$(IMAGE))

.PHONY: help demo test lint unit control-plane component apiserver chart faults bench generate check-generated lock clean \
  test-aws cluster cluster-down e2e image image-figures

help: ## explain every target
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo CLUSTER=1         the same by kubectl and the operator, on a Kubernetes of its own"
	@echo "  make demo PAIR=dynamodb     DynamoDB to PolarDB's DynamoDB endpoint instead"
	@echo "  make demo ARGS=--keep       leaves the servers running to look around, until Ctrl-C"
	@echo "  make e2e CLUSTER=existing   on the cluster that KUBECONFIG names: docs/testbed-kubernetes.md"
	@echo "  make faults SEEDS=all       every seed of the long ones, not the first alone"
	@echo "  make test PYTEST='-k lag'   hands options to pytest"
	@echo "  make test PARALLEL=0        one test after the other, in one process"
	@echo "  make demo VENV=/tmp/v       another place for the virtual environment"

demo: $(if $(CLUSTER),$(DEV_STAMP),$(RUN_STAMP)) ## move a live MySQL database to a server that behaves as Aurora DSQL does, and compare
	@$(BIN)/whimbrel demo $(if $(PAIR),--pair $(PAIR)) $(if $(CLUSTER),--on-cluster) $(ARGS)

test: lint unit component apiserver chart faults ## all that CI runs: lint, types, floors, and every test

lint: $(DEV_STAMP) check-generated ## ruff, mypy --strict, import-linter, and generated files are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES) tests bench image
	$(BIN)/lint-imports

unit: $(DEV_STAMP) ## pure tests, seconds
	$(RUN_TESTS) tests/unit $(PYTEST)

# Before the tests, as it takes longer than one of them may; where it fails, those that need it say why.
control-plane: $(RUN_STAMP) ## build the test bed's Kubernetes where it is not there yet: once, minutes
	-@$(BIN)/python -m whimbrel_testbed.kubernetes.build

component: $(DEV_STAMP) control-plane ## tests against real MySQL, PostgreSQL and the DSQL stand-in
	$(RUN_TESTS) tests/component $(PYTEST)

apiserver: $(DEV_STAMP) control-plane ## tests against a real Kubernetes API server
	$(RUN_TESTS) tests/cluster $(PYTEST)

chart: $(DEV_STAMP) control-plane ## the Helm chart rendered, checked and installed; the image, where buildah is there
	$(BIN)/pytest tests/chart $(PYTEST)

faults: $(DEV_STAMP) control-plane ## the fault matrix: kills, lost replies, zombies, purged logs, over the first seeds of each
	$(if $(SEEDS),WHIMBREL_TEST_SEEDS=$(SEEDS)) $(RUN_TESTS) tests/faults $(PYTEST)

cluster: $(RUN_STAMP) ## a Kubernetes to try things on, with kubelet and containerd where this machine allows it
	@$(BIN)/python -m whimbrel_testbed.kubernetes.standing up

cluster-down: $(RUN_STAMP) ## take that down again
	@$(BIN)/python -m whimbrel_testbed.kubernetes.standing down

# `tee -i`: Ctrl-C reaches all of a pipeline, and what the tests say while they take things away is to be seen.
e2e: $(DEV_STAMP) ## all of it on a cluster: image, chart, both examples under traffic, cutover, rollback, uninstall
	@mkdir -p build/e2e
	@{ $(E2E_GIVEN) $(WITH_CLUSTER) $(BIN)/pytest tests/e2e -x -s -v --no-header --tb=short $(PYTEST); } 2>&1 | tee -i build/e2e/log

test-aws: $(DEV_STAMP) ## the same migration to a real Aurora DSQL cluster of your own: docs/testing-aws.md
	@code=0; PYTHONPATH=tests $(BIN)/python -m support.lent_dsql $(if $(CLEAN),clean,check) || code=$$?; \
	  if [ $$code -eq 3 ]; then exit 0; elif [ $$code -ne 0 ] || [ -n "$(CLEAN)" ]; then exit $$code; fi; \
	  $(BIN)/pytest tests/aws -s --tb=short $(PYTEST)

bench: $(DEV_STAMP) ## speed beside its peers, as CPU seconds per million rows and ratios (minutes)
	$(BIN)/python -m bench $(ARGS)

image: ## build the image: IMAGE=name, BASE=another base, SOURCE=where its code is read, BUILDER=buildah|docker
	$(BUILDER) build $(if $(findstring buildah,$(BUILDER)),--layers) --tag $(IMAGE) --build-arg REVISION=$(REVISION) \
	  $(if $(BASE),--build-arg BASE=$(BASE)) $(if $(SOURCE),--build-arg SOURCE=$(SOURCE)) $(ARGS) .

image-figures: $(DEV_STAMP) ## the image's size by layers, and how long its programs take to start (buildah)
	$(BIN)/python -m bench.image $(IMAGE)

generate: $(DEV_STAMP) ## write anew from the code: crds/, docs/reference.md, docs/metrics.md, the chart's and Argo CD's files
	$(BIN)/python -m whimbrel_api.crds $(TREE)/crds
	$(BIN)/python -m whimbrel_api.reference $(TREE)/docs
	$(BIN)/python -m whimbrel_operator.specs.chart $(TREE)/charts/whimbrel/files
	$(BIN)/python -m whimbrel_operator.figures $(TREE)/docs $(TREE)/charts/whimbrel/files
	PYTHONPATH="tests$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)/python -m support.argo_files $(TREE)/charts/argocd

# Written by hand, in folders that hold generated files: the alerts, and Argo CD's scripts.
check-generated: $(DEV_STAMP)
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; stale=; \
	  find crds docs charts -type d -exec mkdir -p "$$fresh/{}" \; ; \
	  $(MAKE) --silent generate TREE="$$fresh"; \
	  for each in crds charts/whimbrel/files charts/argocd docs/reference.md docs/metrics.md; do \
	    diff -r --exclude=alerts.yaml --exclude='*.lua' "$$each" "$$fresh/$$each" || stale="$$stale $$each"; done; \
	  [ -z "$$stale" ] || { echo "Not what the code says:$$stale. Run make generate and commit."; exit 1; }

lock: $(DEV_STAMP) ## resolve the dependencies anew into locks/, with hashes
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --extra operator --extra worker pyproject.toml -o locks/image.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --extra operator --extra worker --extra cli --extra testbed --extra build pyproject.toml -o locks/run.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --all-extras pyproject.toml -o locks/dev.txt

clean: ## remove what was built in the tree; the download cache stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Whimbrel needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=… to another."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "A virtual environment could not be made. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(RUN_STAMP): $(BIN)/python locks/run.txt pyproject.toml
	@echo "Installing what the demo needs (hashes required) …"
	@$(PIP_INSTALL) --require-hashes -r locks/run.txt || \
	  { echo "The packages could not be installed: see pip's message above. pip needs a package index that it can reach."; exit 1; }
	@PYTHONWARNINGS=ignore $(PIP_INSTALL) --no-build-isolation --no-deps -e .
	@$(BIN)/python -m compileall -q $(PACKAGES)
	@touch $@

$(DEV_STAMP): $(RUN_STAMP) locks/dev.txt
	@echo "Installing what the tests need (hashes required) …"
	@$(PIP_INSTALL) --require-hashes -r locks/dev.txt
	@touch $@
