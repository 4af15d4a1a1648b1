"""A gated repository is one line that says all that the Hub advises, before any data is read."""

import os
import subprocess
import sys

from conftest import ROOT
from huggingface_hub.errors import GatedRepoError

from tests.hub_server import serve_hub
from utils.hub import why_not_loaded

# One start of Python: each line tries one way to name a gated repository
CODE = """
import torch
from transformers import TrainingArguments
from trl import ModelConfig, SFTConfig
import run_classification, run_hierarchical, run_qa_sft, run_summarization
from utils.arguments import UserError, parse_recipe
from utils.inference import Predictor

common = ["--use_cpu", "--bf16", "false", "--report_to", "none", "--output_dir", "run", "--train_file", "nowhere.csv"]
def run(script, *argv):
    script.main(*parse_recipe(script.ARGUMENTS, [*common, *argv]))

base = ["--model_name_or_path", "org/gated"]
ways = {
    "qa": lambda: run(run_qa_sft, *base),
    "classification": lambda: run(run_classification, *base),
    "hierarchical": lambda: run(run_hierarchical, *base, "--parent_column", "a", "--child_column", "b"),
    "summarization": lambda: run(run_summarization, *base),
    "bertscore": lambda: run(run_summarization, "--model_name_or_path", MODEL, "--bertscore_model", "org/gated"),
    "predict": lambda: Predictor.from_pretrained("org/gated"),
}
for name, way in ways.items():
    try:
        way()
    except UserError as error:
        print(name, "|", " ".join(str(error).split()))
"""


def test_every_script_says_how_to_get_into_a_gated_repository_before_it_reads_data(tiny_t5, tmp_path):
    with serve_hub() as hub:
        hub.add_repo("org/gated", tiny_t5, gated=True)
        code = f"MODEL = {str(tiny_t5)!r}\n{CODE}"
        env = os.environ | hub.env(tmp_path / "home", token=None) | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240
        )
    found = dict(line.split(" | ", 1) for line in done.stdout.splitlines() if " | " in line)
    assert set(found) == {"qa", "classification", "hierarchical", "summarization", "bertscore", "predict"}, done.stderr
    for name, line in found.items():
        assert all(word in line for word in ("org/gated", "terms", "HF_TOKEN")), (name, line)
        assert "nowhere.csv" not in line


def test_the_message_of_another_failure_is_whole_and_without_advice_for_gates():
    assert why_not_loaded(OSError("It is not there.\nLook at https://hf.co/models.")) == (
        "It is not there. Look at https://hf.co/models"
    )
    gated = OSError("Not yours.")
    gated.__cause__ = GatedRepoError.__new__(GatedRepoError)
    assert "HF_TOKEN" in why_not_loaded(gated) and "HF_TOKEN" not in why_not_loaded(OSError("Not yours."))
    assert why_not_loaded(OSError()) == "OSError"
