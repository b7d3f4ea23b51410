# Each target is all the set-up there is: a fresh Debian or Ubuntu with Python 3.10 or later and make is enough.
#
#   make demo       the example model onto an emulated Cortex-M4: build, flash, verify, profile
#   make test       every test at the counts of a working day
#   make campaign   the same tests at their full counts (hours)
#   make lint       ruff and mypy
#   make clean      removes what was built; .venv stays

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?=
# Processes that share the tests, a file each time; 0 runs them one after another in one process.
PYTEST_WORKERS ?= auto

VENV := .venv
SETUP := PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" VENV="$(VENV)" sh scripts/setup.sh

.PHONY: demo test campaign lint clean

demo:
	@$(SETUP) demo
	cd examples/fashion_mnist && ../../$(VENV)/bin/edgekit deploy --target mps2-an386

test:
	@$(SETUP) test
	$(VENV)/bin/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

campaign:
	@$(SETUP) test
	EDGEKIT_CAMPAIGN=1 $(VENV)/bin/python -m pytest --timeout 14400 -o faulthandler_timeout=14000 -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

lint:
	@$(SETUP) test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf build dist examples/*/build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find edgekit tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
