"""`run_hierarchical.py` from recipe to report on a tiny encoder: its files, its numbers, its ways to go wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import (
    PARENT,
    ROOT,
    Run,
    assert_remade,
    flags,
    read_jsonl,
    run_here,
    run_predict,
    run_script,
    toy_notes,
    tree_rows,
    write_rows,
    write_yaml,
)
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification

from run_hierarchical import ARGUMENTS, main
from utils.hierarchy import LabelTree
from utils.inference import Predictor

TREE = {"levels": [["allergy", "organs"], ["allergy", "cardiology", "urology"]], "parents": [[0, 1, 1]]}


@pytest.fixture(scope="module")
def notes(data):
    return data.tree


def tree_flags(model, output_dir, **values) -> list[str]:
    """The flags of a short run on one CPU; `values` come on top."""
    defaults = {
        "model_name_or_path": model, "output_dir": output_dir, "use_cpu": True, "use_peft": True, "lora_r": 4,
        "lora_alpha": 8, "lora_target_modules": ["query", "value"], "max_length": 32, "max_steps": 2,
        "per_device_train_batch_size": 8, "learning_rate": 1e-3, "save_strategy": "no", "report_to": "none",
        "text_column": "note", "parent_column": "group", "child_column": "ward", "near_duplicate_threshold": 1.0,
    }  # fmt: skip
    return flags(**defaults | values)


def classify(model, folder, **values) -> Run:
    """Run the script in this process; a run that fails fails the test."""
    done = run_here(main, ARGUMENTS, tree_flags(model, folder, **values))
    assert done.code == 0, done.stderr
    return done


def refused(model, folder, **values) -> str:
    done = run_here(main, ARGUMENTS, tree_flags(model, folder, **values))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1, done.stderr
    return errors[0]


def history(run: Run) -> list[dict]:
    return json.loads((run.folder / "trainer_state.json").read_text())["log_history"]


def answers_of(run: Run, **how) -> list[dict]:
    return Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions], **how)


def assert_served_as_evaluated(run: Run, tolerance: float) -> None:
    answers, rows = answers_of(run), run.predictions
    confidence = [answer["confidence"][-1] for answer in answers]
    assert confidence == pytest.approx([row["confidence"] for row in rows], abs=tolerance)


@pytest.fixture(scope="module")
def tree_run(launcher, tiny_bert, notes, tmp_path_factory) -> Run:
    """A run with LoRA that learns the wards, from a recipe and one flag, as a user starts it."""
    folder = tmp_path_factory.mktemp("hierarchical")
    recipe = {
        "model_name_or_path": str(tiny_bert), "use_peft": True, "lora_r": 4, "lora_alpha": 8,
        "lora_target_modules": ["query", "value"], "pooling": "mean", "train_file": str(notes),
        "text_column": "note", "parent_column": "group", "child_column": "ward", "validation_fraction": 0.2,
        "test_fraction": 0.2, "near_duplicate_threshold": 1.0, "max_length": 32, "num_train_epochs": 1,
        "per_device_train_batch_size": 8, "learning_rate": 0.001, "head_learning_rate": 0.05, "dropout": 0.0,
        "use_cpu": True, "train_sampling_strategy": "group_by_length", "report_to": "none", "logging_steps": 10,
        "eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True,
        "metric_for_best_model": "child_macro_f1", "focal_gamma": 1.0, "class_imbalance": "class_balanced",
        "ensemble": "linear", "max_risk": 0.3, "output_dir": str(folder / "run"),
    }  # fmt: skip
    argv = [str(write_yaml(folder / "recipe.yaml", recipe)), "--num_train_epochs", "6"]
    done = run_script(launcher, "run_hierarchical.py", [*argv, "--output_dir", str(folder / "run")])
    assert done.code == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def plain(tiny_bert, notes, tmp_path_factory) -> Run:
    """Two steps of cross-entropy without dropout, texts in chunks."""
    return classify(tiny_bert, tmp_path_factory.mktemp("plain") / "run", train_file=notes, **STEADY)


STEADY = {"logging_steps": 1, "dropout": 0.0, "lora_dropout": 0.0, "long_texts": "chunks", "max_length": 16}


# ----- What a run writes


def test_a_run_writes_every_file(tree_run):
    plots = {
        "loss", "baseline_comparison", "confusion_matrix", "confusion_matrix_parent", "tree", "reliability",
        "reliability_parent", "error_by_length", "error_by_training_rows",
    }  # fmt: skip
    files = {
        "adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "task.json", "recipe.yaml",
        "all_results.json", "report.md", "README.md", "analysis.json", "per_class.csv", "baseline_comparison.csv",
        "classification_report.txt", "linear.safetensors", "_private/predictions_test.jsonl",
        "_private/error_examples.csv", *(f"plots/{name}.png" for name in plots),
    }  # fmt: skip
    assert {name for name in files if not (tree_run.folder / name).is_file()} == set()
    report = (tree_run.folder / "report.md").read_text()
    assert "\n## Tree\n\n![tree](plots/tree.png)\n" in report and "plots/confusion_matrix_parent.png" in report


def test_the_numbers_are_those_of_the_predictions(tree_run):
    rows, results = tree_run.predictions, tree_run.results
    for prefix, key in (("test", "prediction"), ("base_test", "base_prediction")):
        for level, name in enumerate(("parent", "child")):
            true, found = ([row[k][level] for row in rows] for k in ("reference", key))
            assert results[f"{prefix}_{name}_macro_f1"] == pytest.approx(f1_score(true, found, average="macro"))
            right = [t == f for t, f in zip(true, found, strict=True)]
            assert results[f"{prefix}_{name}_accuracy"] == pytest.approx(np.mean(right))
        right = [row["reference"] == row[key] for row in rows]
        assert results[f"{prefix}_path_accuracy"] == pytest.approx(np.mean(right))
        both = [sum(a == b for a, b in zip(row["reference"], row[key], strict=True)) for row in rows]
        assert results[f"{prefix}_hierarchical_f1"] == pytest.approx(sum(both) / (2 * len(rows)))
    choice = [row for row in rows if row["reference"][0] == "organs"]
    of_child = [answer["probabilities"][1] for answer in answers_of(tree_run)]
    likeliest = [
        max(("cardiology", "urology"), key=found.get) == row["reference"][1]
        for row, found in zip(rows, of_child, strict=True)
        if row in choice
    ]
    assert results["test_child_given_parent_accuracy"] == pytest.approx(np.mean(likeliest))


def test_no_prediction_contradicts_itself(tree_run):
    assert tree_run.results["test_inconsistent"] == 0
    paths = [["allergy", "allergy"], ["organs", "cardiology"], ["organs", "urology"]]
    for row in tree_run.predictions:
        assert all(row[key] in paths for key in ("prediction", "reference", "base_prediction"))
    for row in tree_rows():
        if row["id"] in {r["id"] for r in tree_run.predictions}:
            (found,) = [r for r in tree_run.predictions if r["id"] == row["id"]]
            assert found["reference"] == [row["group"], row["ward"]] and found["source"] == row["note"]


def test_training_beats_the_base_model(tree_run):
    results = tree_run.results
    assert results["test_child_macro_f1"] > 0.7 > results["baseline_majority_test_child_macro_f1"]
    assert 0 < results["base_test_child_macro_f1"] <= 1  # a linear probe on the frozen encoder
    for system in ("test", "base_test", "baseline_tfidf_svm_test", "baseline_tfidf_svm_per_node_test"):
        for metric in ("parent_macro_f1", "child_macro_f1", "path_accuracy", "hierarchical_f1"):
            low, high = results[f"{system}_{metric}_ci95"] or (0, 1)  # None: one class has too few rows
            assert 0 <= low <= results[f"{system}_{metric}"] + 1e-9 and results[f"{system}_{metric}"] <= high + 1e-9


def test_the_task_and_the_analysis_hold_the_tree(tree_run):
    task, analysis = tree_run.task, json.loads((tree_run.folder / "analysis.json").read_text())
    assert task["task"] == "hierarchical" and task["tree"] == analysis["tree"] == TREE
    assert task["heads"] == ["classifier"] and task["temperature"] == tree_run.results["temperature"] > 0
    assert analysis["labels"] == TREE["levels"][1] and analysis["level_names"] == ["parent", "child"]
    (parents,) = analysis["levels"]
    rows = tree_run.predictions
    counts = [sum(row["reference"][0] == name for row in rows) for name in TREE["levels"][0]]
    assert [row["support"] for row in parents["classes"]] == counts and min(counts) > 0
    for level, found in enumerate((parents, analysis)):
        told = [row for row in rows if row["shown"] > level]
        wrong = [row["prediction"][level] != row["reference"][level] for row in told]
        chosen = {"max_risk": 0.3, "threshold": task["abstention"]["thresholds"][level]}
        assert {"best_checkpoint", "rows"} <= found["abstention"].keys()
        found_here = {
            key: value for key, value in found["abstention"].items() if key not in ("best_checkpoint", "rows")
        }
        assert found_here == chosen | {
            "coverage": pytest.approx(len(told) / len(rows)), "risk": pytest.approx(np.mean(wrong)) if told else None
        }  # fmt: skip
        assert sum(row["rows"] for row in found["reliability"]) == len(rows)


def test_no_text_of_a_row_is_outside_the_private_folder(tree_run):
    public = [p for p in tree_run.folder.rglob("*") if p.is_file() and "_private" not in p.parts]
    texts = [p.read_bytes().decode("utf-8", "replace") for p in public if p.suffix not in (".png", ".pt")]
    texts += [tree_run.stdout, tree_run.stderr]
    assert len(texts) > 10
    assert not any(row["note"] in text for row in toy_notes() for text in texts)


# ----- Predicting


def test_the_predictor_answers_as_the_evaluation_did_in_any_order_and_batch(tree_run):
    rows = tree_run.predictions
    predictor = Predictor.from_pretrained(str(tree_run.folder))
    answers = predictor([row["source"] for row in rows], batch_size=4)
    for key in ("prediction", "shown"):
        assert [answer[key] for answer in answers] == [row[key] for row in rows]
    assert [a["confidence"][-1] for a in answers] == pytest.approx([row["confidence"] for row in rows], abs=1e-4)
    backwards = predictor([{"note": row["source"]} for row in reversed(rows)], batch_size=1)[::-1]
    for one, other in zip(answers, backwards, strict=True):
        assert one["prediction"] == other["prediction"] and one["shown"] == other["shown"]
        for level, again in zip(one["probabilities"], other["probabilities"], strict=True):
            assert level == pytest.approx(again, abs=1e-5)


def test_probabilities_of_each_level_sum_to_1_and_no_child_exceeds_its_parent(tree_run):
    for answer in answers_of(tree_run):
        above, below = answer["probabilities"]
        assert sum(above.values()) == pytest.approx(1, abs=1e-5) == sum(below.values())
        assert all(below[child] <= above[parent] + 1e-9 for child, parent in PARENT.items())
        assert above["organs"] == pytest.approx(below["cardiology"] + below["urology"], abs=1e-6)
        assert list(below)[0] == answer["prediction"][1] and list(below.values())[0] == answer["confidence"][1]
        assert answer["confidence"][0] == above[answer["prediction"][0]]


def test_shown_follows_the_thresholds(tree_run):
    answers = answers_of(tree_run)
    predictor = Predictor.from_pretrained(str(tree_run.folder))
    middle = float(np.median([answer["confidence"][1] for answer in answers]))
    given = {"run": tree_run.task["abstention"]["thresholds"], "half": [0.0, middle], "never": [None, None]}
    found = {}
    for name, thresholds in given.items():
        predictor.task["abstention"]["thresholds"] = thresholds
        found[name] = predictor([row["source"] for row in tree_run.predictions])
        for answer in found[name]:
            sure = [t is not None and c >= t for c, t in zip(answer["confidence"], thresholds, strict=True)]
            assert answer["shown"] == max([level + 1 for level in (0, 1) if sure[level]], default=0)
    assert {answer["shown"] for answer in found["half"]} == {1, 2}  # unsure of the child: its parent
    assert {answer["shown"] for answer in found["never"]} == {0}
    shown = [answer["shown"] for answer in found["run"]]
    for level, name in enumerate(("parent", "child")):
        share = np.mean([s > level for s in shown])
        assert tree_run.results[f"test_shown_to_{name}"] == pytest.approx(share)


def test_the_command_line_writes_a_line_a_row_with_the_classes_asked_for(tree_run, notes, tmp_path):
    done = run_predict(tree_run.folder, input_file=notes, output_file=tmp_path / "out.jsonl", top_k=2)
    assert done.code == 0, done.stderr
    lines = read_jsonl(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == [row["id"] for row in tree_rows()]
    for line in lines:
        above, below = line["probabilities"]
        assert set(above) == {"allergy", "organs"} and len(below) == 2 and set(below) <= set(PARENT)
        assert list(below)[0] == line["prediction"][1] and line["shown"] in (0, 1, 2)


# ----- Trees and ways to train


def test_a_path_column_of_three_levels(tiny_bert, notes, tmp_path):
    run = classify(
        tiny_bert, tmp_path / "run", train_file=notes, path_column="path", parent_column=None, child_column=None,
        level_weights=[1, 2, 3], use_peft=False, lora_target_modules=None,
    )  # fmt: skip
    tree = LabelTree.from_dict(run.task["tree"])
    assert tree.levels == (("allergy", "body"), ("allergy", "organs"), ("allergy", "cardiology", "urology"))
    assert all(run.results[f"test_level_{level}_macro_f1"] >= 0 for level in (1, 2, 3))
    assert run.results["test_inconsistent"] == 0
    for answer in answers_of(run):
        assert len(answer["prediction"]) == len(answer["probabilities"]) == len(answer["confidence"]) == 3
        assert all(sum(level.values()) == pytest.approx(1, abs=1e-5) for level in answer["probabilities"])
    assert {path.stem for path in (run.folder / "plots").glob("confusion*")} == {
        "confusion_matrix", "confusion_matrix_level_1", "confusion_matrix_level_2"
    }  # fmt: skip
    # all weights are trained, and the saved model names its nodes
    assert run.results["trainable_parameters"] == run.results["total_parameters"]
    model = AutoModelForSequenceClassification.from_pretrained(run.folder)
    assert list(model.config.id2label.values()) == tree.node_names
    assert_served_as_evaluated(run, 1e-4)


def test_long_texts_in_windows_are_served_as_evaluated(plain):
    assert plain.results["data_train_cut_texts"] == 0 and plain.task["long_texts"] == "chunks"
    assert_served_as_evaluated(plain, 1e-4)


@pytest.mark.parametrize(("rows", "steps"), [(2, 4), (1, 8)])
def test_gradient_accumulation_changes_neither_loss_nor_gradient(rows, steps, plain, tiny_bert, notes, tmp_path):
    run = classify(
        tiny_bert, tmp_path / "run", train_file=notes, per_device_train_batch_size=rows,
        gradient_accumulation_steps=steps, **STEADY,
    )  # fmt: skip
    for one, other in zip(history(run)[:2], history(plain)[:2], strict=True):
        for key in ("loss", "grad_norm"):
            assert one[key] == pytest.approx(other[key], abs=1e-4)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ({"focal_gamma": 2.0}, 0.05, 0.9),
        ({"class_imbalance": "inverse_frequency"}, 1.1, 1.6),  # the first step has more of the rare wards
        ({"level_weights": [2.0, 2.0]}, 1.999, 2.001),
        ({"level_weights": [1.0, 0.0]}, 0.1, 0.9),
    ],
)
def test_each_key_of_the_loss_changes_it(values, low, high, plain, tiny_bert, notes, tmp_path):
    run = classify(tiny_bert, tmp_path / "run", train_file=notes, **STEADY | values, max_steps=1)
    ratio = history(run)[0]["loss"] / history(plain)[0]["loss"]
    assert low < ratio < high, ratio


def test_4_bit_trains_an_adapter_and_leaves_the_head_whole(tiny_bert, notes, tmp_path):
    run = classify(tiny_bert, tmp_path / "run", train_file=notes, load_in_4bit=True, dtype="bfloat16", bf16=True)
    # 2 layers, query and value 64 -> 64 with r = 4; 64 x 5 + 5 for two parents and three children
    assert run.results["lora_parameters"] == 2 * 2 * 4 * 128
    assert run.results["saved_module_parameters"] == 64 * 5 + 5
    weights = load_file(run.folder / "adapter_model.safetensors")
    (head,) = [value for name, value in weights.items() if name.endswith("classifier.weight")]
    assert head.shape == (5, 64) and np.isfinite(run.results["train_loss"])
    assert_served_as_evaluated(run, 2e-2)


def test_early_stopping_stops_where_nothing_gets_better(tiny_bert, notes, tmp_path):
    run = classify(
        tiny_bert, tmp_path / "run", train_file=notes, early_stopping_patience=2, eval_strategy="epoch",
        save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="child_macro_f1", learning_rate=0.0,
        max_steps=None, num_train_epochs=8, per_device_train_batch_size=64,
    )  # fmt: skip
    assert [entry["epoch"] for entry in history(run) if "eval_child_macro_f1" in entry] == [1, 2, 3]


def test_a_run_that_was_killed_ends_in_the_weights_of_one_that_was_not(tiny_bert, notes, tmp_path):
    values = {
        "train_file": notes, "focal_gamma": 2.0, "class_imbalance": "class_balanced", "max_steps": None,
        "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 10,
        "train_sampling_strategy": "group_by_length",
    }  # fmt: skip
    whole = classify(tiny_bert, tmp_path / "whole", **values)
    shutil.copytree(whole.folder / "checkpoint-20", tmp_path / "again" / "checkpoint-20")
    again = classify(tiny_bert, tmp_path / "again", **values)
    weights = [load_file(run.folder / "adapter_model.safetensors") for run in (whole, again)]
    assert history(whole)[-1]["step"] == 30 and all(
        torch.equal(weights[0][name], weights[1][name]) for name in weights[0]
    )
    assert whole.predictions == again.predictions


def test_the_bioclinicalbert_recipe_runs_on_a_cpu(tiny_bert, notes, tmp_path):
    argv = [str(ROOT / "recipes/bioclinicalbert_qlora.yaml"), *flags(
        model_name_or_path=tiny_bert, output_dir=tmp_path / "run", use_cpu=True, max_steps=2, train_file=notes,
        text_column="note", parent_column="group", child_column="ward", report_to="none",
    )]  # fmt: skip
    run = run_here(main, ARGUMENTS, argv)
    assert run.code == 0, run.stderr
    assert run.task["quantization"]["load_in_4bit"] is True and run.results["test_inconsistent"] == 0
    # r = 16 on query, key, value and the attention's output, and on both layers of the feed-forward part; the pooler
    assert run.results["lora_parameters"] == 16 * (2 * (4 * 128 + 2 * 192) + 128)


def test_a_second_stage_goes_on_from_the_adapter_and_heads_of_the_first(tree_run, tiny_bert, notes, tmp_path):
    values = {
        "train_file": notes, "pooling": "mean", "dropout": 0.0, "validation_fraction": 0.2, "test_fraction": 0.2,
        "learning_rate": 0.0,
    }  # fmt: skip
    results = (done := classify(tree_run.folder, tmp_path / "run", **values)).results
    assert done.task["base_model"] == str(tiny_bert) and results["test_sha256"] == tree_run.results["test_sha256"]
    alone = tree_run.results["baseline_encoder_alone_test_path_accuracy"]
    assert results["test_path_accuracy"] == results["first_adapter_test_path_accuracy"] == pytest.approx(alone)
    assert results["delta_first_adapter_test_child_macro_f1"] == 0
    answers = Predictor.from_pretrained(str(done.folder))([row["source"] for row in done.predictions])
    assert [a["prediction"] for a in answers] == [row["prediction"] for row in done.predictions]
    other = [row | {"group": "one"} for row in tree_rows()]
    path = write_rows(tmp_path / "other.csv", other)
    assert "another `tree`" in refused(tree_run.folder, tmp_path / "no", **values | {"train_file": path})


# ----- Mistakes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"parent_column": "gruop"}, "did you mean `group`?"),
        ({"parent_column": None}, "give either `parent_column` and `child_column`, or `path_column`"),
        ({"path_column": "path"}, "give either `parent_column` and `child_column`, or `path_column`"),
        ({"level_weights": [1, 2, 3]}, "`level_weights` has 3 values: the tree has 2 levels"),
        ({"focal_gamma": -1}, "`focal_gamma` is -1.0"),
        ({"class_imbalance": "focal"}, "`class_imbalance`"),
        ({"early_stopping_patience": 0}, "`early_stopping_patience` is 0"),
        ({"early_stopping_patience": 2}, "`early_stopping_patience` needs"),
        (
            {
                "eval_strategy": "steps",
                "eval_steps": 1,
                "save_strategy": "steps",
                "save_steps": 1,
                "load_best_model_at_end": True,
                "metric_for_best_model": "f1",
            },
            "`metric_for_best_model` is f1: an evaluation computes ['eval_loss', 'eval_parent_macro_f1'",
        ),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(tiny_bert, notes, tmp_path, values, expected):
    assert expected in refused(tiny_bert, tmp_path / "run", **{"train_file": notes} | values)


def changed(rows: list[dict], wards: str, count: int | None = None, **values) -> tuple[list[dict], list[str]]:
    """The rows with `values` in the first `count` of these wards, and their ids."""
    ids = [row["id"] for row in rows if row["ward"] in wards.split()][:count]
    return [row | values if row["id"] in ids else row for row in rows], ids


@pytest.mark.parametrize(
    ("wards", "count", "values", "expected"),
    [
        ("urology", 2, {"group": "allergy"}, "'urology' on level 2 has more than one parent"),
        ("urology", 2, {"group": " "}, "A name in the path of 2 rows"),
        ("urology", 45, {"group": "cardiology", "ward": "organs"}, "A name is above itself"),
        ("urology", 2, {"group": "Organs"}, "differ only in case"),
    ],
)
def test_rows_that_make_no_tree_are_named(tiny_bert, tmp_path, wards, count, values, expected):
    rows, ids = changed(tree_rows(), wards, count, **values)
    path = write_rows(tmp_path / "rows.csv", rows)
    error = refused(tiny_bert, tmp_path / "run", train_file=path)
    assert expected in error and any(name in error for name in ids)


def test_a_path_of_another_depth_is_named(tiny_bert, tmp_path):
    rows, (name,) = changed(tree_rows(), "urology", 1, path="organs > urology")
    path = write_rows(tmp_path / "rows.csv", rows)
    columns = {"path_column": "path", "parent_column": None, "child_column": None}
    error = refused(tiny_bert, tmp_path / "run", train_file=path, **columns)
    assert "Paths have unequal depths: 2 levels in" in error and name in error


def test_a_single_class_and_a_class_that_training_has_not_seen(tiny_bert, notes, tmp_path):
    rows = [row | {"ward": "urology"} for row in tree_rows()]
    one = write_rows(tmp_path / "one.csv", [row | {"group": "organs"} for row in rows])
    assert "`ward` has only one label, 'urology'" in refused(tiny_bert, tmp_path / "run", train_file=one)
    new = [
        row | {"id": f"new{i}", "ward": "oncology", "note": f"{row['note']} anew"} for i, row in enumerate(rows[:2])
    ]
    unseen = write_rows(tmp_path / "test.csv", new)
    error = refused(tiny_bert, tmp_path / "run", train_file=notes, test_file=unseen)
    assert "1 labels of the test split are not in the training rows: `oncology` (2 rows: new0, new1)" in error


@pytest.mark.real_data
@pytest.mark.skipif(not (ROOT.parent / "shared/data").exists(), reason="no shared data")
def test_the_medical_abstracts_run_as_001s_tree(tiny_bert, tmp_path):
    general = "general pathological conditions"
    rows = read_jsonl(ROOT.parent / "shared/data/medical_abstracts/medical_abstracts.jsonl")
    rows = [
        {"text": row["text"], "parent": general if row["label"] == general else "specific disease",
         "child": row["label"]} for row in rows
    ]  # fmt: skip
    run = classify(
        tiny_bert, tmp_path / "run", train_file=write_rows(tmp_path / "abstracts.csv", rows), text_column="text",
        parent_column="parent", child_column="child", max_length=16,
    )  # fmt: skip
    results = run.results
    assert (results["data_parent_classes"], results["data_child_classes"]) == (2, 5)
    assert results["test_inconsistent"] == 0 and results["data_accuracy_ceiling"] < 1
    assert results["baseline_tfidf_svm_test_child_macro_f1"] > 0.45


def test_numbers_report_and_card_are_remade_without_a_model(tree_run, tmp_path):
    assert_remade(tree_run, tmp_path / "run")
