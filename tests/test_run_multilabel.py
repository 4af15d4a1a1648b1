"""`run_classification.py` with several labels a text, from lists to served answers."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, assert_remade, read_jsonl, run_here, write_rows
from fastapi.testclient import TestClient
from sklearn.metrics import f1_score, label_ranking_average_precision_score
from sklearn.preprocessing import MultiLabelBinarizer
from test_run_classification import class_flags
from transformers import AutoModelForSequenceClassification

import app
import predict
import run_hierarchical
from run_classification import ARGUMENTS, main
from utils.arguments import DataArguments, parse_recipe
from utils.data.__main__ import ColumnArguments
from utils.data.__main__ import main as clean
from utils.inference import Predictor
from utils.inputs import Input
from utils.multilabel import prepare_labels
from utils.task import read_input

OWN = {
    "cardiology": ["heart", "murmur", "angina", "valve"],
    "urology": ["kidney", "bladder", "stone", "prostate"],
    "allergy": ["pollen", "hives", "sneezing", "mite"],
}
FILLERS = ["mild", "severe", "new", "old", "left", "right", "upper", "lower", "daily", "sudden"]


def toy_lists(rows: int = 160) -> list[dict]:
    """Notes with words of one to three wards, and the list of these wards."""
    rng = random.Random(11)
    made = []
    for number in range(rows):
        wards = rng.sample(list(OWN), rng.choice([1, 1, 1, 2, 2, 3]))
        words = [*(rng.choice(OWN[ward]) for ward in wards for _ in range(2)), *rng.sample(FILLERS, 4), f"n{number}"]
        rng.shuffle(words)
        made.append({"id": f"n{number}", "note": " ".join(words), "wards": wards})
    return made


def list_flags(model: Path, folder: Path, **values) -> list[str]:
    return class_flags(model, folder, **{"label_column": "wards"} | values)


def run_lists(model, folder, **values) -> Run:
    done = run_here(main, ARGUMENTS, list_flags(model, folder, **values))
    assert done.code == 0, done.stderr[-3000:]
    return done


def refused(model, folder, **values) -> str:
    done = run_here(main, ARGUMENTS, list_flags(model, folder, **values))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1, done.stderr[-3000:]
    return errors[0]


@pytest.fixture(scope="module")
def lists(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("lists") / "notes.jsonl", toy_lists())


@pytest.fixture(scope="module")
def list_run(tiny_bert, lists, tmp_path_factory) -> Run:
    return run_lists(
        tiny_bert, tmp_path_factory.mktemp("multilabel") / "run", train_file=lists, pooling="mean", dropout=0.0,
        max_steps=60, head_learning_rate=0.05, validation_fraction=0.25, test_fraction=0.25, ensemble="linear",
        eval_strategy="steps", eval_steps=60,
    )  # fmt: skip


def test_the_numbers_are_those_of_the_predicted_sets(list_run):
    rows, results = list_run.predictions, list_run.results
    binarizer = MultiLabelBinarizer(classes=sorted(OWN)).fit([sorted(OWN)])
    true, own = (binarizer.transform([row[key] for row in rows]) for key in ("reference", "prediction"))
    for average in ("micro", "macro", "weighted", "samples"):
        expected = f1_score(true, own, average=average, zero_division=0)
        assert results[f"test_{average}_f1"] == pytest.approx(expected)
    assert results["test_accuracy"] == pytest.approx(np.mean((true == own).all(axis=1)))
    answers = Predictor.from_pretrained(str(list_run.folder))([row["source"] for row in rows])
    scores = np.array([[answer["probabilities"][ward] for ward in sorted(OWN)] for answer in answers])
    expected = label_ranking_average_precision_score(true, scores)
    assert results["test_label_ranking_average_precision"] == pytest.approx(expected)


def test_training_beats_the_best_constant_and_every_system_stands_in_the_table(list_run):
    results, report = list_run.results, (list_run.folder / "report.md").read_text()
    assert results["test_micro_f1"] > 0.8
    assert results["delta_baseline_best_constant_test_micro_f1_ci95"][0] > 0
    for system in ("base_test", *(f"baseline_{n}_test" for n in ("tfidf_svm", "tfidf_logistic", "encoder_alone"))):
        low, high = results[f"{system}_micro_f1_ci95"]
        assert 0 <= low <= results[f"{system}_micro_f1"] <= high <= 1
        assert f"delta_{system}_micro_f1_p" in results and f"{system}_macro_f1" in results
    assert "tfidf svm" in report and all(f"| {ward} |" in report for ward in OWN)
    assert 0 <= results["test_ece"] <= 1 and results["data_classes"] == 3
    during = json.loads((list_run.folder / "trainer_state.json").read_text())["log_history"]
    assert any("eval_micro_f1" in entry for entry in during)


def test_the_task_file_says_what_serving_needs_and_the_evaluation_is_made_again(list_run, tmp_path):
    task = list_run.task
    assert task["problem_type"] == "multi_label_classification" and task["labels"] == sorted(OWN)
    assert len(task["thresholds"]) == len(task["calibration"]["scale"]) == 3 and task["ensemble"]["linear"] > 0
    assert_remade(list_run, tmp_path / "run")


def test_answers_are_the_labels_above_their_thresholds_in_any_order_and_batch(list_run):
    rows, task = list_run.predictions, list_run.task
    predictor = Predictor.from_pretrained(str(list_run.folder))
    answers = predictor([row["source"] for row in rows], batch_size=4)
    assert [answer["prediction"] for answer in answers] == [row["prediction"] for row in rows]
    limits = dict(zip(task["labels"], task["thresholds"], strict=True))
    for answer, row in zip(answers, rows, strict=True):
        above = {label: p for label, p in answer["probabilities"].items() if p >= limits[label]}
        assert above == dict(zip(answer["prediction"], answer["confidence"], strict=True))
        assert (
            list(answer["probabilities"])[: len(above)] == answer["prediction"] and len(answer["probabilities"]) == 3
        )
        assert answer["confidence"] == pytest.approx(row["confidence"], abs=1e-4)
    backwards = predictor([{"note": row["source"]} for row in reversed(rows)], batch_size=1)[::-1]
    assert [answer["prediction"] for answer in backwards] == [answer["prediction"] for answer in answers]


def test_the_api_answers_with_all_labels_above_their_thresholds(list_run):
    row = max(list_run.predictions, key=lambda row: len(row["prediction"]))
    args, metrics = app.AppArguments(model=[str(list_run.folder)]), app.make_metrics()
    served = {"classification": app.load(str(list_run.folder), args, metrics)}
    with TestClient(app.make_app(served, args, metrics, None), base_url="http://127.0.0.1") as client:
        (found,) = client.post("/classify", json={"text": row["source"], "top_k": 1}).json()["results"]
    assert found["prediction"] == row["prediction"] == list(found["probabilities"]) and len(row["prediction"]) > 1
    assert found["confidence"] == pytest.approx(row["confidence"], abs=1e-4) and "abstained" not in found


def test_the_command_line_shows_every_label_above_its_threshold(list_run):
    row = max(list_run.predictions, key=lambda row: len(row["prediction"]))
    args = predict.PredictArguments(model=str(list_run.folder), text=row["source"], top_k=1)
    predictor = Predictor.from_pretrained(str(list_run.folder))
    batch = {0: Input("`text`", {"id": "n1"}, read_input(row["source"], list_run.task, "`text`"))}
    line = json.loads(predict.predict_lines(predictor, None, batch, args, [])[0])
    assert line["id"] == "n1" and line["prediction"] == row["prediction"] == list(line["probabilities"])


def test_cleaning_alone_writes_the_lists_again(lists, tmp_path, capsys):
    argv = ["--train_file", str(lists), "--text_column", "note", "--label_column", "wards"]
    clean(*parse_recipe((DataArguments, ColumnArguments), [*argv, "--output_dir", str(tmp_path / "clean")])[:2])
    written = [
        row for split in ("train", "validation", "test") for row in read_jsonl(tmp_path / f"clean/{split}.jsonl")
    ]
    expected = {row["id"]: sorted(row["wards"]) for row in toy_lists()}
    assert {row["id"]: row["wards"] for row in written} == expected


def test_the_head_starts_at_the_shares_of_the_labels(tiny_bert):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    task = {"heads": ["classifier"], "autocast": "bfloat16"}
    prepare_labels(model, task, np.array([8, 1, 0]), 10)
    assert torch.sigmoid(model.classifier.bias).tolist() == pytest.approx([9 / 12, 2 / 12, 1 / 12])
    assert model.config.problem_type == "multi_label_classification" and task["autocast"] is None


def test_csv_with_json_lists_is_the_same_data(list_run, tiny_bert, tmp_path):
    rows = [row | {"wards": json.dumps(row["wards"])} for row in toy_lists()]
    done = run_lists(
        tiny_bert, tmp_path / "run", train_file=write_rows(tmp_path / "notes.csv", rows), validation_fraction=0.25,
        test_fraction=0.25, evaluate_test=False,
    )  # fmt: skip
    for split in ("train", "validation", "test"):
        assert done.results[f"{split}_sha256"] == list_run.results[f"{split}_sha256"]
    assert "test_micro_f1" not in done.results and done.results["eval_micro_f1"] >= 0


def test_gradient_accumulation_changes_neither_loss_nor_gradient(tiny_bert, lists, tmp_path):
    first = []
    for rows, steps in ((8, 1), (2, 4)):
        run = run_lists(
            tiny_bert, tmp_path / f"{rows}", train_file=lists, per_device_train_batch_size=rows, evaluate_test=False,
            gradient_accumulation_steps=steps, logging_first_step=True, dropout=0.0, lora_dropout=0.0,
            class_imbalance="focal", max_steps=1,
        )  # fmt: skip
        entry = json.loads((run.folder / "trainer_state.json").read_text())["log_history"][0]
        first.append((entry["loss"], entry["grad_norm"]))
    assert first[1] == pytest.approx(first[0], abs=1e-4)


# ----- What is refused, in one line


def written(folder: Path, labels: list, ending: str = "jsonl") -> Path:
    """Notes with these values in the column of the labels, in turn."""
    rows = [row | {"wards": labels[i % len(labels)]} for i, row in enumerate(toy_lists(40))]
    return write_rows(folder / f"notes.{ending}", rows)


@pytest.mark.parametrize(
    ("labels", "ending", "found"),
    [
        ([["cardiology"], []], "jsonl", "an empty list"),
        (["[]", '["cardiology"]'], "csv", "an empty list"),
        ([["cardiology"], ["urology", " "]], "jsonl", "an empty label"),
        ([["cardiology"], ["urology", None]], "jsonl", "an empty label"),
        ([["cardiology"], ["urology", ["allergy"]]], "jsonl", "is a list"),
        ([["cardiology"], "urology"], "jsonl", "no list"),
        (["urology", ["cardiology"]], "jsonl", "is a list"),
        (["['cardiology', 'urology']", "['allergy']"], "csv", "look like lists"),
        (["{cardiology, urology}", "{allergy, urology}"], "csv", "look like lists"),
        (['c("cardiology", "urology")', "allergy"], "csv", "look like lists"),
        (["['cardiology' 'urology']", "['allergy']"], "jsonl", "look like lists"),
        ([["cardiology"]], "jsonl", "only one label"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(labels, ending, found, tiny_bert, tmp_path):
    error = refused(tiny_bert, tmp_path / "run", train_file=written(tmp_path, labels, ending))
    assert "`wards`" in error and found in error


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_risk", 0.1), ("top_k", 2), ("class_imbalance", "inverse_frequency"), ("ensemble", "prior"),
        ("class_imbalance", "balanced_sampling"), ("extra_metrics", "accuracy"),
    ],
)  # fmt: skip
def test_a_key_without_meaning_for_several_labels_is_refused(key, value, tiny_bert, lists, tmp_path):
    error = refused(tiny_bert, tmp_path / "run", train_file=lists, **{key: value})
    assert f"`{key}`" in error and "several labels" in error


def test_a_column_that_is_meant_to_have_one_label_refuses_lists_and_keeps_their_text(tiny_bert, lists, tmp_path):
    single = {"problem_type": "single_label_classification", "evaluate_test": False, "max_steps": 1}
    assert "is a list" in refused(tiny_bert, tmp_path / "no", train_file=lists, **single)
    texts = written(tmp_path, ['["cardiology", "urology"]', '["allergy"]'], "csv")
    done = run_lists(tiny_bert, tmp_path / "run", train_file=texts, **single)
    assert "problem_type" not in done.task and len(done.task["labels"]) == 2


def test_labels_that_are_joined_by_a_mark_are_counted_and_named(tiny_bert, tmp_path, caplog):
    texts = written(tmp_path, ["cardiology;urology", "urology", "cardiology;allergy", "allergy"], "csv")
    done = run_lists(tiny_bert, tmp_path / "run", train_file=texts, evaluate_test=False, max_steps=1)
    assert done.results["data_joined_labels"] == 2 and "`cardiology;allergy`" in caplog.text


def test_a_tree_of_classes_refuses_lists(tiny_bert, tmp_path):
    rows = [row | {"group": "body"} for row in toy_lists(40)]
    values = {"train_file": write_rows(tmp_path / "notes.jsonl", rows), "parent_column": "group"}
    argv = list_flags(tiny_bert, tmp_path / "run", **values)
    argv[argv.index("--label_column")] = "--child_column"
    done = run_here(run_hierarchical.main, run_hierarchical.ARGUMENTS, argv)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1 and "`wards`" in errors[0] and "list" in errors[0]
