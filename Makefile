# `make` alone says what there is. On a fresh Debian or Ubuntu: apt install make python3-venv, then make demo or make test.
# Tried on Linux only; macOS and Windows are untried.

PYTHON ?= python3
VENV   ?= .venv
VIDEO  ?=
# One worker a core of a small machine; PYTEST_ARGS="-x tests/test_install.py" runs one file in this process.
PYTEST_ARGS ?= -n 2 --dist worksteal
# Where CPU builds of torch are, asked where pip's own index has none: PyPI's wheel for Linux is a CUDA build of several
# gigabytes. TORCH_INDEX= (empty) takes what pip finds at once (for a GPU).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# A moved or copied repository carries an environment that points at the old place: install into it again.
ifneq ($(shell cat "$(STAMP)" 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22
	@echo 'Variables: VIDEO=my.mp4  PYTHON=python3.12  VENV=.venv  PYTEST_ARGS="-x"  TORCH_INDEX=URL'

.PHONY: install
install: $(STAMP) ## The environment in .venv; the targets below make it themselves

$(STAMP): pyproject.toml constraints.txt
	@VENV="$(VENV)" PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/install.sh
	@echo "$(CURDIR)" > $@

.PHONY: demo
# The name goes through the environment, so that no shell reads what is in it.
demo: export TUBELET_DEMO_VIDEO := $(value VIDEO)
demo: $(STAMP) ## Answer about a clip, dense and pruned: make demo VIDEO=my.mp4
	@$(PY) -m tubelet.demo $(if $(value VIDEO),"$$TUBELET_DEMO_VIDEO")

.PHONY: test
test: lint ## Lint, types and all tests
	$(PY) -m pytest $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMP) ## ruff and mypy
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

.PHONY: format
format: $(STAMP) ## Put the code in form
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

.PHONY: results
results: $(STAMP) ## Remake the numbers in results/ (resumable: what is done is not run again)
	$(PY) -m benchmarks.results

.PHONY: hooks
hooks: $(STAMP) ## Have git run `make lint` before each commit
	@printf '#!/bin/sh\n# Written by make hooks. Skip once: git commit --no-verify\nexec make --no-print-directory lint\n' > "$$(git rev-parse --git-path hooks)/pre-commit"
	@chmod +x "$$(git rev-parse --git-path hooks)/pre-commit"

.PHONY: constraints
constraints: $(STAMP) ## Remake constraints.txt with the newest versions that fit pyproject.toml
	@sh scripts/constraints.sh "$(PY)"

.PHONY: clean
clean: ## Remove the environment and what tools left
	rm -rf "$(VENV)" build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
