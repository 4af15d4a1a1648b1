"""From a classifier's logits to the numbers and files of a run; no model is needed."""

from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from utils.data.labels import frequency_groups
from utils.evaluation.calibration import (
    abstention_statistics,
    abstention_threshold,
    area_under_risk_coverage,
    calibration_curves,
    calibration_statistics,
    fit_temperature,
    softmax,
)
from utils.evaluation.class_analysis import (
    analyse_classes,
    class_error_patterns,
    class_files,
    label_conflicts,
)
from utils.evaluation.ensemble import ensemble_logits, fit_ensemble
from utils.evaluation.outputs import prediction_files
from utils.metrics.intervals import evaluate_statistics, mcnemar, paired_difference, resampling_weights
from utils.metrics.statistics import accuracy_statistics, classification_statistics

COMPARED = ("accuracy", "macro_f1", "weighted_f1")  # with the base model and each baseline, paired


def calibrate(
    outputs: dict[str, Any], labels: np.ndarray, class_counts: np.ndarray, task: dict[str, Any]
) -> dict[str, Any]:
    """Fit on validation rows what serving applies to logits, for `task.json`.

    Args:
        outputs: of the validation rows: `logits` [rows, classes] and, with `method: linear`, `linear_scores`.
        labels: their classes, int [rows].
        class_counts: training rows of each class.
        task: `ensemble` says the `method`, `abstention` the `max_risk`: the error rate that answers may have.

    Returns:
        `log_prior`, `ensemble`, `temperature` and `abstention`.
    """
    max_risk = task["abstention"]["max_risk"]
    log_prior = np.log(np.maximum(class_counts, 1) / class_counts.sum())
    fitted = {
        "log_prior": log_prior.tolist(),
        "ensemble": fit_ensemble(task["ensemble"]["method"], outputs, log_prior, labels),
    }
    logits = ensemble_logits(outputs, fitted)
    fitted["temperature"] = fit_temperature(logits, labels)
    confidence = softmax(logits, fitted["temperature"]).max(axis=1)
    threshold = abstention_threshold(confidence, logits.argmax(axis=1) == labels, max_risk)
    return fitted | {"abstention": {"max_risk": max_risk, "threshold": threshold}}


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the tuned model with the base model and the baselines on the test rows.

    Args:
        rows: split -> a value a row: `label` and `cluster` of `validation` and `test`, and `id`, `text` and `cut` (the
            model saw only a part) of `test`; `train` has `class_counts` alone.
        outputs: `validation`, `test` and `base_test` hold `logits` [rows, classes] and, with an ensemble of a linear
            model, `linear_scores`; `baseline_<name>_test` hold the classes as `prediction` [rows]. Without `test` the
            validation rows alone are evaluated.
        task: the content of `task.json`, with what `calibrate` has fitted; `evaluation` says `seed` and `top_k`.

    Returns:
        results for `all_results.json`, and the text of each further file.
    """
    seed, temperature = task["evaluation"]["seed"], task["temperature"]
    validation, test = rows["validation"], rows["test"]
    class_counts = rows["train"]["class_counts"]
    results: dict[str, Any] = {"data_classes": len(task["labels"]), "temperature": temperature}
    if task["ensemble"]["method"] != "none":
        results |= {f"ensemble_{part}": task["ensemble"][part] for part in ("prior", "linear")}
    weights = resampling_weights(len(validation["label"]), seed, validation["cluster"])
    logits = ensemble_logits(outputs["validation"], task)
    statistics = row_statistics(logits, validation["label"], temperature, class_counts, task)
    results |= evaluate_statistics(statistics, weights, "eval")
    if "test" not in outputs:
        return results, {}

    labels, texts = test["label"], test["text"]
    weights = resampling_weights(len(labels), seed, test["cluster"])
    logits = ensemble_logits(outputs["test"], task)
    probabilities = softmax(logits, temperature)
    predictions, confidence = logits.argmax(axis=1), probabilities.max(axis=1)
    correct = predictions == labels
    tuned = row_statistics(logits, labels, temperature, class_counts, task)
    uncalibrated = calibration_statistics(softmax(logits), labels)
    tuned |= {f"uncalibrated_{name}": uncalibrated[name] for name in ("ece", "brier")}
    tuned |= abstention_statistics(confidence, correct, task["abstention"]["threshold"])
    results |= evaluate_statistics(tuned, weights, "test")
    results["test_aurc"] = area_under_risk_coverage(confidence, correct)
    compared = {name: tuned[name] for name in COMPARED}

    base_logits = outputs["base_test"]["logits"]
    base = row_statistics(base_logits, labels, 1.0, class_counts, task)
    results |= evaluate_statistics(base, weights, "base_test")
    results |= paired_difference(compared, base, weights, "delta_base_test")
    results["mcnemar_test_accuracy_p"] = mcnemar(correct, base_logits.argmax(axis=1) == labels)
    groups = frequency_groups(class_counts.tolist())
    for name, output in outputs.items():
        if name.startswith("baseline_"):
            guesses = output["prediction"]
            statistics = classification_statistics(guesses, labels, range(len(class_counts)), groups)
            results |= evaluate_statistics(statistics, weights, name)
            results |= paired_difference(compared, statistics, weights, f"delta_{name}")
            results[f"mcnemar_{name}_accuracy_p"] = mcnemar(correct, guesses == labels)

    conflicts = label_conflicts(texts, labels)
    results["data_accuracy_ceiling"] = conflicts["accuracy_ceiling"]
    patterns = class_error_patterns(labels, predictions, probabilities, class_counts, test["cut"], conflicts["rows"])
    results |= {f"errors_{name}": len(found) for name, found in patterns.items()}
    names, words = task["labels"], [len(text.split()) for text in texts]
    analysis = analyse_classes(labels, predictions, probabilities, names, class_counts, words, weights)
    analysis |= calibration_curves(probabilities, softmax(logits), labels, temperature)
    analysis["abstention"] = task["abstention"] | {"coverage": results["test_coverage"]}
    analysis["abstention"]["risk"] = results.get("test_selective_risk")
    shown = {
        "id": test["id"],
        "source": texts,
        "prediction": [names[i] for i in predictions],
        "reference": [names[i] for i in labels],
        "base_prediction": [names[i] for i in base_logits.argmax(axis=1)],
        "confidence": confidence.tolist(),
    }
    table = [dict(zip(shown, values, strict=True)) for values in zip(*shown.values(), strict=True)]
    every = {"labels": range(len(names)), "target_names": names, "digits": 3, "zero_division": 0}
    report = classification_report(labels, predictions, **every)
    return results, prediction_files(table, patterns) | class_files(analysis, report)


def row_statistics(
    logits: np.ndarray, labels: np.ndarray, temperature: float, class_counts: np.ndarray, task: dict[str, Any]
) -> dict[str, Any]:
    """Row statistics of a model: right or wrong by class, among the k likeliest, and its probabilities' quality."""
    top_k = task["evaluation"]["top_k"]
    rank = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    groups = frequency_groups(class_counts.tolist())
    statistics = classification_statistics(logits.argmax(axis=1), labels, range(logits.shape[1]), groups)
    statistics |= accuracy_statistics(rank < top_k, f"top_{top_k}_accuracy")
    return statistics | calibration_statistics(softmax(logits, temperature), labels)
