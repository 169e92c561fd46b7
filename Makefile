# Everything lands in .venv; nothing else on the machine is touched. `make` prints the targets.
PY ?= python3
V := .venv
STAMP := $(V)/.installed
# pip reads PIP_FIND_LINKS by itself, uv does not: hand it over, so that a local CPU wheel of torch
# is found. Both are empty on most machines, and then the package index is all there is.
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifneq ($(strip $(UV_FIND_LINKS)),)
export UV_FIND_LINKS
endif
# Each test process keeps to one thread: two of them fill a laptop's two cores.
PYTEST := OMP_NUM_THREADS=1 $(V)/bin/python -m pytest -q -n 2

.PHONY: help setup demo test test-all check lint types golden format clean
help:           ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PY) >/dev/null || { echo "bytelm needs Python 3.11 or newer; '$(PY)' was not found. Name another: make PY=/path/to/python" >&2; exit 1; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "bytelm needs Python 3.11 or newer; '$(PY)' is $$($(PY) -V 2>&1). Name another: make PY=python3.11" >&2; exit 1; }
	$(PY) -m venv $(V)
	{ $(V)/bin/python -m pip install -q uv && $(V)/bin/uv pip install -q -p $(V)/bin/python -c constraints.txt -e '.[dev]'; } \
	|| $(V)/bin/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP)     ## make .venv and install, the development tools included
demo: setup     ## train, patch, evaluate and generate on this Python's own library
	$(V)/bin/bytelm demo
test: setup     ## the tests that a change must pass
	$(PYTEST) -m "not slow and not gpu"
test-all: setup     ## also the slow tests
	$(PYTEST) -m "not gpu"
check: lint types test     ## lint, types and test
lint: setup     ## style
	$(V)/bin/ruff check . && $(V)/bin/ruff format --check .
types: setup     ## static types
	$(V)/bin/pyright
golden: setup     ## rewrite tests/golden; review the difference
	BYTELM_WRITE_GOLDEN=1 $(PYTEST) -m "not gpu" -k golden
format: setup     ## rewrite the code in the project's style
	$(V)/bin/ruff check --fix-only -q . && $(V)/bin/ruff format .
clean:          ## remove .venv and what tools cached
	rm -rf $(V) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
