# Every target sets up what it needs; run `make` alone to list them.
# PYTHON=/path/to/python3.11 chooses the interpreter, CORPUS=espeak the corpus of `make book` and `make edge`.

PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

# Keep Jupyter from running our notebooks in a kernel of the reader's own that is also called python3.
unexport JUPYTER_PATH
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help setup book paper site test lint bench edge faults clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with the exact versions of constraints.txt

# The stamp is removed first and written last, so a set-up that failed or was interrupted starts from scratch.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed$(if $(PYTHON), and $(PYTHON) is not,; none was found)." \
		     "Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@if [ -e $@ ]; then rm $@; else rm -rf $(VENV); fi
	"$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt torch
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[book,dev,edge,search,voices,listen]"
	@touch $@

book: $(READY)  ## run every page quickly (on FSDD if available) and render them to _build/html
	$(PY) -m book run $(if $(CORPUS),--corpus "$(CORPUS)")
	$(PY) -m book render

paper: $(READY)  ## run every page at the paper's scale, into book/runs (about three hours on two cores)
	$(PY) -m book run --paper

site: $(READY)  ## render the committed runs of book/runs to _build/html without running anything
	$(PY) -m book render --paper

test: lint  ## lint, unit tests, and all notebooks against their stored outputs
	$(PY) -m pytest -n 2 --dist loadfile --nbval-lax --nbval-sanitize-with tests/nbval_sanitize.cfg tests notebooks

lint: $(READY)  ## check code and notebooks with ruff, and the package's types with mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(READY)  ## time the package against plain snnTorch, and write _build/bench.json
	$(PY) -m benchmarks.speed

edge: $(READY)  ## check a network's C bit by bit on all targets, and write _build/edge.json
	$(PY) -m scnn.deploy $(if $(CORPUS),--corpus "$(CORPUS)")

faults: $(READY)  ## kill processes, fill disks and corrupt files, and write _build/faults.json (up to 40 minutes)
	$(PY) -m benchmarks.faults

clean:  ## remove everything built, except the environment (delete .venv to rebuild it)
	rm -rf _build .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find scnn tests benchmarks book -name __pycache__ -prune -exec rm -rf {} +
