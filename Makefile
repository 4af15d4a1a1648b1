# Two commands do all the set-up on a fresh machine: `make quickstart` runs the main job, `make test` the tests.
#
#   make install           train, predict, the quickstart      make install-sweeps    sweep.py
#   make install-app       app.py                              make install-trackers  wandb, trackio, tensorboard
#   make install-privacy   names of persons in data            make install-export    export.py to ONNX Runtime
#   make install-dev       all of these, and the tests
PYTHON ?= python3
BIN := .venv/bin
# uv where it is on the PATH, which does not read pip's configuration; `make INSTALL='.venv/bin/pip install'` overrides.
# With UV_TORCH_BACKEND=cpu in the environment uv takes the build of torch that has no CUDA.
INSTALL ?= $(if $(shell command -v uv 2>/dev/null),uv pip install --python $(BIN)/python,$(BIN)/pip install --quiet)
LAUNCH := $(BIN)/accelerate launch --quiet --config_file recipes/accelerate/cpu.yaml
QUICKSTART := recipes/quickstart/requirements.txt

.PHONY: install install-app install-export install-sweeps install-trackers install-privacy install-dev quickstart \
	quickstart-classification quickstart-multilabel quickstart-hierarchical quickstart-summarization quickstart-sweep \
	safety-classifier results readme test faults audit wheelhouse quality style

# ----- Packages: a file .venv/installed* marks what is there, so that a second call does nothing
install: .venv/installed
install-app install-export install-sweeps install-trackers install-privacy install-dev: install-%: .venv/installed-%

.venv/installed: requirements.txt $(QUICKSTART) | $(BIN)/python
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps -r $(QUICKSTART)
	touch $@

.venv/installed-%: requirements/%.txt .venv/installed
	$(INSTALL) -r requirements.txt -r $<
	touch $@

.venv/installed-dev: requirements/app.txt requirements/export.txt requirements/sweeps.txt requirements/trackers.txt requirements/privacy.txt \
		tests/requirements.txt .venv/installed
	$(INSTALL) -r requirements.txt $(addprefix -r ,$(filter %.txt,$^))
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip

# ----- Runs
quickstart: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_qa_sft.py recipes/quickstart/qa.yaml --output_dir outputs/quickstart-qa
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-qa

quickstart-classification: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_classification.py recipes/quickstart/classification.yaml --output_dir outputs/quickstart-classification
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-classification

quickstart-multilabel: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_classification.py recipes/quickstart/multilabel.yaml --output_dir outputs/quickstart-multilabel
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-multilabel

quickstart-hierarchical: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_hierarchical.py recipes/quickstart/hierarchical.yaml --output_dir outputs/quickstart-hierarchical
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-hierarchical

quickstart-summarization: .venv/installed
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_summarization.py recipes/quickstart/summarization.yaml --output_dir outputs/quickstart-summarization
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-summarization

safety-classifier: .venv/installed  # the second stage of the safety checks, in outputs/safety
	$(BIN)/python -m utils.quickstart
	$(BIN)/python -m benchmarks.safety_classifier --output_dir outputs/safety

quickstart-sweep: .venv/installed-sweeps
	$(BIN)/python -m utils.quickstart
	$(BIN)/python sweep.py recipes/sweeps/quickstart.yaml

results: quickstart quickstart-classification quickstart-multilabel quickstart-hierarchical \
		quickstart-summarization quickstart-sweep  # the numbers in the README
	mkdir -p benchmarks/results
	cp outputs/quickstart-qa/all_results.json benchmarks/results/quickstart_qa.json
	cp outputs/quickstart-classification/all_results.json benchmarks/results/quickstart_classification.json
	cp outputs/quickstart-multilabel/all_results.json benchmarks/results/quickstart_multilabel.json
	cp outputs/quickstart-hierarchical/all_results.json benchmarks/results/quickstart_hierarchical.json
	cp outputs/quickstart-summarization/all_results.json benchmarks/results/quickstart_summarization.json
	cp outputs/sweep-quickstart/all_results.json benchmarks/results/quickstart_sweep.json

readme: .venv/installed  # the tables in README.md and docs/, from benchmarks/results/
	$(BIN)/python -m benchmarks.readme

test: .venv/installed-dev  # one process per processor; a file's tests share its runs, so they stay together
	$(BIN)/python -m pytest -n auto --dist loadfile

faults: .venv/installed-dev  # hundreds of kills, full disks and failures of the Hub: benchmarks/results/faults.json
	$(BIN)/python -m pytest -m faults tests/faults -q

audit: .venv/installed-dev  # known weaknesses of the pinned packages; needs the network
	$(BIN)/pip-audit -r requirements.txt $(addprefix -r ,$(wildcard requirements/*.txt))

# All that a machine without a network needs. There, with this folder:
#   PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheelhouse make install INSTALL='.venv/bin/pip install'
wheelhouse: $(BIN)/python
	$(BIN)/pip wheel --wheel-dir wheelhouse pip setuptools -r requirements.txt -r tests/requirements.txt \
		$(addprefix -r ,$(wildcard requirements/*.txt))
	$(BIN)/pip wheel --wheel-dir wheelhouse --no-deps -r $(QUICKSTART)

quality: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
