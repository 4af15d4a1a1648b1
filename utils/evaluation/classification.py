"""Compute the results and files of a classification run from its logits; no model is needed."""

from typing import Any

import numpy as np

from utils.evaluation import multilabel
from utils.evaluation.calibration import (
    abstention_statistics,
    abstention_threshold,
    area_under_risk_coverage,
    calibration_curves,
    calibration_rows,
    calibration_statistics,
    find_temperature,
    softmax,
)
from utils.evaluation.class_analysis import (
    analyse_classes,
    class_error_patterns,
    class_files,
    class_report,
    frequency_groups,
    label_conflicts,
)
from utils.evaluation.ensemble import ensemble_logits, fit_ensemble
from utils.evaluation.outputs import prediction_files
from utils.metrics.baselines import classification_baselines
from utils.metrics.extra import compare_extra
from utils.metrics.intervals import Clusters, count_clusters, evaluate_statistics, mcnemar, paired_difference
from utils.metrics.languages import identify_languages
from utils.metrics.multilabel import multi_label_baselines
from utils.metrics.statistics import accuracy_statistics, classification_statistics
from utils.words import count_words

COMPARED = ("accuracy", "macro_f1", "weighted_f1")  # paired with the base model and each baseline


def calibrate(
    outputs: dict[str, Any], labels: np.ndarray, clusters: Clusters, class_counts: np.ndarray, task: dict[str, Any]
) -> dict[str, Any]:
    """Fit on validation rows what serving applies to logits.

    Args:
        outputs: of the validation rows: `logits`, float [rows, classes], and with `method: linear` `linear_scores`.
        labels: their classes, int [rows].
        clusters: their clusters.
        class_counts: training rows of each class, int [classes].
        task: the content of `task.json`: `ensemble` has the `method`, `abstention` the `max_risk`, the highest share
            of wrong answers to allow; `evaluation` has the `seed`.

    Returns:
        what to add to `task.json`: `log_prior`, `ensemble`, `temperature` and `abstention`; with several labels a
        text what `utils.evaluation.multilabel.calibrate` returns.
    """
    if labels.ndim == 2:
        return multilabel.calibrate(outputs, labels, task)
    max_risk = task["abstention"]["max_risk"]
    log_prior = np.log(np.maximum(class_counts, 1) / class_counts.sum())
    fits, held = calibration_rows(clusters, task["evaluation"]["seed"])
    own = {name: values[fits] for name, values in outputs.items()}
    ensemble = fit_ensemble(task["ensemble"]["method"], own, log_prior, labels[fits])
    fitted: dict[str, Any] = {"log_prior": log_prior.tolist(), "ensemble": ensemble}
    logits = ensemble_logits(outputs, fitted)
    temperature = find_temperature(logits[fits], labels[fits])
    confidence, correct = softmax(logits, temperature).max(axis=1), logits.argmax(axis=1) == labels
    threshold = abstention_threshold(confidence[held], correct[held], max_risk)
    abstention = task["abstention"] | {"threshold": threshold, "rows": len(held)}
    return fitted | {"temperature": temperature, "abstention": abstention}


def baseline_outputs(
    rows: dict[str, Any], outputs: dict[str, Any], ensemble: str, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return `baseline_<name>_test` of each baseline on the test rows, for `evaluate`.

    Args:
        rows: split -> `text` and `label` of each row.
        outputs: `test` and `validation` with the `logits` of the fine-tuned encoder.
        ensemble: the method; with one, the encoder alone is a baseline.
        seed: seed of the baselines.
    """
    train, test = rows["train"], rows["test"]
    several = train["label"].ndim == 2
    if several:
        guesses = multi_label_baselines(train, rows["validation"], test["text"], seed)
    else:
        guesses = classification_baselines(train["text"], train["label"], test["text"], seed)
    found = {f"baseline_{name}_test": {"prediction": own} for name, own in guesses.items()}
    if ensemble != "none":
        alone, known = outputs["test"]["logits"], outputs["validation"]["logits"]
        own = {"logits": alone, "validation_logits": known} if several else {"prediction": alone.argmax(axis=1)}
        found["baseline_encoder_alone_test"] = own
    return found


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the fine-tuned model with the base model and the baselines on the test rows.

    Args:
        rows: `validation` and `test`, each column -> one value per row: `label`, int, and `cluster`. `test` also has
            `id`, `text` and `cut` (the model read only part of the text); `train` has only `class_counts`, int
            [classes].
        outputs: `validation`, `test`, `base_test` and, if there was one, `first_adapter_test` with `logits`, float
            [rows, classes], and, for an ensemble with a linear model, `linear_scores`; `baseline_<name>_test` with the
            classes as `prediction`, int [rows]. Without `test`, only the validation rows are evaluated.
        task: the content of `task.json`, including what `calibrate` returned; `evaluation` has `top_k`.

    Returns:
        results: for `all_results.json`.
        files: path -> text of the other files; empty without test rows.
    """
    if "problem_type" in task:
        return multilabel.evaluate(rows, outputs, task)
    names, temperature = task["labels"], task["temperature"]
    class_counts, validation = rows["train"]["class_counts"], rows["validation"]
    results: dict[str, Any] = {"data_classes": len(names), "temperature": temperature}
    if task["ensemble"]["method"] != "none":
        results |= {f"ensemble_{part}": task["ensemble"][part] for part in ("prior", "linear")}
    logits = ensemble_logits(outputs["validation"], task)
    statistics = row_statistics(logits, validation["label"], temperature, class_counts, task)
    results |= evaluate_statistics(statistics, validation["cluster"], "eval")
    results["validation_clusters"] = count_clusters(validation["cluster"])
    if "test" not in outputs:
        return results, {}

    test, labels = rows["test"], rows["test"]["label"]
    clusters, results["test_clusters"] = test["cluster"], count_clusters(test["cluster"])
    logits = ensemble_logits(outputs["test"], task)
    results |= compare_systems(logits, outputs, labels, class_counts, clusters, task)

    predictions, probabilities = logits.argmax(axis=1), softmax(logits, temperature)
    base_predictions = outputs["base_test"]["logits"].argmax(axis=1)
    conflicts = label_conflicts(test["text"], labels)
    given = task.get("data", {}).get("language")
    results["language"] = [given] if given else identify_languages(test["text"])
    results["data_accuracy_ceiling"] = conflicts["accuracy_ceiling"]
    results["data_untested_classes"] = len(names) - len(set(labels.tolist()))
    patterns = class_error_patterns(labels, predictions, probabilities, class_counts, test["cut"], conflicts["rows"])
    results |= {f"errors_{name}": len(indices) for name, indices in patterns.items()}
    words = [count_words(text) for text in test["text"]]
    analysis = analyse_classes(labels, predictions, probabilities, names, class_counts, words, clusters)
    analysis |= calibration_curves(probabilities, softmax(logits), labels, temperature, clusters)
    measured = {"coverage": results["test_coverage"], "risk": results.get("test_selective_risk")}
    analysis["abstention"] = task["abstention"] | measured
    columns = {
        "id": test["id"],
        "cluster": list(clusters),
        "source": test["text"],
        "prediction": [names[i] for i in predictions],
        "reference": [names[i] for i in labels],
        "base_prediction": [names[i] for i in base_predictions],
        "confidence": probabilities.max(axis=1).tolist(),
    }
    files = prediction_files(columns, patterns)
    return results, files | class_files(analysis, class_report(labels, predictions, names))


def compare_systems(
    logits: np.ndarray,
    outputs: dict[str, Any],
    labels: np.ndarray,
    class_counts: np.ndarray,
    clusters: Clusters,
    task: dict[str, Any],
) -> dict[str, Any]:
    """Return the test metrics of all systems and the paired differences from the fine-tuned model.

    Args:
        logits: of the fine-tuned model on the test rows, with its ensemble, float [rows, classes].
        outputs, class_counts, task: as for `evaluate`.
        labels: int [rows].
        clusters: id of the cluster of each row.
    """
    probabilities = softmax(logits, task["temperature"])
    confidence, correct = probabilities.max(axis=1), logits.argmax(axis=1) == labels
    tuned = row_statistics(logits, labels, task["temperature"], class_counts, task)
    uncalibrated = calibration_statistics(softmax(logits), labels)
    tuned |= {f"uncalibrated_{name}": uncalibrated[name] for name in ("ece", "brier")}
    tuned |= abstention_statistics(confidence, correct, task["abstention"]["threshold"])
    results = evaluate_statistics(tuned, clusters, "test")
    results["test_aurc"] = area_under_risk_coverage(confidence, correct)

    others, predictions = {}, {}
    groups = frequency_groups(class_counts.tolist())
    for name, output in outputs.items():
        if name.startswith("baseline_"):
            predictions[name] = output["prediction"]
            others[name] = classification_statistics(predictions[name], labels, range(len(class_counts)), groups)
        elif name not in ("validation", "test"):
            predictions[name] = output["logits"].argmax(axis=1)
            temperature = output.get("temperature", 1.0)
            others[name] = row_statistics(output["logits"], labels, temperature, class_counts, task)
    compared = {name: tuned[name] for name in COMPARED}
    for name, statistics in others.items():
        results |= evaluate_statistics(statistics, clusters, name)
        results |= paired_difference(compared, statistics, clusters, f"delta_{name}")
        key = f"mcnemar_{name.removeprefix('base_')}_accuracy_p"
        results[key] = mcnemar(correct, predictions[name] == labels, clusters)
    predictions = {"test": logits.argmax(axis=1)} | predictions
    return results | compare_extra(task.get("extra_metrics"), predictions, labels, clusters)


def row_statistics(
    logits: np.ndarray, labels: np.ndarray, temperature: float, class_counts: np.ndarray, task: dict[str, Any]
) -> dict[str, Any]:
    """Return row statistics of a model: class metrics, top-k accuracy and the calibration of its probabilities."""
    top_k = task["evaluation"]["top_k"]
    rank = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    groups = frequency_groups(class_counts.tolist())
    statistics = classification_statistics(logits.argmax(axis=1), labels, range(logits.shape[1]), groups)
    statistics |= accuracy_statistics(rank < top_k, f"top_{top_k}_accuracy")
    return statistics | calibration_statistics(softmax(logits, temperature), labels)
