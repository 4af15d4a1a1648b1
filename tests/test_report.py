import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from utils.report import results_table, summary, write_json, write_report

RESULTS = {
    "test_rougeL": 0.34125, "test_rougeL_ci95": [0.33014, 0.35249], "test_perplexity": 12.94, "test_loss": 2.5604,
    "test_runtime": 31.4, "test_rows": 800, "base_test_rougeL": 0.1123, "base_test_perplexity": 30.3,
    "baseline_nearest_test_rougeL": 0.335, "delta_base_test_rougeL": 0.22895,
    "delta_base_test_rougeL_ci95": [0.2171, 0.2402], "delta_base_test_rougeL_p": 0.0002,
    "delta_baseline_nearest_test_rougeL": 0.00625, "delta_baseline_nearest_test_rougeL_ci95": [-0.004, 0.0163],
    "data_rows_read": 16000, "data_dropped_missing": 12, "train_rows": 12000, "train_sha256": "ab" * 32,
    "errors_cut_off": 14, "errors_verbose": 120, "trainable_parameters": 916264, "total_parameters": 135000000,
}  # fmt: skip


def test_table_has_one_row_a_metric_with_rounded_values_and_intervals():
    rows = results_table(RESULTS).split("\n")
    assert rows[0] == "| metric | better | fine-tuned | base model | nearest |"
    assert "| ROUGE-L | higher | 0.341 [0.330, 0.352] | 0.112 | 0.335 |" in rows
    assert "| perplexity | lower | 12.9 | 30.3 | - |" in rows
    assert len(rows) == 2 + 3  # runtime and rows are no metrics


def test_summary_claims_a_difference_only_where_the_interval_excludes_zero():
    text = summary(RESULTS)
    assert "better than the base model at 0.112 (difference +0.229 [+0.217, +0.240])" in text
    assert "not clearly different from the best baseline, nearest, at 0.335" in text
    assert "from 30.3 to 12.9 (-57.3%)" in text
    assert "worse than the base model" in summary({"test_loss": 3.0, "base_test_loss": 2.0})


def test_report_shows_data_errors_with_shares_and_advice(tmp_path):
    write_json(tmp_path / "all_results.json", RESULTS)
    write_json(tmp_path / "task.json", {"task": "qa", "command": "accelerate launch run_qa_sft.py r.yaml"})
    text = write_report(tmp_path, {"cut_off": "Raise `max_new_tokens`."}).read_text()
    assert "| cut off | 14 | 1.8% | Raise `max_new_tokens`. |" in text
    assert text.index("| verbose | 120") < text.index("| cut off | 14")
    assert "| dropped missing | 12 |" in text and "`abababababab`" in text
    assert "916,264 of 135,000,000 (0.68%)" in text and "accelerate launch run_qa_sft.py r.yaml" in text


@pytest.mark.parametrize("dropped", [*RESULTS, None])
def test_any_key_may_be_absent(tmp_path, dropped):
    results = {key: value for key, value in RESULTS.items() if key != dropped and dropped is not None}
    write_json(
        tmp_path / "all_results.json", {k: v for k, v in results.items() if "test_" not in k or dropped is None}
    )
    assert summary(results) and write_report(tmp_path, {}).is_file()


@pytest.mark.parametrize("count", [1, 8])
def test_plots_are_images_that_show_something(tmp_path, count):
    metrics = ["accuracy", "macro_f1", "weighted_f1", "path_accuracy", "ece", "brier", "omission", "invention"][:count]
    results = {f"{p}{m}": 0.5 for m in metrics for p in ("test_", f"baseline_{'long_name_' * 8}test_")}
    write_json(tmp_path / "all_results.json", results | {f"test_{metrics[0]}_ci95": [0.4, 0.6]})
    history = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}, {"step": 20, "eval_loss": 1.5}]
    write_json(tmp_path / "trainer_state.json", {"log_history": history})
    write_report(tmp_path, {})
    for name in ("metrics.png", "loss.png"):
        pixels = imread(tmp_path / "plots" / name)
        assert 200 < pixels.shape[0] < 4000 and 800 < pixels.shape[1] < 2000
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


def test_json_is_whole_ordered_and_finite(tmp_path, monkeypatch):
    path = tmp_path / "all_results.json"
    write_json(path, {"z": 1 / 3, "a": math.nan, "list": [math.inf, 1]})
    assert json.loads(path.read_text()) == {"z": 1 / 3, "a": None, "list": [None, 1]}
    assert list(json.loads(path.read_text())) == ["z", "a", "list"]
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"new": 1})
    assert "new" not in path.read_text()
