# Each target is all the set-up there is: a fresh Debian or Ubuntu with Python 3.10 or later and make is enough.
#
#   make demo       the example model onto an emulated Cortex-M4: build, flash, verify, profile; then a short search for
#                   a smaller one, decided by what was measured there
#   make test       every test at the counts of a working day
#   make campaign   the same tests at their full counts (hours)
#   make lint       ruff and mypy
#   make clean      removes what was built; .venv stays

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?=
# Processes that share the tests, a file each time; 0 runs them one after another in one process.
PYTEST_WORKERS ?= auto

# A search of minutes: large steps, short trainings. `edgekit optimize` without them takes its time.
DEMO_SEARCH := --max-instructions 1500k --step 0.2 --exchanges 1 --short-rows 2000 --epochs 2 --qat-epochs 0 --max-drop 5 --fresh
IMAGES := /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz

VENV := .venv
SETUP := PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" VENV="$(VENV)" sh scripts/setup.sh

.PHONY: demo test campaign lint clean

demo:
	@$(SETUP) demo
	cd examples/fashion_mnist && ../../$(VENV)/bin/edgekit deploy --target mps2-an386
	@if [ -f $(IMAGES) ]; then cd examples/fashion_mnist && ../../$(VENV)/bin/edgekit optimize --target mps2-an386 $(DEMO_SEARCH); \
	else echo 'demo: the search needs images to train on: sudo apt-get install dataset-fashion-mnist'; fi

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
