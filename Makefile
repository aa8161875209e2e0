PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
SOURCES := src tests tools bench

.DEFAULT_GOAL := help
.PHONY: help setup nixl serve test test-e2e test-gpu clients test-clients check fuzz fuzz-mutants fuzz-gateway schemas accounts kills \
	bench bench-full bench-setup bench-handoff bench-gateway bench-masks bench-router bench-mixed bench-engine bench-gpu validate claims clean

help: ## list these targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## create .venv with everything pinned; PYTHON= chooses the interpreter

$(READY): pyproject.toml setup.py $(wildcard src/twinfer/*/*.c src/twinfer/*/*/*.[ch]) constraints.txt tools/install.sh
	@PYTHON="$(PYTHON)" tools/install.sh
	@touch $@

nixl: setup ## add NIXL for KV over RDMA, 130 MB: without its own torch, because Twinfer has one
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt nixl-cu12

serve: setup ## serve the demo model at http://127.0.0.1:8000; ARGS= goes to twinfer serve
	@$(BIN)/twinfer serve $(ARGS)

test: setup ## the fast tests: no GPU, no network, no other processes to start by hand
	$(BIN)/pytest -n 2 -m "not e2e and not gpu" $(ARGS)

test-e2e: setup ## tests that start whole deployments, the README's examples among them
	$(BIN)/pytest -m "e2e and not gpu" $(ARGS)

test-gpu: setup ## tests that need a CUDA device: the native engine there, and handoffs between it and the CPU
	$(BIN)/pytest -m gpu $(ARGS)

clients: ## environments of real clients below .venv-clients, half a gigabyte; see tests/clients
	@for name in old new; do test -d .venv-clients/$$name/bin || $(PYTHON) -m venv .venv-clients/$$name; \
		.venv-clients/$$name/bin/python -m pip install --quiet --progress-bar off -r tests/clients/requirements-$$name.txt || exit 1; done
	@mkdir -p .venv-clients/javascript && cp tests/clients/javascript/package*.json .venv-clients/javascript
	@if command -v npm >/dev/null; then npm ci --prefix .venv-clients/javascript --no-audit --no-fund --silent; \
		else echo "npm is not installed: the AWS SDK for JavaScript is left out"; fi
	@test -d .venv-clients/sources || .venv-clients/new/bin/python -m pip download --quiet --progress-bar off --no-binary :all: \
		--no-deps --no-build-isolation --dest .venv-clients/sources -r tests/clients/sources.txt

test-clients: setup clients ## boto3 twice, AWS CLI and SDK for JavaScript, langchain-aws, strands, pydantic-ai, litellm and openai
	$(BIN)/python -m tests.clients.run

check: setup ## format, lint, types, layers and size budget
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/size_budget.py

fuzz: setup ## 100,000 handoffs in virtual time under every kind of fault; ARGS="--seed N" replays one world
	$(BIN)/python -m tests.fuzz $(ARGS)

fuzz-mutants: setup ## break one rule of the product at a time: the fuzzer must find each
	$(BIN)/python -m tests.fuzz --mutants $(ARGS)

fuzz-gateway: setup ## 10,000 spoilt requests to every route; ARGS="--first N --requests 1" replays one
	$(BIN)/python -m tests.gateway.fuzz $(ARGS)

schemas: setup ## 500 random schemas through three doors of the demo model; ARGS="--schemas N --seed N"
	$(BIN)/python -m tests.schemas $(ARGS)

accounts: setup ## 10,000 requests with cancels, kills and retries: quotas, ledger and responses must agree; ARGS="--seed N"
	$(BIN)/python -m tests.accounts $(ARGS)

kills: setup ## a hundred times kill -9 under load with real processes; ARGS="--demo --workers 2 --seed N"
	$(BIN)/python -m tests.kills $(ARGS)

bench-handoff: setup ## what moving KV between two processes costs, next to memcpy
	$(BIN)/python -m bench.handoff $(ARGS)

bench-gateway: setup ## requests and streamed tokens per second of one gateway core, next to an echo
	$(BIN)/python -m bench.gateway $(ARGS)

bench-masks: setup ## what holding answers to a schema costs a decode step; ARGS= names another checkpoint
	$(BIN)/python -m bench.masks $(ARGS)

TRACES ?= traces
bench-router: setup ## goodput of four ways of routing in the simulator; TRACES= is the directory of the traces
	$(BIN)/python -m bench.router_table $(TRACES) $(ARGS)

bench-setup: setup ## environments of vLLM and llama.cpp below .venv-peers, which the benchmarks compare with; 30 minutes
	@PYTHON="$(PYTHON)" tools/install_peers.sh

SHAPE := .venv/qwen2.5-0.5b
$(SHAPE)/config.json: setup
	@test -e $@ || $(BIN)/python tools/make_checkpoint.py qwen2.5-0.5b $(SHAPE)

bench: $(SHAPE)/config.json ## the same work against Twinfer, vLLM and llama.cpp at fixed rates: docs/benchmarks.md; 25 minutes
	$(BIN)/python -m bench.published $(SHAPE) $(ARGS)

bench-full: $(SHAPE)/config.json ## the same with the highest rate of each searched, which takes hours; goes on where it was
	$(BIN)/python -m bench.published $(SHAPE) --full $(ARGS)

bench-engine: $(SHAPE)/config.json ## prefill and decode of a 0.5 B shape, next to vLLM, llama.cpp and transformers
	$(BIN)/python -m bench.engine $(SHAPE) $(ARGS)

bench-mixed: $(SHAPE)/config.json ## chats and long prompts on two cores: both fixed ways and the router; 7 minutes
	$(BIN)/python -m bench.mixed_load $(SHAPE) $(ARGS)

GPU_SHAPE := .venv/llama-3.1-8b
$(GPU_SHAPE)/config.json: setup
	@test -e $@ || $(BIN)/python tools/make_checkpoint.py llama-3.1-8b $(GPU_SHAPE)

bench-gpu: $(GPU_SHAPE)/config.json ## prefill and decode of an 8 B shape on a CUDA device, next to transformers; 32 GB of disk
	$(BIN)/python -m bench.engine $(GPU_SHAPE) --device cuda $(ARGS)

validate: setup ## hold the catalogue to what others measured: docs/validation.md; ARGS="--check" only compares
	$(BIN)/python -m bench.validation $(ARGS)

claims: setup ## recompute the announcement's claims: docs/claims.md and its figures; ARGS="--check" only compares
	$(BIN)/python -m bench.claims $(ARGS)

clean: ## remove what make created: .venv, caches and build outputs
	rm -f src/twinfer/*/*.so src/twinfer/*/*/*.so
	rm -rf .venv .venv-clients .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist src/*.egg-info
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
