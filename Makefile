# Two commands do all the set-up on a fresh machine: `make quickstart` runs the main job, `make test` the tests.
# `make help` lists the others.
PYTHON ?= python3
BIN := .venv/bin
# uv where it is on the PATH, which does not read pip's configuration; `make INSTALL='.venv/bin/pip install'` overrides.
# With UV_TORCH_BACKEND=cpu in the environment uv takes the build of torch that has no CUDA.
INSTALL ?= $(if $(shell command -v uv 2>/dev/null),uv pip install --python $(BIN)/python,$(BIN)/pip install --quiet)
# the number of threads is given, so that accelerate does not guess it and print advice
LAUNCH := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$$(getconf _NPROCESSORS_ONLN)} $(BIN)/accelerate launch --quiet \
	--config_file recipes/accelerate/cpu.yaml
QUICKSTART := recipes/quickstart/requirements.txt

.PHONY: help docs install install-app install-export install-sweeps install-trackers install-privacy install-dev \
	quickstart quickstart-classification quickstart-multilabel quickstart-hierarchical quickstart-summarization \
	quickstart-summarization-decoder quickstart-sweep \
	safety-classifier results benchmark readme test faults audit wheelhouse quality style

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-26s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ----- Packages: a file .venv/installed* marks what is there, so that a second call does nothing
install: .venv/installed  ## what training, predict.py and the quickstarts need
install-app:  ## and what app.py needs
install-export:  ## and what export.py needs for ONNX Runtime
install-sweeps:  ## and what sweep.py needs
install-trackers:  ## and wandb, trackio, tensorboard
install-privacy:  ## and what the search for names of persons needs
install-dev:  ## all of these, and the tests
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
quickstart: .venv/installed  ## fine-tune a small language model on real data, evaluate it, show answers (25 minutes)
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_qa_sft.py recipes/quickstart/qa.yaml --output_dir outputs/quickstart-qa
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-qa

quickstart-classification: .venv/installed  ## the same with a classifier
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_classification.py recipes/quickstart/classification.yaml --output_dir outputs/quickstart-classification
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-classification

quickstart-multilabel: .venv/installed  ## the same with several labels per text
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_classification.py recipes/quickstart/multilabel.yaml --output_dir outputs/quickstart-multilabel
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-multilabel

quickstart-hierarchical: .venv/installed  ## the same with classes in a tree
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_hierarchical.py recipes/quickstart/hierarchical.yaml --output_dir outputs/quickstart-hierarchical
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-hierarchical

quickstart-summarization: .venv/installed  ## the same with summaries
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_summarization.py recipes/quickstart/summarization.yaml --output_dir outputs/quickstart-summarization
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-summarization

safety-classifier: .venv/installed  ## the second stage of the safety checks, in outputs/safety
	$(BIN)/python -m utils.quickstart
	$(BIN)/python -m benchmarks.safety_classifier --output_dir outputs/safety

quickstart-summarization-decoder: .venv/installed  ## the same rows with a decoder, and the difference between both
	$(BIN)/python -m utils.quickstart
	$(LAUNCH) run_summarization.py recipes/quickstart/summarization_decoder.yaml \
		--output_dir outputs/quickstart-summarization-decoder
	$(BIN)/python -m utils.quickstart --show outputs/quickstart-summarization-decoder

quickstart-sweep: .venv/installed-sweeps  ## several learning rates and seeds, one table
	$(BIN)/python -m utils.quickstart
	$(BIN)/python sweep.py recipes/sweeps/quickstart.yaml

results: quickstart quickstart-classification quickstart-multilabel quickstart-hierarchical \
		quickstart-summarization quickstart-summarization-decoder quickstart-sweep  # the numbers in the README
	mkdir -p benchmarks/results
	cp outputs/quickstart-qa/all_results.json benchmarks/results/quickstart_qa.json
	cp outputs/quickstart-classification/all_results.json benchmarks/results/quickstart_classification.json
	cp outputs/quickstart-multilabel/all_results.json benchmarks/results/quickstart_multilabel.json
	cp outputs/quickstart-hierarchical/all_results.json benchmarks/results/quickstart_hierarchical.json
	cp outputs/quickstart-summarization/all_results.json benchmarks/results/quickstart_summarization.json
	cp outputs/quickstart-summarization-decoder/all_results.json benchmarks/results/quickstart_summarization_decoder.json
	$(BIN)/python sweep.py --compare outputs/quickstart-summarization outputs/quickstart-summarization-decoder \
		--output_dir outputs/decoder-against-encoder
	cp outputs/decoder-against-encoder/comparison.json benchmarks/results/decoder_against_encoder.json
	cp outputs/sweep-quickstart/all_results.json benchmarks/results/quickstart_sweep.json

benchmark: .venv/installed-dev  ## each script against what a user would run instead; two hours, nothing else running
	$(BIN)/python -m utils.quickstart
	$(BIN)/python -m benchmarks.qa_speed
	$(BIN)/python -m benchmarks.classification_speed
	$(BIN)/python -m benchmarks.summarization_speed
	$(BIN)/python -m benchmarks.shared_machine
	$(BIN)/python -m benchmarks.data_speed --rows 10000 100000 1000000
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.readme

docs: .venv/installed-dev  ## the pages of docs/ as a site, in site/
	$(BIN)/mkdocs build --strict

readme: .venv/installed  ## the tables in README.md and docs/, from benchmarks/results/
	$(BIN)/python -m benchmarks.readme

test: .venv/installed-dev  ## the tests, one process per processor
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder  # a file's tests share its runs

faults: .venv/installed-dev  ## hundreds of kills, full disks and failures of the Hub: benchmarks/results/faults.json
	$(BIN)/python -m pytest -m faults tests/faults -q

audit: .venv/installed-dev  ## known weaknesses of the pinned packages; needs the network, and fails without an answer
	$(BIN)/pip-audit --strict -r requirements.txt $(addprefix -r ,$(wildcard requirements/*.txt))

# All that a machine without a network needs. There, with this folder:
#   PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheelhouse make install INSTALL='.venv/bin/pip install'
wheelhouse: $(BIN)/python  ## all packages as files, for a machine without a network
	$(BIN)/pip wheel --wheel-dir wheelhouse pip setuptools -r requirements.txt -r tests/requirements.txt \
		$(addprefix -r ,$(wildcard requirements/*.txt))
	$(BIN)/pip wheel --wheel-dir wheelhouse --no-deps -r $(QUICKSTART)

quality: .venv/installed-dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: .venv/installed-dev  ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
