# `make` lists the targets. Each of them first makes the environment in .venv, if it is not there
# or is older than what it is made of: nothing but Python 3.11+ and make is needed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# PYTHON=… names the interpreter to use; ARGS="…" is handed to everturn, pytest or the benchmark.
PYTHON ?=
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
PYTEST := $(BIN)/python -m pytest
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate

.PHONY: help dev install test test-coverage test-unit test-integration test-contracts \
	test-fuzz test-replay test-e2e test-chaos check check-format lint types imports house-rules \
	check-generated format audit bench migrate openapi record-histories lock clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: $(INSTALLED) ## Run everything on this machine (ARGS="--port 9000 --ephemeral")
	@exec $(BIN)/everturn dev $(ARGS)

install: $(INSTALLED) ## Make the environment in .venv, with locked and hashed packages

$(INSTALLED): requirements/install requirements/installer.txt requirements/development.txt \
		requirements/embedding-model.txt pyproject.toml
	@for python in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found=$$python; break; \
		fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
		echo "Everturn needs Python 3.11 or newer. Install it, or name it: make install PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "Creating .venv with $$($$found --version) ..."; \
		if ! $$found -m venv --clear .venv; then \
			echo "$$found can't create environments. On Debian and Ubuntu, install python3-venv." >&2; \
			exit 1; \
		fi; \
	fi
	@echo "Installing locked packages ..."
	@requirements/install .venv development
	@touch $@

test: ## Run every test: in-process ones with coverage gates, then fuzz, e2e and chaos
	@$(MAKE) --no-print-directory test-coverage
	@$(MAKE) --no-print-directory test-fuzz
	@$(MAKE) --no-print-directory test-e2e
	@$(MAKE) --no-print-directory test-chaos

test-coverage: $(INSTALLED) ## Unit, integration, contract and replay tests, with the coverage gates
	@echo "== unit, integration, contracts, replay"
	@$(PYTEST) -n 2 --dist loadgroup --cov --cov-report= $(ARGS) \
		tests/unit tests/integration tests/contracts tests/replay
	@$(BIN)/python -m tests.coverage_gate

test-unit: $(INSTALLED) ## Unit tests: no I/O
	@$(PYTEST) $(ARGS) tests/unit

test-integration: $(INSTALLED) ## Services, activities and workers on real Postgres, Valkey, Temporal
	@$(PYTEST) $(ARGS) tests/integration

test-contracts: $(INSTALLED) ## Every endpoint: shape, authentication, validation, pages
	@$(PYTEST) $(ARGS) tests/contracts

test-fuzz: $(INSTALLED) ## Every operation with made-up requests (EVERTURN_FUZZ_EXAMPLES=200 for more)
	@echo "== fuzz"
	@$(PYTEST) -n 2 $(ARGS) tests/fuzz

test-replay: $(INSTALLED) ## Recorded workflow histories against today's workflows
	@$(PYTEST) $(ARGS) tests/replay

test-e2e: $(INSTALLED) ## Whole conversations against `everturn dev`
	@echo "== e2e"
	@$(PYTEST) $(ARGS) tests/e2e

test-chaos: $(INSTALLED) ## Kill each part in the middle of a turn and look at what is left
	@echo "== chaos"
	@$(PYTEST) $(ARGS) tests/chaos

check: check-format lint types imports house-rules check-generated ## All that can be told without running it

check-format: $(INSTALLED) ## Is everything formatted?
	@$(BIN)/ruff format --check .

lint: $(INSTALLED) ## Lint with all of ruff's rules
	@$(BIN)/ruff check .

types: $(INSTALLED) ## Check types, strictly
	@$(BIN)/mypy

imports: $(INSTALLED) ## Check who may import whom
	@$(BIN)/lint-imports --no-cache --no-logo

house-rules: $(INSTALLED) ## Check the rules that no linter knows (tests/house_rules.py)
	@$(BIN)/python -m tests.house_rules

check-generated: $(INSTALLED) ## Are locks and OpenAPI fresh, and CI's workflow files valid?
	@$(BIN)/python -m tests.lock_freshness
	@$(BIN)/python -m workers.openapi --check docs/openapi.json
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --no-progress --quiet .github/workflows

format: $(INSTALLED) ## Format, and fix what the linter can fix
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

# Without --strict a package that the advisory service does not answer for counts as sound.
audit: $(INSTALLED) ## Look up known vulnerabilities (asks the advisory service of pip-audit)
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
		-r requirements/production.txt

bench: $(INSTALLED) ## Measure the speed beside a proxy without durability
	@$(BIN)/python -m tests.load.bench $(ARGS)

migrate: $(INSTALLED) ## Bring the database of DATABASE_URL to the newest schema
	@$(BIN)/everturn migrate $(ARGS)

openapi: $(INSTALLED) ## Write docs/openapi.json
	@$(BIN)/python -m workers.openapi docs/openapi.json

record-histories: $(INSTALLED) ## Record the workflow histories that the replay tests replay
	@$(BIN)/python -m tests.replay.record

lock: $(INSTALLED) ## Lock requirements/*.txt anew from pyproject.toml (ARGS=--upgrade for new versions)
	@$(LOCK) $(ARGS) pyproject.toml -o requirements/production.txt
	@$(LOCK) $(ARGS) --extra embedded --group development pyproject.toml \
		-o requirements/development.txt
	@echo uv | $(LOCK) - -c requirements/development.txt -o requirements/installer.txt
	@echo 'wordllama>=0.4.0.post1' | $(LOCK) $(ARGS) --no-deps - -o requirements/embedding-model.txt

clean: ## Remove the environment and all caches; data in .everturn stays
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
