# Every target sets itself up on a fresh machine: Python >= 3.11 is all that must be there.
# A real Kubernetes node is built and started where one is needed (tests/cluster/testbed/README.md).

PYTHON ?= python3
BIN := .venv/bin
CLUSTER ?= bed
TESTS ?= tests
SEED ?= 1
FAULTS ?= 200

.PHONY: demo test chaos bed lint lock clean help

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 8

demo: .venv/.ready  ## the whole road: a DiscordGateway on a real node, events in a JetStream stream (CLUSTER=current: your kubectl context)
	@$(BIN)/python tests/cluster/demo.py --cluster $(CLUSTER)

test: lint bed  ## everything: lint, unit, component, and cluster tests on a real node
ifeq ($(TESTS),tests)
	@$(BIN)/python -m pytest --numprocesses=4 --dist=worksteal tests/unit tests/component
	@$(BIN)/python -m pytest tests/cluster
else
	@$(BIN)/python -m pytest $(TESTS)
endif

chaos: bed .venv/.ready  ## faults by the hundred against a running gateway; SEED=n FAULTS=200 KIND=name DOUBLE=1
	@$(BIN)/python tests/cluster/chaos --seed $(SEED) --faults $(FAULTS) $(if $(KIND),--kind $(KIND)) $(if $(DOUBLE),--double)

bed:  ## bring the test bed up with this project's images (harmless when it is)
	@$(PYTHON) tests/cluster/testbed up --images

lint: .venv/.ready  ## ruff, mypy strict, import-linter, codespell, generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell
	@$(BIN)/python tools/sync_crds.py --check

lock:  ## pin the requirement files anew
	@tools/lock

.venv/.ready: pyproject.toml requirements-dev.txt
	@echo "setting up .venv (about a minute the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements-dev.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:  ## stop the test bed, remove what is built here
	@$(PYTHON) tests/cluster/testbed down
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
