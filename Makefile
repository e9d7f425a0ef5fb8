# Every target first makes sure that .venv was built from requirements/cpu.lock. Nothing but `setup` and `lock` reaches
# for the network.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON_VENV := .venv/bin/python
PYTEST := $(PYTHON_VENV) -m pytest -v --durations=15

# Offline, no usage reports, loopback only.
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export VLLM_NO_USAGE_STATS := 1
export DO_NOT_TRACK := 1
export RAY_USAGE_STATS_ENABLED := 0
export VLLM_HOST_IP := 127.0.0.1
export GLOO_SOCKET_IFNAME := lo
export TOKENIZERS_PARALLELISM := false
# Packages are installed uncompiled; each process would compile vLLM again if it might not keep the bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test check test-all bench docs lock clean

help: ## what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## build .venv from the lock, if the lock changed
	@PYTHON='$(PYTHON)' requirements/setup.sh

demo: setup ## run the quickstart pipeline on this machine's CPU
	$(PYTHON_VENV) -m orchestrator run examples/quickstart.yaml --out runs/quickstart-$$(date +%Y%m%d-%H%M%S)

check: setup ## lint, format and types
	$(PYTHON_VENV) -m ruff check .
	$(PYTHON_VENV) -m ruff format --check .
	$(PYTHON_VENV) -m mypy

test: check ## what CI runs: check, then every test that is neither slow nor needs a GPU
	$(PYTEST) -m "not slow and not gpu" --session-timeout=1500

test-all: check ## the same with the slow end-to-end tests, and those that need a GPU where there is one
	$(PYTEST)

bench: setup ## the step against its floor (bare engine, bare torch), and each kernel against the same by hand
	$(PYTHON_VENV) -m benchmarks.step
	$(PYTHON_VENV) -m benchmarks.objectives

docs: setup ## write docs/config.md and docs/recipes.md from the code and the recipes, and check the links
	$(PYTHON_VENV) docs/build.py

lock: setup ## resolve pyproject.toml's pins anew into requirements/cpu.lock
	requirements/lock.sh

clean: ## remove caches; .venv, runs and models stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
