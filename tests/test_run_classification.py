"""`run_classification.py` from recipe to report on tiny encoders: its files, its numbers, its ways to go wrong."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    ROOT,
    Run,
    assert_remade,
    flags,
    read_jsonl,
    run_here,
    run_predict,
    run_script,
    save_encoder,
    write_rows,
    write_yaml,
)
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score, log_loss
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)
from trl import ModelConfig

from run_classification import ARGUMENTS, main
from utils.adapters import count_parameters
from utils.arguments import UserError
from utils.encoding import EncoderArguments, load_classifier
from utils.evaluation.class_analysis import frequency_groups
from utils.inference import Predictor
from utils.losses import CLASS_IMBALANCE
from utils.modeling import class_config

SYSTEMS = ("test", "base_test", *(f"baseline_{n}_test" for n in ("majority", "stratified_random", "tfidf_svm")))
WARDS = ["allergy", "cardiology", "urology"]


def class_flags(model: Path, output_dir: Path, **values) -> list[str]:
    """The flags of a short run on one CPU; `values` come on top."""
    defaults = {
        "model_name_or_path": model, "output_dir": output_dir, "use_cpu": True, "use_peft": True, "lora_r": 4,
        "lora_alpha": 8, "lora_target_modules": ["query", "value"], "max_length": 32, "max_steps": 2,
        "per_device_train_batch_size": 8, "learning_rate": 1e-3, "save_strategy": "no", "report_to": "none",
        "text_column": "note", "label_column": "ward", "near_duplicate_threshold": 1.0,
    }  # fmt: skip
    return flags(**defaults | values)


def classify(model, folder, **values) -> Run:
    """Run the script in this process; a run that fails fails the test."""
    done = run_here(main, ARGUMENTS, class_flags(model, folder, **values))
    assert done.code == 0, done.stderr
    return done


def refused(model, folder, **values) -> str:
    done = run_here(main, ARGUMENTS, class_flags(model, folder, **values))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1, done.stderr
    return errors[0]


def history(run: Run) -> list[dict]:
    return json.loads((run.folder / "trainer_state.json").read_text())["log_history"]


@pytest.fixture(scope="module")
def class_run(launcher, tiny_bert, data, tmp_path_factory) -> Run:
    """A run with LoRA that learns the wards, from a recipe and one flag, as a user starts it."""
    folder = tmp_path_factory.mktemp("classification")
    recipe = {
        "model_name_or_path": str(tiny_bert), "use_peft": True, "lora_r": 4, "lora_alpha": 8,
        "lora_target_modules": ["query", "value"], "pooling": "mean", "train_file": str(data.notes),
        "text_column": "note", "label_column": "ward", "validation_fraction": 0.2, "test_fraction": 0.2,
        "near_duplicate_threshold": 1.0, "max_length": 32, "num_train_epochs": 1, "per_device_train_batch_size": 8,
        "learning_rate": 0.001, "head_learning_rate": 0.05, "dropout": 0.0, "use_cpu": True,
        "train_sampling_strategy": "group_by_length", "report_to": "none", "logging_steps": 10,
        "eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True,
        "metric_for_best_model": "macro_f1", "class_imbalance": "logit_adjustment", "ensemble": "linear",
        "max_risk": 0.3,
        "output_dir": str(folder / "run"),
    }  # fmt: skip
    argv = [str(write_yaml(folder / "recipe.yaml", recipe)), "--num_train_epochs", "10"]
    done = run_script(launcher, "run_classification.py", [*argv, "--output_dir", str(folder / "run")])
    assert done.code == 0, done.stderr[-3000:]
    return done


# ----- What a run writes


@pytest.mark.parametrize("name", ["idf", "coefficients", "intercept"])
def test_an_ensemble_whose_weights_are_not_finite_is_refused(name, class_run, tmp_path):
    broken = shutil.copytree(class_run.folder, tmp_path / "run")
    weights = load_file(broken / "linear.safetensors")
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, broken / "linear.safetensors")
    with pytest.raises(UserError, match="`model`.*not finite"):
        Predictor.from_pretrained(str(broken))


def test_a_run_writes_every_file(class_run):
    files = {
        "adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "task.json", "recipe.yaml",
        "all_results.json", "report.md", "README.md", "analysis.json", "per_class.csv", "baseline_comparison.csv",
        "classification_report.txt", "linear.safetensors", "plots/loss.png", "plots/baseline_comparison.png",
        "plots/confusion_matrix.png",
        "plots/reliability.png", "plots/risk_coverage.png", "plots/error_by_length.png",
        "plots/error_by_training_rows.png", "_private/predictions_test.jsonl", "_private/error_examples.csv",
    }  # fmt: skip
    assert {name for name in files if not (class_run.folder / name).is_file()} == set()
    assert not (class_run.folder / "config.json").exists()


def test_the_numbers_are_those_of_the_predictions(class_run):
    rows, results = class_run.predictions, class_run.results
    references, predictions = [row["reference"] for row in rows], [row["prediction"] for row in rows]
    right = [r == p for r, p in zip(references, predictions, strict=True)]
    assert results["test_accuracy"] == pytest.approx(np.mean(right))
    assert results["test_macro_f1"] == pytest.approx(f1_score(references, predictions, average="macro"))
    assert results["test_weighted_f1"] == pytest.approx(f1_score(references, predictions, average="weighted"))
    base = [row["base_prediction"] for row in rows]
    assert results["base_test_macro_f1"] == pytest.approx(f1_score(references, base, average="macro"))
    probabilities = [
        [answer["probabilities"][ward] for ward in WARDS]
        for answer in Predictor.from_pretrained(str(class_run.folder))([row["source"] for row in rows])
    ]
    assert results["test_loss"] == pytest.approx(log_loss(references, probabilities, labels=WARDS), abs=1e-4)
    most = Counter(row["ward"] for row in csv.DictReader(Path(results_file(class_run)).open())).most_common(1)[0][0]
    assert results["baseline_majority_test_accuracy"] == pytest.approx(np.mean([r == most for r in references]))


def results_file(run: Run) -> str:
    return run.task["data"]["train_file"]


def test_training_beats_the_base_model_and_guessing(class_run):
    results = class_run.results
    assert results["test_macro_f1"] > 0.7 > results["baseline_encoder_alone_test_macro_f1"] > 0.4
    assert results["ensemble_linear"] > 0
    for other in ("baseline_majority_test", "baseline_stratified_random_test"):
        assert results[f"delta_{other}_macro_f1_ci95"][0] > 0
    assert 0 <= results["mcnemar_test_accuracy_p"] <= 1  # against the linear probe, which is strong on toy notes
    assert 0 <= results["mcnemar_baseline_tfidf_svm_test_accuracy_p"] <= 1


def test_every_system_has_every_metric_with_its_interval(class_run):
    results = class_run.results
    for system in SYSTEMS:
        for metric in ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall", "matthews"):
            low, high = results[f"{system}_{metric}_ci95"] or (0, 1)  # None: one class has too few rows
            assert low <= high and -1 <= results[f"{system}_{metric}"] <= 1
    for metric in ("loss", "ece", "brier", "uncalibrated_ece", "top_3_accuracy", "coverage", "medium_shot_macro_f1"):
        assert f"test_{metric}_ci95" in results
    assert results["test_top_3_accuracy"] == 1  # of three classes
    assert all(not isinstance(value, dict) for value in results.values())


def test_splits_keep_the_shares_of_the_wards(class_run):
    results = class_run.results
    assert [results[f"{split}_rows"] for split in ("train", "validation", "test")] == [90, 30, 30]
    wards = Counter(row["reference"] for row in class_run.predictions)
    assert wards == {"cardiology": 18, "urology": 9, "allergy": 3}
    assert results["data_accuracy_ceiling"] == 1 and results["data_classes"] == 3
    assert results["data_untested_classes"] == 0
    assert 0 < results["data_test_cut_texts"] < 30


def test_predictions_are_in_order_though_training_groups_by_length(class_run, data):
    known = {row["id"]: row for row in csv.DictReader(data.notes.open())}
    order = {name: i for i, name in enumerate(known)}
    ids = [row["id"] for row in class_run.predictions]
    assert ids == sorted(ids, key=order.get)
    assert all(row["source"] == known[row["id"]]["note"] for row in class_run.predictions)
    assert all(row["reference"] == known[row["id"]]["ward"] for row in class_run.predictions)


def test_the_best_epoch_by_macro_f1_is_the_one_that_is_saved(class_run):
    evaluations = {entry["step"]: entry["eval_macro_f1"] for entry in history(class_run) if "eval_macro_f1" in entry}
    assert len(evaluations) == 10
    best = max(evaluations.values())
    (saved,) = [p for p in class_run.folder.glob("checkpoint-*") if evaluations[int(p.name[11:])] == best][:1]
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (class_run.folder, saved)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_task_file_holds_what_serving_needs(class_run):
    task = class_run.task
    assert task["task"] == "classification" and task["labels"] == WARDS and task["heads"] == ["classifier"]
    assert (task["max_length"], task["long_texts"], task["pooling"]) == (32, "head", "mean")
    assert task["temperature"] == class_run.results["temperature"] > 0
    assert task["abstention"]["max_risk"] == 0.3


def test_no_text_of_a_row_is_outside_the_private_folder(class_run, data):
    public = [p for p in class_run.folder.rglob("*") if p.is_file() and "_private" not in p.parts]
    texts = [p.read_bytes().decode("utf-8", "replace") for p in public if p.suffix not in (".png", ".pt")]
    texts += [class_run.stdout, class_run.stderr]
    assert len(texts) > 10
    assert not any(secret in text for secret in data.secrets if secret.startswith("Patient") for text in texts)


# ----- Predicting


def test_the_predictor_answers_as_the_evaluation_did_in_any_order_and_batch(class_run):
    rows = class_run.predictions
    predictor = Predictor.from_pretrained(str(class_run.folder))
    answers = predictor([row["source"] for row in rows], batch_size=4)
    assert [answer["prediction"] for answer in answers] == [row["prediction"] for row in rows]
    assert [a["confidence"] for a in answers] == pytest.approx([row["confidence"] for row in rows], abs=1e-4)
    backwards = predictor([{"note": row["source"]} for row in reversed(rows)], batch_size=1)[::-1]
    for one, other in zip(answers, backwards, strict=True):
        assert one["prediction"] == other["prediction"]
        assert list(one["probabilities"].values()) == pytest.approx(list(other["probabilities"].values()), abs=1e-5)
        assert sum(one["probabilities"].values()) == pytest.approx(1) and len(one["probabilities"]) == 3
        assert list(one["probabilities"])[0] == one["prediction"]


def test_abstained_says_what_the_threshold_says(class_run):
    threshold = class_run.task["abstention"]["threshold"]
    answers = Predictor.from_pretrained(str(class_run.folder))([row["source"] for row in class_run.predictions])
    abstained = [answer["abstained"] for answer in answers]
    assert abstained == [threshold is None or answer["confidence"] < threshold for answer in answers]
    assert class_run.results["test_coverage"] == pytest.approx(1 - np.mean(abstained))


def test_the_command_line_writes_a_line_a_row_with_the_classes_asked_for(class_run, data, tmp_path):
    done = run_predict(class_run.folder, input_file=data.notes, output_file=tmp_path / "out.jsonl", top_k=2)
    assert done.code == 0, done.stderr
    lines = read_jsonl(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == [row["id"] for row in csv.DictReader(data.notes.open())]
    assert all(len(line["probabilities"]) == 2 and set(line["probabilities"]) <= set(WARDS) for line in lines)
    done = run_predict(class_run.folder, text="a b", max_new_tokens=3)
    assert done.code == 2 and "`max_new_tokens` is for answers" in done.stderr


# ----- Ways to train


@pytest.mark.parametrize("how", CLASS_IMBALANCE)
def test_every_way_to_weigh_the_classes_trains(how, tiny_bert, data, tmp_path):
    run = classify(tiny_bert, tmp_path / "run", train_file=data.notes, class_imbalance=how, max_steps=3)
    assert np.isfinite(run.results["train_loss"]) and run.task["labels"] == WARDS


def test_balanced_sampling_draws_the_rare_ward_more_often(tiny_bert, data, tmp_path):
    train = {"train_file": data.notes, "max_steps": 60, "head_learning_rate": 0.05, "pooling": "mean"}
    share = {}
    for how in ("none", "balanced_sampling"):
        run = classify(tiny_bert, tmp_path / how, class_imbalance=how, **train)
        share[how] = np.mean([row["prediction"] == "allergy" for row in run.predictions])
    assert share["balanced_sampling"] > share["none"]


@pytest.mark.parametrize("how", ["head", "head_tail", "chunks"])
def test_long_texts_are_cut_or_read_in_windows_and_served_alike(how, tiny_bert, data, tmp_path):
    run = classify(tiny_bert, tmp_path / "run", train_file=data.notes, long_texts=how, max_length=16)
    assert run.task["long_texts"] == how
    assert (run.results["data_train_cut_texts"] == 0) == (how == "chunks")
    answers = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions])
    assert [a["confidence"] for a in answers] == pytest.approx([r["confidence"] for r in run.predictions], abs=1e-4)


def test_with_windows_the_evaluation_during_training_is_that_of_whole_texts(tiny_bert, data, tmp_path):
    run = classify(
        tiny_bert, tmp_path / "run", train_file=data.notes, long_texts="chunks", max_length=16, eval_strategy="steps",
        eval_steps=2, per_device_eval_batch_size=4,
    )  # fmt: skip
    (during,) = [entry["eval_macro_f1"] for entry in history(run) if "eval_macro_f1" in entry]
    assert run.results["eval_macro_f1"] == pytest.approx(during, abs=1e-6)


@pytest.mark.parametrize("how", ["none", "class_balanced"])
def test_gradient_accumulation_changes_neither_loss_nor_gradient(how, tiny_bert, data, tmp_path):
    first = []
    for rows, steps in ((8, 1), (2, 4), (1, 8)):
        run = classify(
            tiny_bert, tmp_path / f"{rows}x{steps}", train_file=data.notes, per_device_train_batch_size=rows,
            gradient_accumulation_steps=steps, logging_first_step=True, dropout=0.0, lora_dropout=0.0,
            long_texts="chunks", max_length=16, class_imbalance=how,
        )  # fmt: skip
        first.append((history(run)[0]["loss"], history(run)[0]["grad_norm"]))
    assert first[1] == pytest.approx(first[0], abs=1e-4) and first[2] == pytest.approx(first[0], abs=1e-4)


def test_4_bit_trains_an_adapter_and_leaves_the_head_whole(tiny_distilbert, data, tmp_path):
    run = classify(
        tiny_distilbert, tmp_path / "run", train_file=data.notes, load_in_4bit=True, dtype="bfloat16", bf16=True,
        lora_target_modules=["q_lin", "v_lin"],
    )  # fmt: skip
    assert run.task["heads"] == ["pre_classifier", "classifier"]
    # 2 layers, q and v 64 -> 64 with r = 4; pre_classifier 64 x 64 + 64, classifier 64 x 3 + 3
    assert run.results["lora_parameters"] == 2 * 2 * 4 * 128
    assert run.results["saved_module_parameters"] == 64 * 64 + 64 + 64 * 3 + 3
    answers = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions])
    assert [a["confidence"] for a in answers] == pytest.approx([r["confidence"] for r in run.predictions], abs=2e-2)


def test_a_second_stage_goes_on_from_the_adapter_and_head_of_the_first(class_run, tiny_bert, data, tmp_path):
    values = {
        "train_file": data.notes, "pooling": "mean", "dropout": 0.0, "validation_fraction": 0.2, "test_fraction": 0.2,
        "learning_rate": 0.0, "lora_target_modules": None,
    }  # fmt: skip
    done = classify(class_run.folder, tmp_path / "run", **values)
    results = done.results
    assert done.task["base_model"] == str(tiny_bert) and results["test_sha256"] == class_run.results["test_sha256"]
    # The first run's numbers are those of its ensemble
    alone = class_run.results["baseline_encoder_alone_test_macro_f1"]
    assert results["test_macro_f1"] == results["first_adapter_test_macro_f1"] == pytest.approx(alone)
    assert results["delta_first_adapter_test_macro_f1"] == 0 and results["mcnemar_first_adapter_test_accuracy_p"] == 1
    answers = Predictor.from_pretrained(str(done.folder))([row["source"] for row in done.predictions])
    assert [a["confidence"] for a in answers] == pytest.approx([r["confidence"] for r in done.predictions], abs=1e-4)
    fewer = [row for row in csv.DictReader(data.notes.open()) if row["ward"] != "allergy"]
    values["train_file"] = write_rows(tmp_path / "fewer.csv", fewer)
    error = refused(class_run.folder, tmp_path / "no", **values)
    assert "another `labels`" in error and "`allergy`" in error


@pytest.mark.parametrize("own", [["a", "b"], ["a", "b", "c"], WARDS[::-1], WARDS])
def test_a_base_model_with_other_classes_keeps_its_layers_but_the_last(own, tiny_bert, data, tmp_path, caplog):
    """Three outputs fit three wards, and would answer for classes that they never saw."""
    labels = class_config(own)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, **labels)
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "base")
    args = ModelConfig(model_name_or_path=str(tmp_path / "base"), dtype="float32")
    model = load_classifier(args, EncoderArguments(max_length=32), torch.device("cpu"), WARDS, ["classifier"])
    assert list(model.config.id2label.values()) == WARDS and model.classifier.out_features == 3
    kept = own == WARDS
    assert torch.equal(model.bert.pooler.dense.weight, base.bert.pooler.dense.weight)
    assert kept == (base.num_labels == 3 and torch.equal(model.classifier.weight, base.classifier.weight))
    assert kept == ("`model_name_or_path`" not in caplog.text)
    if own == ["a", "b"]:  # an adapter on it is served with its own head
        run = classify(tmp_path / "base", tmp_path / "run", train_file=data.notes, max_steps=3)
        answers = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions])
        assert [a["confidence"] for a in answers] == pytest.approx(
            [r["confidence"] for r in run.predictions], abs=1e-3
        )


def test_8_bit_trains_an_adapter(tiny_bert, data, tmp_path):
    run = classify(tiny_bert, tmp_path / "run", train_file=data.notes, load_in_8bit=True, dtype="bfloat16", bf16=True)
    assert run.task["quantization"]["load_in_8bit"] is True and np.isfinite(run.results["test_loss"])


def test_full_fine_tuning_saves_a_model_that_names_its_classes(tiny_bert, data, tmp_path):
    run = classify(
        tiny_bert, tmp_path / "run", train_file=data.notes, use_peft=False, lora_target_modules=None, max_steps=3
    )
    assert run.results["trainable_parameters"] == run.results["total_parameters"]
    model = AutoModelForSequenceClassification.from_pretrained(run.folder)
    assert list(model.config.id2label.values()) == WARDS
    answers = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions])
    assert [a["confidence"] for a in answers] == pytest.approx([r["confidence"] for r in run.predictions], abs=1e-4)
    assert Counter(r["base_prediction"] for r in run.predictions)  # loaded anew, the base model answers as well


def test_mean_pooling_is_the_mean_over_the_tokens_of_the_text_alone(tiny_bert, tmp_path):
    from utils.heads import prepare_classifier

    for folder, kind in ((tiny_bert, "bert"), (tmp_path, "distilbert")):
        if kind == "distilbert":
            save_encoder(tmp_path, ["a", "b"], kind)
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
        ids, mask = torch.tensor([[2, 5, 4, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
        with torch.no_grad():
            mean = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[0, :4].mean(dim=0)
            if kind == "distilbert":
                mean = torch.relu(model.pre_classifier(mean))
            expected = model.classifier(mean)
            logits = prepare_classifier(model, ["classifier"], "mean")(input_ids=ids, attention_mask=mask).logits[0]
        assert torch.allclose(logits, expected, atol=1e-5)


def test_000s_configuration_has_916_264_trainable_parameters():
    from peft import get_peft_model
    from trl import ModelConfig

    from utils.adapters import get_lora_config

    args = ModelConfig(
        use_peft=True, lora_r=16, lora_alpha=32, lora_target_modules=["q_lin", "v_lin"], lora_task_type="SEQ_CLS"
    )
    with torch.device("meta"):
        model = DistilBertForSequenceClassification(DistilBertConfig(num_labels=40))
        config = get_lora_config(args, model, "SEQ_CLS", ["pre_classifier", "classifier"])
        model = get_peft_model(model, config)
    assert count_parameters(model)["trainable_parameters"] == 916_264


def test_all_linear_leaves_the_heads_whole(tiny_distilbert, data, tmp_path):
    run = classify(tiny_distilbert, tmp_path / "run", train_file=data.notes, lora_target_modules=["all-linear"])
    assert run.results["lora_parameters"] == 2 * 4 * (4 * 128 + 2 * 192)  # 4 of 64 -> 64 and 2 of 64 <-> 128 a layer
    assert run.results["saved_module_parameters"] == 64 * 64 + 64 + 64 * 3 + 3


def test_the_distilbert_recipe_runs_on_the_shape_of_distilbert(tiny_distilbert, data, tmp_path):
    argv = [
        str(ROOT / "recipes/distilbert_lora.yaml"), "--model_name_or_path", str(tiny_distilbert), "--output_dir",
        str(tmp_path / "run"), "--use_cpu", "true", "--bf16", "false", "--max_steps", "2", "--train_file",
        str(data.notes), "--text_column", "note", "--label_column", "ward", "--eval_strategy", "no",
        "--save_strategy", "no", "--load_best_model_at_end", "false", "--no_dataset_name", "--no_test_split_name",
    ]  # fmt: skip
    run = run_here(main, ARGUMENTS, argv)
    assert run.code == 0, run.stderr
    assert run.results["lora_parameters"] == 2 * 2 * 16 * 128


@pytest.mark.real_data
@pytest.mark.skipif(not (ROOT.parent / "shared/data").exists(), reason="no shared data")
def test_the_medical_abstracts_run_through_flags_alone(tiny_bert, tmp_path):
    run = classify(
        tiny_bert, tmp_path / "run", train_file=ROOT.parent / "shared/data/medical_abstracts/medical_abstracts.jsonl",
        text_column="text", label_column="label", max_length=16,
    )  # fmt: skip
    results = run.results
    assert results["data_classes"] == 5 and results["data_conflicting_inputs"] > 30
    assert results["data_accuracy_ceiling"] < 1  # some texts stand under several labels
    assert results["baseline_tfidf_svm_test_macro_f1"] > 0.45


def test_conflicting_labels_lower_the_ceiling_and_stay_on_one_side(tiny_bert, data, tmp_path):
    rows = list(csv.DictReader(data.notes.open()))
    twins = [row | {"id": f"twin-{row['id']}", "note": row["note"].upper()} for row in rows[:60]]
    rows += [row | {"ward": "allergy"} for row in twins if row["ward"] != "allergy"]
    path = write_rows(tmp_path / "rows.csv", rows)
    run = classify(tiny_bert, tmp_path / "run", train_file=path, test_fraction=0.3)
    texts = Counter(row["source"].casefold() for row in run.predictions)
    pairs = sum(n == 2 for n in texts.values())
    assert pairs > 5 and run.results["data_accuracy_ceiling"] == pytest.approx(1 - pairs / len(run.predictions))
    assert run.results["errors_conflicting_text"] >= pairs  # at most one of two is right


# ----- Going on, and the same again


def test_a_run_that_was_killed_ends_in_the_weights_of_one_that_was_not(tiny_bert, data, tmp_path):
    values = {
        "train_file": data.notes, "class_imbalance": "balanced_sampling", "max_steps": None, "num_train_epochs": 3,
        "save_strategy": "steps", "save_steps": 10, "train_sampling_strategy": "group_by_length",
    }  # fmt: skip
    whole = classify(tiny_bert, tmp_path / "whole", **values)
    shutil.copytree(whole.folder / "checkpoint-20", tmp_path / "again" / "checkpoint-20")
    again = classify(tiny_bert, tmp_path / "again", **values)
    weights = [load_file(run.folder / "adapter_model.safetensors") for run in (whole, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [r["confidence"] for r in whole.predictions] == [r["confidence"] for r in again.predictions]


# ----- Mistakes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"label_column": "wrad"}, "did you mean `ward`?"),
        ({"max_length": 4096}, "`max_length` is 4096: this model supports 8 to 512 tokens"),
        ({"text_template": "{note} {sex}"}, "`text_template` names {sex}"),
        ({"text_template": "{text} {ward}"}, "`text_template` names {ward}"),
        ({"lora_target_modules": ["q_lin"]}, "`q_lin` matches no layer"),
        ({"dtype": "bfloat16"}, "neither `bf16` nor `fp16` is true"),
        ({"dtype": "bfloat16", "bf16": True, "use_peft": False}, "training all weights needs float32"),
        ({"class_imbalance": "oversample"}, "`class_imbalance`"),
        ({"max_risk": 5}, "`max_risk` is 5.0"),
        ({"max_chunks": 0}, "`max_chunks` is 0"),
        ({"dropout": 1.5}, "`dropout` is 1.5"),
        ({"pooling": "cls"}, "`pooling`"),
        ({"ensemble": "svm"}, "`ensemble`"),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(tiny_bert, data, tmp_path, values, expected):
    assert expected in refused(tiny_bert, tmp_path / "run", **{"train_file": data.notes} | values)


def test_rows_that_cannot_be_classified_are_named(tiny_bert, data, tmp_path):
    rows = list(csv.DictReader(data.notes.open()))
    one = write_rows(tmp_path / "one.csv", [row | {"ward": "urology"} for row in rows])
    assert "`ward` has only one label" in refused(tiny_bert, tmp_path / "run", train_file=one)
    spelt = write_rows(tmp_path / "spelt.csv", [*rows, rows[0] | {"ward": "Urology "}])
    assert "differ only in case" in refused(tiny_bert, tmp_path / "run", train_file=spelt)
    others = [row | {"note": row["note"] * 2, "ward": "oncology"} for row in rows[:3]]
    unseen = write_rows(tmp_path / "test.csv", others)
    error = refused(tiny_bert, tmp_path / "run", train_file=data.notes, test_file=unseen)
    assert "1 labels of the test split are not in the training rows: `oncology` (3 rows: n" in error
    empty = write_rows(tmp_path / "empty.csv", [row | {"note": " "} for row in rows])
    assert "`train` has no rows: 150 were read, dropped 150 missing" in refused(
        tiny_bert, tmp_path / "run", train_file=empty
    )


def test_a_text_of_a_megabyte_and_a_class_of_one_row_are_no_mistake(tiny_bert, data, tmp_path):
    rows = list(csv.DictReader(data.notes.open()))
    rows += [{"id": "long", "note": "heart pain " * 100_000, "ward": "cardiology"}]
    rows += [{"id": "one", "note": "The only one of its kind.", "ward": "oncology"}]
    path = write_rows(tmp_path / "rows.csv", rows)
    for how in ("head_tail", "chunks"):
        run = classify(tiny_bert, tmp_path / how, train_file=path, long_texts=how, max_length=64)
        assert run.task["labels"] == [*WARDS[:2], "oncology", "urology"]


def test_a_thousand_classes_are_no_mistake(tiny_bert, tmp_path):
    rows = [{"note": f"note {i} of {i % 1000}", "ward": f"ward {i % 1000}"} for i in range(2000)]
    path = write_rows(tmp_path / "rows.csv", rows)
    run = classify(tiny_bert, tmp_path / "run", train_file=path, max_predict_samples=200, max_eval_samples=200)
    assert run.results["data_classes"] == 1000
    assert run.results["data_untested_classes"] == 1000 - len({row["reference"] for row in run.predictions}) >= 800
    assert (run.folder / "plots" / "confusion_matrix.png").is_file()


def test_frequency_groups_are_those_of_the_literature():
    assert frequency_groups([500, 101, 100, 20, 19, 0]) == {
        "many_shot": [0, 1],
        "medium_shot": [2, 3],
        "few_shot": [4, 5],
    }


# ----- Two processes


def test_two_processes_classify_every_row_once_and_in_order(launcher, tiny_bert, data, tmp_path):
    argv = class_flags(
        tiny_bert, tmp_path / "run", train_file=data.notes, ddp_backend="gloo", eval_strategy="steps", eval_steps=2,
        pooling="mean",
    )  # fmt: skip
    run = run_script(launcher, "run_classification.py", argv, processes=2)
    assert run.code == 0, run.stderr[-3000:]
    assert len(run.predictions) == run.results["test_rows"] and run.stdout.count("model card: ") == 1
    alone = Predictor.from_pretrained(str(run.folder))([row["source"] for row in run.predictions])
    assert [a["prediction"] for a in alone] == [row["prediction"] for row in run.predictions]


def test_numbers_report_and_card_are_remade_without_a_model(class_run, tmp_path):
    assert_remade(class_run, tmp_path / "run")
