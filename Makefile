# Two commands do all the set-up on a fresh machine: `make quickstart` runs the main job, `make test` the tests.
PYTHON ?= python3
BIN := .venv/bin
REQUIREMENTS := requirements.txt tests/requirements.txt recipes/quickstart/requirements.txt
LAUNCH := $(BIN)/accelerate launch --config_file recipes/accelerate/cpu.yaml

.PHONY: install quickstart quickstart-classification quickstart-hierarchical quickstart-summarization quickstart-sweep \
	results readme test quality style

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
	$(LAUNCH) run_qa_sft.py recipes/quickstart/qa.yaml --output_dir outputs/quickstart-qa
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-qa

quickstart-classification: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_classification.py recipes/quickstart/classification.yaml --output_dir outputs/quickstart-classification
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-classification

quickstart-hierarchical: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_hierarchical.py recipes/quickstart/hierarchical.yaml --output_dir outputs/quickstart-hierarchical
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-hierarchical

quickstart-summarization: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_summarization.py recipes/quickstart/summarization.yaml --output_dir outputs/quickstart-summarization
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-summarization

quickstart-sweep: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(BIN)/python sweep.py recipes/sweeps/quickstart.yaml

results: quickstart quickstart-classification quickstart-hierarchical quickstart-summarization \
		quickstart-sweep  # the numbers in the README
	mkdir -p benchmarks/results
	cp outputs/quickstart-qa/all_results.json benchmarks/results/quickstart_qa.json
	cp outputs/quickstart-classification/all_results.json benchmarks/results/quickstart_classification.json
	cp outputs/quickstart-hierarchical/all_results.json benchmarks/results/quickstart_hierarchical.json
	cp outputs/quickstart-summarization/all_results.json benchmarks/results/quickstart_summarization.json
	cp outputs/sweep-quickstart/all_results.json benchmarks/results/quickstart_sweep.json

readme: .venv/installed  # the tables in README.md and docs/, from benchmarks/results/
	$(BIN)/python -m benchmarks.readme

test: .venv/installed
	$(BIN)/python -m pytest

quality: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
