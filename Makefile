# The commands for people and CI. Every target only calls other programs, so its commands also work without make.
PYTHON ?= python3
PY := .venv/bin/python

# Empty, so that Python caches bytecode: tests start hundreds of processes, and each would compile every module again.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help setup demo embedded load env images up down logs test test-long test-e2e kill-matrix fuzz test-upgrade bench-forecast release-store test-integration check lint types format chart generate pictures clean

help:           ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 24

setup:          ## Create .venv with everything a developer needs
	@$(PYTHON) -m tools.environment dev

demo:           ## CSV to served forecast on this machine (DATA= TEST= NAME= ONCE=1)
	@$(PYTHON) -m tools.environment embedded
	@exec $(PY) -m embedded demo

embedded:       ## The whole pipeline on this machine, without a data set, until Ctrl-C
	@$(PYTHON) -m tools.environment embedded
	@exec $(PY) -m embedded up

load:           ## Load on a running pipeline (TARGET=embedded|compose|helm USERS=20 DURATION=2m SHAPE=steady WORKERS=2)
	@$(PYTHON) -m tools.environment load
	@$(PY) -m tools.load --target $(or $(TARGET),embedded) --users $(or $(USERS),20) --duration $(or $(DURATION),2m) \
	  --shape $(or $(SHAPE),steady) --workers $(or $(WORKERS),2) --home $(or $(FLTS_HOME),.flts) \
	  --namespace $(or $(NAMESPACE),default) $(addprefix --scale-to ,$(SCALE))

env:            ## Write .env with random secrets, once
	@$(PYTHON) -m tools.env_file

images:         ## Build every image, one after the other, and print their sizes
	@$(PYTHON) -m tools.images

up: env         ## The whole pipeline on Docker, in the background, until it is healthy (PROFILES=observe)
	@docker compose $(addprefix --profile ,$(PROFILES)) up --detach --wait --remove-orphans

down:           ## Stop the pipeline on Docker; its data stays
	@docker compose --profile '*' rm --stop --force --volumes && docker compose --profile '*' down

logs:           ## Follow the logs of the pipeline on Docker (SERVICE=eval)
	@docker compose --profile '*' logs --follow --tail 100 $(SERVICE)

test: setup     ## Every test that needs no Docker, the end-to-end runs included
	@$(PY) -m pytest tests -n 2 --durations=10

test-long: setup ## The long fault and load suites, about an hour
	@$(PY) -m pytest tests -m long

# Tests that start installations of their own. They run after the journeys: a laptop has memory for one at a time.
INSTALLING_compose = tests/deployment/test_compose_stack.py tests/deployment/test_compose_absences.py \
  tests/e2e/test_prometheus.py
INSTALLING_helm = tests/deployment/test_helm_stack.py tests/deployment/test_helm_scaling.py \
  tests/deployment/test_helm_faults.py tests/deployment/test_helm_outside.py

test-e2e: setup  ## The journeys, and kills of every program in mid-run, on TARGET=embedded|compose|helm
	@FLTS_TEST_TARGET=$(or $(TARGET),embedded) $(PY) -m pytest -m "long or not long" tests/e2e/test_journey.py \
	  tests/e2e/test_mid_run.py tests/e2e/test_poison.py tests/e2e/test_figures.py tests/e2e/test_same_numbers.py \
	  tests/e2e/test_calendars.py
	@$(if $(INSTALLING_$(TARGET)),FLTS_TEST_TARGET=$(TARGET) $(PY) -m pytest -m "long or not long" \
	  $(INSTALLING_$(TARGET)))

kill-matrix: setup ## Kill every service at every point that a run passes, 18 minutes on two cores
	@$(PY) -m pytest tests/e2e/test_kill_matrix.py -m long -s

fuzz: setup     ## Random and damaged files into the reader and the gateway (SECONDS=600 SEED=)
	@$(PY) -m tests.fuzz --seconds $(or $(SECONDS),600) $(addprefix --seed ,$(SEED))

UPGRADES = $(if $(filter compose helm,$(TARGET)),tests/deployment/test_installed_upgrade.py,\
  tests/e2e/test_upgrade.py tests/e2e/test_same_scores.py)

test-upgrade: setup ## Upgrade the last release to this code and roll it back (TARGET=embedded|compose|helm), 3 to 10 minutes
	@FLTS_TEST_TARGET=$(or $(TARGET),embedded) $(PY) -m pytest -m "long or not long" $(UPGRADES)

bench-forecast: setup ## FLTS against statsforecast and LightGBM, into docs/quality.md (SETS= HORIZON= SEEDS=3 FAST=1 WRITE=1)
	@$(PY) -m tests.bench_forecast --sets "$(SETS)" --seeds $(or $(SEEDS),3) $(addprefix --horizon ,$(HORIZON)) \
	  $(if $(FAST),--fast) $(if $(SETS)$(FAST),$(if $(WRITE),--write),--write)

release-store: setup ## Write what this code stores into tests/releases, for later releases to read (COMMIT=)
	@$(PY) -m tests.release_store $(COMMIT)

test-integration: setup ## The ports' suites on the real servers that FLTS_TEST_* name; fails if one is missing (MAY_SKIP=)
	@$(PY) -m pytest tests/contract tests/e2e/test_s3_demo.py --no-skips $(addprefix --may-skip ,$(MAY_SKIP))

lint: setup     ## Style, imports between folders, format
	@$(PY) -m tools.lint

types: setup    ## mypy, strict
	@$(PY) -m mypy

format: setup   ## Format every file
	@$(PY) -m ruff format .

chart: setup    ## Lint and render the chart with the installed Helm, and compare it with Compose
	@$(PY) -m pytest tests/deployment/test_chart*.py tests/deployment/test_parity.py

generate: setup ## Write the generated documents
	@$(PY) -m tools.generate

pictures:       ## Draw the README's pictures from a run of the sample, on a quiet machine
	@$(PYTHON) -m tools.environment embedded
	@$(PY) -m tools.pictures

check: lint types test ## Every check that needs no Docker

clean:          ## Remove the environment and caches; data in .flts stays
	@$(PYTHON) -m tools.clean
