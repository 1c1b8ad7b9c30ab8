# Two commands for a stranger: `make demo` and `make test`. The others are for people who change the code.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint types docs format clean

demo: $(VENV)/.demo
	$(BIN)/crosslens demo

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo

# mypy knows a package by the name of its folder: the link gives the repository root that name.
types: $(VENV)/.test $(VENV)/.docs
	mkdir -p $(VENV)/types && ln -sfn "$(CURDIR)" $(VENV)/types/crosslens
	cd $(VENV)/types && ../bin/mypy --config-file crosslens/pyproject.toml -p crosslens

# Writes the tables of docs/measured/ into the pages, then builds the site; nothing is fetched.
docs: $(VENV)/.docs
	$(BIN)/python benchmarks/measurements.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "the documentation: site/index.html"

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[offline]'
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[offline,dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build site crosslens.egg-info
