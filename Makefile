# Two commands do all the set-up on a fresh machine: `make quickstart` runs the main job, `make test` the tests.
PYTHON ?= python3
BIN := .venv/bin
REQUIREMENTS := requirements.txt tests/requirements.txt recipes/quickstart/requirements.txt
OUTPUT := outputs/quickstart-qa

.PHONY: install quickstart results test quality style

install: .venv/installed

.venv/installed: $(REQUIREMENTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt -r tests/requirements.txt
	$(BIN)/pip install --quiet --no-deps -r recipes/quickstart/requirements.txt
	touch $@

quickstart: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(BIN)/accelerate launch --config_file recipes/accelerate/cpu.yaml run_qa_sft.py recipes/quickstart/qa.yaml --output_dir $(OUTPUT)
	$(BIN)/python -m utils.quickstart --show $(OUTPUT)

results: quickstart  # the numbers in the README
	mkdir -p benchmarks/results
	cp $(OUTPUT)/all_results.json benchmarks/results/quickstart_qa.json

test: .venv/installed
	$(BIN)/python -m pytest

quality: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
