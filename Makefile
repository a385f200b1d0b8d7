# The verbs of this checkout. Nothing has to be installed first but Python 3.11 or newer, and no root is needed.

SHELL := /bin/bash
BIN := .venv/bin
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)

# Machines that forbid bytecode would compile every module at every start of every process.
unexport PYTHONDONTWRITEBYTECODE
.NOTPARALLEL:
.PHONY: help env provision demo lint test prove clean
.DEFAULT_GOAL := help

help: ## list these verbs
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

env: ## Python environment in .venv from requirements.lock
	@test -n "$(PYTHON)" || { echo "env: no Python 3.11 or newer on PATH; install one, or say make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -m harness.stack.environment

provision: env ## servers of the embedded stack, into $VOXPROOF_HOME or ~/.cache/voxproof
	@$(BIN)/python -m harness.stack.provision

demo: provision ## three calls on the real stack, judged end to end; report in reports/runs/
	@$(BIN)/voxproof run scenarios/smoke.yaml

lint: env ## format, lint, types; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint ## the gate: lint, unit tests, the shipped alerts in virtual time, then tests on the real stack
	$(BIN)/pytest -n auto --dist loadscope
	@$(BIN)/python -m harness.stack.provision
	$(BIN)/voxproof alerts --virtual
	$(BIN)/pytest -m stack

prove: provision ## long proofs: repeated healthy runs, every live defect; summary in docs/proof/
	$(BIN)/pytest -m soak

clean: ## what make left in this checkout; recorded runs and the cache of servers stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
