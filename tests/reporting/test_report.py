import csv
import json
import math
import re

import numpy as np
import pytest
import yaml
from matplotlib.image import imread
from transformers import BitsAndBytesConfig

from utils.evaluation.class_analysis import ERROR_ADVICE as CLASS_ADVICE
from utils.evaluation.class_analysis import analyse_classes, class_files
from utils.evaluation.error_analysis import ERROR_ADVICE
from utils.evaluation.outputs import write_results
from utils.json_files import write_json
from utils.reporting import class_report
from utils.reporting.card import _without_empty_sections
from utils.reporting.headline import summary
from utils.reporting.metric_names import BASELINES, METRICS, baselines_line
from utils.reporting.plots import plot_metrics
from utils.reporting.report import write_report
from utils.reporting.tables import data_tables, differences_table, precision, results_table, training_lines

RESULTS = {
    "test_rougeL": 0.34125, "test_rougeL_ci95": [0.33014, 0.35249], "test_perplexity": 12.94, "test_loss": 2.5604,
    "test_runtime": 31.4, "test_rows": 800, "base_test_rougeL": 0.1123, "base_test_perplexity": 30.3,
    "baseline_nearest_question_test_rougeL": 0.335, "delta_base_test_rougeL": 0.22895,
    "delta_base_test_rougeL_ci95": [0.2171, 0.2402], "delta_base_test_rougeL_p": 0.0002,
    "delta_baseline_nearest_question_test_rougeL": 0.00625,
    "delta_baseline_nearest_question_test_rougeL_ci95": [-0.004, 0.0163],
    "data_rows_read": 16000, "data_dropped_missing": 12, "train_rows": 12000, "train_sha256": "ab" * 32,
    "errors_cut_off": 14, "errors_verbose": 120, "trainable_parameters": 916264, "total_parameters": 135000000,
}  # fmt: skip


def test_table_has_one_row_a_metric_with_rounded_values_and_intervals():
    rows = results_table(RESULTS).split("\n")
    assert rows[0] == "| metric | better | fine-tuned | base model | nearest question |"
    assert "| ROUGE-L | higher | 0.341 [0.330, 0.352] | 0.112 | 0.335 |" in rows
    assert "| perplexity | lower | 12.9 | 30.3 | - |" in rows
    assert len(rows) == 2 + 3  # runtime and rows are no metrics


def test_known_baselines_are_explained_and_others_are_not():
    line = f"nearest question: {BASELINES['nearest_question']}."
    assert baselines_line(RESULTS | {"baseline_new_test_accuracy": 0.1}) == line
    assert baselines_line({"test_accuracy": 0.2, "baseline_new_test_accuracy": 0.1}) == ""


def test_multiple_choice_has_labels_directions_and_mcnemar():
    metrics = ("accuracy", "accuracy_norm", "flip_rate", "generated_accuracy", "parse_failure")
    results = {f"test_{metric}": 0.5 for metric in metrics} | {"mcnemar_test_accuracy_p": 0.0312}
    rows = [row.split(" | ")[:2] for row in results_table(results).split("\n")[2:]]
    assert {name.removeprefix("| "): better for name, better in rows} == dict(METRICS[metric] for metric in metrics)
    assert [METRICS[metric][1] for metric in metrics] == ["higher", "higher", "lower", "higher", "lower"]
    results |= {f"base_test_{metric}": 0.4 for metric in metrics}
    assert differences_table(results).endswith("| accuracy, McNemar's test | p = 0.031 |")


def test_differences_have_a_row_a_metric_and_a_column_a_system():
    results = RESULTS | {"delta_base_test_loss": -1.5, "delta_base_test_length_ratio": 0.5}
    results |= {"base_test_loss": 4.0, "mcnemar_baseline_nearest_question_test_accuracy_p": 0.00012}
    assert differences_table(results).split("\n") == [
        "| fine-tuned minus | base model | nearest question |",
        "|---|---|---|",
        "| ROUGE-L | +0.229 [+0.217, +0.240] p < 0.001 | +0.006 [-0.004, +0.016] |",
        "| loss | -1.500 | - |",  # of the length ratio neither more nor less is better
        "| accuracy, McNemar's test | - | p < 0.001 |",
    ]
    assert differences_table({"test_rougeL": 0.3, "base_test_rougeL": 0.1}) == ""


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        (
            {
                "load_in_4bit": True,
                "_load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True,
                "bnb_4bit_compute_dtype": "bfloat16",
            },
            "4-bit nf4 with double quantization, computing in bfloat16",
        ),
        ({"load_in_4bit": True}, "4-bit fp4, computing in float32"),
        ({"load_in_8bit": True}, "8-bit"),
        (None, "none (bfloat16)"),
    ],
)
def test_quantization_is_told_in_words(quantization, words):
    task = {"base_model": "lab/base", "quantization": quantization, "dtype": "bfloat16"}
    assert precision(task) == words and f"- Quantization: {words}" in training_lines(task, {})


def test_quantization_reads_what_the_library_writes():
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16")
    words = "4-bit fp4 with double quantization, computing in bfloat16"
    assert precision({"quantization": json.loads(json.dumps(config.to_diff_dict()))}) == words
    config = BitsAndBytesConfig(load_in_8bit=True)
    assert precision({"quantization": json.loads(json.dumps(config.to_diff_dict()))}) == "8-bit"


def test_only_a_hub_model_has_a_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = {"base_model": "lab/base", "base_model_revision": "abc"}
    assert "- Revision: abc" in training_lines(task, {})
    (tmp_path / "lab/base").mkdir(parents=True)
    assert "Revision" not in training_lines(task, {})
    assert "Revision" not in training_lines(task | {"base_model": "/models/base"}, {})


def test_counts_of_rows_are_data_and_no_metrics():
    counts = {"data_test_cut_prompts": 0, "data_test_cut_answers": 2, "data_train_dropped_too_long": 3}
    results = RESULTS | counts
    assert results_table(results) == results_table(RESULTS)
    for row in ("| test cut prompts | 0 |", "| test cut answers | 2 |", "| train dropped too long | 3 |"):
        assert row in data_tables(results)
    assert "| test cut prompts |" not in data_tables(results, zeros=False)
    assert "| test cut answers | 2 |" in data_tables(results, zeros=False)
    results["data_train_unknown_characters"] = "< |"
    assert "| train unknown characters | < \\| |" in data_tables(results)


def test_plot_has_a_panel_per_headline_metric_and_marks_one_baseline(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "utils.reporting.plots.Figure.savefig",
        lambda figure, *_, **__: drawn.append([[t.get_text() for t in a.get_yticklabels()] for a in figure.axes]),
    )
    systems = ("test_", "base_test_", "baseline_copy_test_", "baseline_lead_test_")
    metrics = ["rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "finished", "loss", "perplexity"]
    results = {f"{p}{metric}": 0.5 + 0.1 * i for metric in metrics for i, p in enumerate(systems)}
    assert plot_metrics(results, tmp_path)
    assert len(drawn[0]) == 2 and drawn[0][0] == drawn[0][1] and len(drawn[0][0]) == len(systems)
    assert [("best" in name, "lead" in name) for name in drawn[0][0]].count((True, True)) == 1
    assert sum("best" in name for name in drawn[0][0]) == 1
    assert not plot_metrics({"test_rows": 3}, tmp_path)


def test_summary_claims_a_difference_only_where_the_interval_excludes_zero():
    text = summary(RESULTS)
    assert "better than the base model at 0.112 (difference +0.229 [+0.217, +0.240])" in text
    assert "not clearly different from the best baseline, nearest question, at 0.335" in text
    assert "from 30.3 to 12.9 (-57.3%)" in text
    worse = {"test_loss": 3.0, "base_test_loss": 2.0, "delta_base_test_loss": 1.0, "delta_base_test_loss_p": 0.01}
    assert "worse than the base model" in summary(worse)
    few = summary(worse | {"delta_base_test_loss_p": None, "test_clusters": 3})
    assert "oo few clusters" in few and "(3)" in few and "worse" not in few and "better" not in few and "[" not in few
    assert "not tested" in summary({"test_loss": 3.0, "base_test_loss": 2.0})


def test_report_shows_data_errors_with_shares_and_advice(tmp_path):
    write_json(tmp_path / "all_results.json", RESULTS)
    write_json(tmp_path / "task.json", {"task": "qa", "command": "accelerate launch run_qa_sft.py r.yaml"})
    text = write_report(tmp_path).read_text()
    assert f"| cut off | 14 | 1.8% | {ERROR_ADVICE['cut_off']} |" in text
    assert text.index("| verbose | 120") < text.index("| cut off | 14")
    assert "| dropped missing | 12 |" in text and "`abababababab`" in text
    assert "916,264 of 135,000,000 (0.68%)" in text and "accelerate launch run_qa_sft.py r.yaml" in text


@pytest.mark.parametrize("dropped", [*RESULTS, None])
def test_any_key_may_be_absent(tmp_path, dropped):
    results = {key: value for key, value in RESULTS.items() if key != dropped and dropped is not None}
    write_json(
        tmp_path / "all_results.json", {k: v for k, v in results.items() if "test_" not in k or dropped is None}
    )
    assert summary(results) and write_report(tmp_path).is_file()


@pytest.mark.parametrize("count", [1, 8])
def test_plots_are_images_that_show_something(tmp_path, count):
    metrics = ["accuracy", "macro_f1", "weighted_f1", "path_accuracy", "ece", "brier", "omission", "hallucination"][
        :count
    ]
    results = {f"{p}{m}": 0.5 for m in metrics for p in ("test_", f"baseline_{'long_name_' * 8}test_")}
    write_json(tmp_path / "all_results.json", results | {f"test_{metrics[0]}_ci95": [0.4, 0.6]})
    history = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}, {"step": 20, "eval_loss": 1.5}]
    write_json(tmp_path / "trainer_state.json", {"log_history": history})
    write_report(tmp_path)
    for name in ("baseline_comparison.png", "loss.png"):
        pixels = imread(tmp_path / "plots" / name)
        assert 200 < pixels.shape[0] < 4000 and 800 < pixels.shape[1] < 2000
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


def test_comparison_has_a_row_a_system_and_the_unrounded_metrics(tmp_path):
    write_json(tmp_path / "all_results.json", RESULTS)
    write_report(tmp_path)
    with (tmp_path / "baseline_comparison.csv").open(newline="") as stream:
        rows = {row["system"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["fine-tuned", "base model", "nearest question"]
    ends = [f"{metric}{end}" for metric in ("rougeL", "loss", "perplexity") for end in ("", "_low", "_high")]
    assert list(rows["base model"]) == ["system", *ends]
    assert rows["fine-tuned"]["rougeL"] == "0.34125" and rows["fine-tuned"]["rougeL_low"] == "0.33014"
    assert rows["base model"]["rougeL_high"] == "" and rows["nearest question"]["perplexity"] == ""


def test_only_a_run_with_an_analysis_has_sections_and_plots_about_classes(tmp_path):
    write_json(tmp_path / "all_results.json", RESULTS)
    before = write_report(tmp_path).read_text()
    rows = np.arange(40)
    references, predictions = rows % 16, np.where(rows < 20, rows % 16, 1)
    analysis = analyse_classes(
        references, predictions, np.full((40, 16), 0.5), [f"class {i}" for i in range(16)],
        np.bincount(references), rows + 5, np.arange(40),
    )  # fmt: skip
    analysis["abstention"] = {"max_risk": 0.05, "threshold": 0.75, "coverage": 0.5, "risk": 0.1}
    write_results(tmp_path, {}, RESULTS | {"errors_other": 8}, class_files(analysis | {"temperature": 1.5}, ""))
    text = class_report.write_report(tmp_path).read_text()
    sections = ("Classes", "Most confused", "Calibration and abstention", "Length and training rows")
    assert [f"## {name}\n" in text for name in sections] == [True] * 4
    assert not any(f"## {name}" in before for name in sections)
    assert f"| other | 8 | 1.0% | {CLASS_ADVICE['other']} |" in text
    # of the rows of class 4 one is right, two are taken for class 1: F1 is 2 * 1 / (1 + 3)
    assert "| class 4 | 3 | 3 | 1.000 | 0.333 | 0.500 |" in text
    assert "| class 4 | class 1 | 2 | 66.7% | 0.500 |" in text
    assert "temperature 1.500" in text
    assert "confidence is 0.750 or more. On the test rows its coverage is 50.0% and its selective risk 10.0%" in text
    drawn = {"confusion_matrix", "confusion_matrix_all", "error_by_length", "error_by_training_rows"}
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == drawn | {"baseline_comparison"}
    assert all(f"](plots/{name}.png)" in text for name in drawn)
    assert all(f"`{name}`" in text for name in ("analysis.json", "per_class.csv", "classification_report.txt"))


def test_only_a_run_on_a_tree_has_its_section_and_plots(tmp_path):
    write_json(tmp_path / "all_results.json", RESULTS)
    weights, leaves = np.arange(8), np.array([0, 0, 0, 1, 1, 2, 2, 2])
    predictions = np.array([0, 0, 1, 1, 0, 1, 1, 2])  # 2 is a parent of its own: twice taken for 1
    levels = [
        analyse_classes(r, p, np.full((8, len(names)), 0.5), names, np.bincount(r), np.arange(8) + 5, weights)
        for r, p, names in ((leaves // 2, predictions // 2, ["A", "B"]), (leaves, predictions, ["a", "b", "B"]))
    ]
    write_results(tmp_path, {}, RESULTS, class_files(levels[1], ""))
    assert "## Tree" not in class_report.write_report(tmp_path).read_text()
    assert not (tmp_path / "plots" / "tree.png").exists()
    tree = {
        "tree": {"levels": [["A", "B"], ["a", "b", "B"]], "parents": [[0, 0, 1]]},
        "level_names": ["parent", "child"],
    }
    analysis = levels[1] | tree | {"levels": levels[:1], "temperature": 1.5}
    write_results(tmp_path, {}, RESULTS, class_files(analysis, ""))
    text = class_report.write_report(tmp_path).read_text()
    rows = [line for line in text.split("## Tree\n")[1].split("## Classes\n")[0].splitlines() if line[:1] == "|"]
    assert rows[0] == "| parent | test rows | recall | F1 | child with the most errors |" and len(rows) == 4
    # B: 1 of 3 found, F1 2 * 1 / (1 + 3); A: 5 of 5 and 2 more, F1 2 * 5 / (7 + 5); one of 3 a and one of 2 b is wrong
    assert rows[2].startswith("| B | 3 | 0.333 | 0.500 |") and rows[2].endswith("| - |")
    assert rows[3].startswith("| A | 5 | 1.000 | 0.833 |") and rows[3].endswith("| a (1 of 3) |")
    for name in ("tree", "confusion_matrix_parent", "confusion_matrix"):
        assert f"](plots/{name}.png)" in text and imread(tmp_path / "plots" / f"{name}.png").std() > 0.01


def test_only_a_level_below_another_can_stop_above():
    level = {"abstention": {"max_risk": 0.05, "threshold": 0.75, "coverage": 0.5, "risk": 0.1}}
    first, second = (class_report.abstention_sentence(level, is_root_level=is_root) for is_root in (True, False))
    assert "higher level" in second and "higher level" not in first
    assert class_report.abstention_sentence({}, is_root_level=True) == ""
    few = {"abstention": {"max_risk": 0.05, "threshold": None, "rows": 5}}
    assert "needs at least 97 validation rows" in class_report.abstention_sentence(few, True)
    many = {"abstention": {"max_risk": 0.05, "threshold": None, "rows": 500}}
    assert "No confidence threshold keeps" in class_report.abstention_sentence(many, True)


def test_json_is_whole_ordered_and_finite(tmp_path, monkeypatch):
    path = tmp_path / "all_results.json"
    write_json(path, {"z": 1 / 3, "a": math.nan, "list": [math.inf, 1]})
    assert json.loads(path.read_text()) == {"z": 1 / 3, "a": None, "list": [None, 1]}
    assert list(json.loads(path.read_text())) == ["z", "a", "list"]
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"new": 1})
    assert "new" not in path.read_text()


def test_a_card_has_its_recipe_as_it_was_given():
    recipe = yaml.safe_dump({"text_template": "Name the term.\n\n\n{text}", "seed": 1})
    text = f"# A\n\n\n\nText\n\n## Empty\n\n## B\n\n```yaml\n{recipe}```\n\n\n\nEnd\n"
    found = _without_empty_sections(text)
    assert yaml.safe_load(re.search(r"```yaml\n(.*?)```", found, re.DOTALL)[1]) == yaml.safe_load(recipe)
    assert "## Empty" not in found and "\n\n\n" not in found.replace(recipe, "")
