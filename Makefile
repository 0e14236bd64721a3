# The one task runner, the same for people and for CI. `make` alone lists the targets.
PYTHON ?= python3
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

bin := .venv/bin
installed := .venv/.installed
pytest := $(bin)/python -m pytest
compile = UV_PYTHON_DOWNLOADS=never $(bin)/uv pip compile -q --universal --generate-hashes --no-header $(UPGRADE)

.PHONY: help setup rabbitmq promtool demo test lint types guard unit tests lock clean bench bench-quick

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(installed) rabbitmq ## .venv from the locks, and a RabbitMQ where the machine has none (both other targets do this)

$(installed): requirements-dev.lock pyproject.toml tools/make_venv.sh
	@tools/make_venv.sh $(PYTHON)
	@touch $@

rabbitmq:
	@tools/get_rabbitmq.sh

# Without it the tests that need it are skipped.
promtool:
	@tools/get_promtool.sh || true

demo: setup ## a broker, a venue and the worker on this machine, with a stream of cancels
	@$(bin)/cancel-worker demo

test: setup lint types guard tests ## everything: lint, types, architecture, the guard of costs, all tests, the coverage gate

lint: $(installed) ## ruff (rules and format), and the direction of imports
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/lint-imports

types: $(installed) ## mypy, strict
	$(bin)/mypy

guard: $(installed) ## what a cancel costs the engine, held to a bound that no busy machine can spoil
	$(bin)/python -m bench.guard

unit: $(installed) ## the tests of worker/core and worker/wire alone: no broker, no sockets
	$(pytest) -n 0 tests/core tests/wire

# What failed is run once more, alone and on a fresh broker: two busy cores may make a time-out slip. Twice is red.
again = $(pytest) -n 0 --last-failed --last-failed-no-failures none --cov --cov-append --cov-report=

tests: setup promtool ## all tests with branch coverage, and the gate on worker/core and worker/wire
	$(pytest) --cov --cov-report= || $(again)
	$(bin)/coverage json --quiet -o .cache/coverage.json
	$(bin)/python tools/coverage_gate.py .cache/coverage.json --at-least 90 worker/core worker/wire

lock: $(installed) ## write the lock files anew from pyproject.toml (newer versions: make lock UPGRADE=--upgrade)
	$(compile) pyproject.toml -o requirements.lock
	$(compile) -c requirements.lock --group dev pyproject.toml -o requirements-dev.lock
	$(compile) -c requirements-dev.lock --group build -o requirements-build.lock

clean: ## remove all that the other targets made
	rm -rf .venv .cache .hypothesis .ruff_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

bench: setup ## everything measured, beside peers and a limit in C: about an hour on a quiet machine (docs/performance.md)
	@bench/setup.sh
	$(bin)/python -m bench all

bench-quick: setup ## its key figures in two to three minutes
	@bench/setup.sh
	$(bin)/python -m bench quick
