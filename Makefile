# Two commands for a new machine: `make demo` and `make test`. Both set up .venv first; neither needs a network after.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo station test test-slow docs notebooks fuzz fuzz-check lint format platforms benchmark gpu dist matrix clean

demo: $(READY)
	rm -rf demo
	$(BIN)/supersimplenet demo --output demo

# A station with the demo's model and a simulated line, at http://127.0.0.1:8700; Ctrl-C stops it
station: $(READY)
	$(BIN)/supersimplenet demo --output demo --station

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

docs: $(READY)
	rm -rf site
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -E -d $(VENV)/doctrees docs site
	@echo "read it: site/index.html"

# Each in an empty folder; the outputs are stored, progress and times are not
notebooks: $(READY)
	$(BIN)/python notebooks/execute.py

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --minutes 30 --processes 2

fuzz-check: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --coverage --inputs 400
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz_faults.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Types as on other systems: what only one of them has must stand behind a check of the platform
platforms: $(READY)
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin

benchmark: $(READY)
	$(BIN)/supersimplenet benchmark speed --backbone compact --batch_size 16 --training true --compare plain --rounds 5
	$(BIN)/supersimplenet benchmark speed --backbone wide_resnet50_2 --batch_size 8 --training true --compare plain --rounds 3

gpu: $(READY)
	$(BIN)/python experiments/gpu.py --output gpu

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

matrix: dist
	$(BIN)/python experiments/install_matrix.py --wheel dist/*.whl --output matrix

clean:
	rm -rf $(VENV) demo dist matrix site

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
