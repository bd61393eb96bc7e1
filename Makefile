PYTHON ?= python3
VENV ?= .venv
SHARE ?= 1/1
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-slow test-all lint wheel figures constraints clean

demo: $(VENV)/.installed  ## margin the sample book and show the summary
	$(BIN)/gpumargin demo

test: $(VENV)/.installed  ## every test not marked slow
	$(PYTEST) -m "not slow and not gpu"

test-slow: $(VENV)/.installed  ## the long tests, or with SHARE=2/6 the second sixth of them
	$(PYTEST) -m "slow and not gpu" --share $(SHARE)

test-all: $(VENV)/.installed  ## every test that this machine can run
	$(PYTEST)

lint: $(VENV)/.installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/.installed  ## build, install in an empty environment, run the demo from another folder
	rm -rf dist $(VENV)-wheel
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .
	$(BIN)/python -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --require-hashes -r constraints.txt
	$(VENV)-wheel/bin/python -m pip install --quiet --no-deps dist/*.whl
	cd "$$(mktemp -d)" && "$(CURDIR)/$(VENV)-wheel/bin/gpumargin" demo

figures: $(VENV)/.installed  ## draw what README shows anew
	$(BIN)/python data/make_figures.py

constraints: $(VENV)/.installed  ## renew the pinned versions (needs uv)
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--python-version 3.11 --extra dev --upgrade pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) $(VENV)-wheel dist

$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {v.major}.{v.minor}; try make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
