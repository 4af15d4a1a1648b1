"""The keys that a sweep gives every run: `evaluate_test: false` ends on validation, `split_seed` fixes the split."""

import json
import re
from pathlib import Path

import pytest
from conftest import Run, flags, run_here, toy_notes, write_rows

import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.arguments import DataArguments
from utils.data.columns import Columns
from utils.data.load import load_splits
from utils.sweeps.plan import EVAL_METRICS
from utils.sweeps.running import read_history

SHORT = {
    "use_cpu": True, "use_peft": True, "lora_r": 4, "lora_alpha": 8, "max_steps": 4, "per_device_train_batch_size": 8,
    "learning_rate": 1e-3, "save_steps": 2, "report_to": "none", "near_duplicate_threshold": 1.0,
    "max_eval_samples": 8, "max_predict_samples": 8,
}  # fmt: skip
ENCODER = SHORT | {"lora_target_modules": ["query", "value"], "max_length": 32, "text_column": "note"}
OF_THE_TEST = ("test_", "base_test_", "baseline_", "delta_")


@pytest.fixture
def tasks(data, tiny_bert, tiny_llama, tiny_t5, tmp_path) -> dict[str, tuple]:
    """Name of a task -> its script and the keys of a short run."""
    groups = {"cardiology": "organs", "urology": "organs", "allergy": "allergy"}
    rows = [row | {"group": groups[row["ward"]]} for row in toy_notes()]
    tree = {"train_file": write_rows(tmp_path / "tree.csv", rows), "parent_column": "group", "child_column": "ward"}
    qa = {"train_file": data.qa, "lora_target_modules": ["q_proj", "v_proj"], "max_new_tokens": 4, "bf16": False}
    written = {"text_column": "dialogue", "summary_column": "note", "max_source_length": 64, "max_new_tokens": 4}
    return {
        "classification": (
            run_classification, ENCODER | {"model_name_or_path": tiny_bert, "train_file": data.notes,
            "label_column": "ward", "ensemble": "linear"},
        ),
        "hierarchical": (run_hierarchical, ENCODER | {"model_name_or_path": tiny_bert, "ensemble": "linear"} | tree),
        "qa": (run_qa_sft, SHORT | {"model_name_or_path": tiny_llama, "max_length": 128} | qa),
        "summarization": (
            run_summarization, SHORT | {"model_name_or_path": tiny_t5, "train_file": data.dialogues,
            "lora_target_modules": ["q", "v"]} | written,
        ),
    }  # fmt: skip


def run_task(task: tuple, folder: Path, **values) -> Run:
    script, keys = task
    done = run_here(script.main, script.ARGUMENTS, flags(**keys | {"output_dir": folder} | values))
    assert done.code == 0, done.stderr
    return done


@pytest.mark.parametrize("name", ["classification", "hierarchical", "qa", "summarization"])
def test_a_run_that_ends_on_validation_is_evaluated_on_the_test_later_as_if_at_once(tasks, name, tmp_path):
    finished = run_task(tasks[name], tmp_path / "run", evaluate_test=False)
    before = finished.results
    assert before["train_peak_memory_gb"] > 0 and finished.task["task"] == name
    assert {key for key in before if key.startswith(OF_THE_TEST)} == {"test_rows", "test_sha256"}
    files = {path.name for path in finished.folder.rglob("*")}
    assert "recipe.yaml" in files and not files & {"report.md", "plots", "predictions_test.jsonl"}
    known = EVAL_METRICS[f"{tasks[name][0].__name__}.py"]  # what a sweep can be told to choose by
    written = {key.removeprefix("eval_") for key in before if key.startswith("eval_") and not key.endswith("_ci95")}
    assert [metric for metric in written if not re.fullmatch(known, metric)] == []
    modes = {path.stat().st_mode for path in finished.folder.glob("*.safetensors")}
    assert modes == {(finished.folder / "task.json").stat().st_mode}  # who may read the one may read the other
    weights = next(finished.folder.glob("adapter_model.safetensors")).read_bytes()

    later = run_task(tasks[name], tmp_path / "run", evaluate_test=True)
    assert next(later.folder.glob("adapter_model.safetensors")).read_bytes() == weights
    assert (later.folder / "report.md").is_file()
    validation = {key: value for key, value in before.items() if key.startswith("eval_")}
    assert validation == {key: later.results[key] for key in validation} and len(validation) >= 4

    at_once = run_task(tasks[name], tmp_path / "at_once")
    compared = [key for key in at_once.results if key.startswith(OF_THE_TEST)]
    assert len(compared) >= 20
    assert {key: later.results[key] for key in compared} == {key: at_once.results[key] for key in compared}


def test_a_run_that_stopped_early_is_not_trained_again(tasks, tmp_path):
    patience = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "max_steps": None}
    patience |= {"num_train_epochs": 9, "metric_for_best_model": "child_macro_f1", "early_stopping_patience": 1}
    patience |= {"learning_rate": 0.0, "save_steps": None}
    finished = run_task(tasks["hierarchical"], tmp_path / "run", evaluate_test=False, **patience)
    state = json.loads((finished.folder / "trainer_state.json").read_text())
    assert state["epoch"] == 2
    assert list(read_history(finished.folder, "eval_child_macro_f1")) == [
        state["global_step"] // 2,
        state["global_step"],
    ]
    later = run_task(tasks["hierarchical"], tmp_path / "run", **patience)
    assert json.loads((later.folder / "trainer_state.json").read_text())["global_step"] == state["global_step"]
    assert "test_path_accuracy" in later.results


def test_a_push_of_a_run_that_ends_on_validation_is_refused(tasks, tmp_path):
    script, keys = tasks["classification"]
    argv = flags(**keys, output_dir=tmp_path / "run", evaluate_test=False, push_to_hub=True)
    done = run_here(script.main, script.ARGUMENTS, argv)
    assert done.code == 2 and "error: `push_to_hub` needs test results" in done.stderr


def test_the_split_follows_split_seed_and_not_seed(data):
    def fingerprints(seed: int, split_seed: int | None) -> list[str]:
        args = DataArguments(train_file=str(data.notes), split_seed=split_seed, max_train_samples=50)
        report = load_splits(args, Columns("note", "ward", label="ward"), cluster_columns=["note"], seed=seed)[1]
        return [report[f"{split}_sha256"] for split in ("train", "validation", "test")]

    assert fingerprints(1, 5) == fingerprints(2, 5) == fingerprints(5, None)
    assert fingerprints(1, None) != fingerprints(2, None)
    assert fingerprints(1, 0) == fingerprints(0, None)  # 0 is a seed, not "none"
