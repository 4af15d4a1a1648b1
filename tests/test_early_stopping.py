"""`early_stopping_patience`: the same code and meaning in all scripts, and the same step after an interruption."""

import inspect
import json
import shutil
from types import SimpleNamespace

import pytest
from conftest import qa_flags, run_here
from datasets import Dataset
from transformers import EarlyStoppingCallback

import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.training import add_early_stopping

SCRIPTS = (run_classification, run_hierarchical, run_qa_sft, run_summarization)
# Nothing gets better where nothing changes: the first evaluation is the best one
FLAT = {
    "learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
    "metric_for_best_model": "loss", "max_eval_samples": 4, "max_predict_samples": 4, "max_steps": 9,
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_script_has_the_key_and_the_code(script):
    assert sum("early_stopping_patience" in arguments.__dataclass_fields__ for arguments in script.ARGUMENTS) == 1
    assert "add_early_stopping(trainer, " in inspect.getsource(script.main)


def steps_of(folder) -> int:
    return json.loads((folder / "trainer_state.json").read_text())["global_step"]


def test_a_run_stops_where_nothing_gets_better_and_so_does_one_that_was_interrupted(tiny_llama, data, tmp_path):
    values = FLAT | {"train_file": data.qa, "early_stopping_patience": 3}
    whole = run_here(run_qa_sft.main, run_qa_sft.ARGUMENTS, qa_flags(tiny_llama, tmp_path / "whole", **values))
    assert whole.code == 0, whole.stderr
    assert steps_of(whole.folder) == 4
    shutil.copytree(whole.folder / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    again = run_here(run_qa_sft.main, run_qa_sft.ARGUMENTS, qa_flags(tiny_llama, tmp_path / "again", **values))
    assert again.code == 0, again.stderr
    assert steps_of(again.folder) == 4


def test_a_classifier_stops_where_nothing_gets_better(tiny_bert, data, tmp_path):
    argv = qa_flags(
        tiny_bert, tmp_path / "run", **FLAT | {"metric_for_best_model": "accuracy"}, train_file=data.notes,
        text_column="note", label_column="ward", early_stopping_patience=2, lora_target_modules=["query"],
        max_length=32, gradient_checkpointing=None, max_new_tokens=None, question_column=None,
    )  # fmt: skip
    run = run_here(run_classification.main, run_classification.ARGUMENTS, argv)
    assert run.code == 0, run.stderr
    assert steps_of(run.folder) == 3


def trainer(**values) -> SimpleNamespace:
    """What `add_early_stopping` reads of a trainer: 100 rows in steps of 2 x 5 rows."""
    args = {
        "train_batch_size": 5, "world_size": 1, "gradient_accumulation_steps": 2, "max_steps": -1,
        "num_train_epochs": 3.0, "eval_strategy": "epoch", "eval_steps": None,
    }  # fmt: skip
    found: list[EarlyStoppingCallback] = []
    rows = Dataset.from_dict({"input_ids": [[0]] * 100})
    return SimpleNamespace(args=SimpleNamespace(**args | values), train_dataset=rows, add_callback=found.append,
                           found=found)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "patience", "evaluations"),
    [
        ({}, 2, None),
        ({}, 3, 3),
        ({"max_steps": 20}, 2, 2),
        ({"eval_strategy": "steps", "eval_steps": 4}, 6, None),
        ({"eval_strategy": "steps", "eval_steps": 4}, 7, 7),
        ({"eval_strategy": "steps", "eval_steps": 0.5}, 2, 2),
        ({"eval_strategy": "steps", "eval_steps": 500}, 1, 0),
    ],
)
def test_patience_that_outlasts_the_run_is_said_before_training(values, patience, evaluations, caplog):
    own = trainer(**values)
    add_early_stopping(own, patience, None)
    assert own.found[0].early_stopping_patience == patience
    assert ("`early_stopping_patience`" in caplog.text) == (evaluations is not None)
    assert evaluations is None or f"evaluates {evaluations} times" in caplog.text


def test_without_patience_nothing_is_added():
    own = trainer()
    add_early_stopping(own, None, None)
    assert own.found == []
