"""Compute the results and files of a classifier of texts with several labels from its logits; no model is needed.

A text gets each label whose probability is at least the label's threshold. Probabilities and thresholds are fitted on
validation rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from utils.evaluation.class_analysis import class_files, class_report, frequency_groups, label_conflicts
from utils.evaluation.ensemble import ensemble_logits
from utils.evaluation.label_analysis import (
    analyse_labels,
    chosen_labels,
    label_error_patterns,
    probability_statistics,
)
from utils.evaluation.outputs import prediction_files
from utils.metrics.intervals import count_clusters, evaluate_statistics, mcnemar, paired_difference
from utils.metrics.languages import identify_languages
from utils.metrics.multilabel import f1_thresholds, multi_label_statistics, ranking_statistics

COMPARED = ("micro_f1", "macro_f1", "samples_f1", "accuracy")  # paired with the base model and each baseline
PRIOR = 1.0  # standard deviation of a label's log scale and bias: rows of a rare label move it little


def calibrate(outputs: dict[str, Any], labels: np.ndarray, task: dict[str, Any]) -> dict[str, Any]:
    """Fit on validation rows what serving applies to logits.

    Args:
        outputs: of the validation rows: `logits`, float [rows, labels], and with `method: linear` `linear_scores`.
        labels: 0 or 1, [rows, labels].
        task: the content of `task.json`: `ensemble` has the `method`.

    Returns:
        what to add to `task.json`: `log_prior` (zeros), `ensemble` with the weight `linear`, `calibration` with the
        `scale` and `bias` of each label, and `thresholds`.
    """
    true, method = np.asarray(labels, dtype=bool), task["ensemble"]["method"]
    weight = fit_weight(outputs["logits"], outputs["linear_scores"], true) if method == "linear" else 0.0
    fitted: dict[str, Any] = {"log_prior": [0.0] * true.shape[1]}
    fitted["ensemble"] = {"method": method, "prior": 0.0, "linear": weight}
    logits = ensemble_logits(outputs, fitted)
    fitted["calibration"] = fit_calibration(logits, true)
    thresholds = f1_thresholds(label_probabilities(logits, fitted), true)
    return fitted | {"thresholds": thresholds.tolist()}


def fit_weight(logits: np.ndarray, scores: np.ndarray, true: np.ndarray) -> float:
    """Return the weight of linear scores beside logits with the highest likelihood, from 0 to 100, fitted along with a
    scale and a bias that all labels share (stacking, Wolpert 1992).

    Args:
        logits, scores: of validation rows, float [rows, labels].
        true: bool [rows, labels].
    """
    sign = np.where(true, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> float:
        log_scale, bias, weight = parameters
        return float(-log_expit(sign * (np.exp(log_scale) * (logits + weight * scores) + bias)).mean())

    return float(minimize(loss, [0.0, 0.0, 1.0], method="L-BFGS-B", bounds=[(-4, 4), (-10, 10), (0, 100)]).x[2])


def fit_calibration(logits: np.ndarray, true: np.ndarray) -> dict[str, list[float]]:
    """Return the `scale` and `bias` of each label, so that sigmoid(scale * logit + bias) is its probability: Platt's
    method (1999), with a normal prior on log scale and bias, which keeps rare labels near 1 and 0.

    Args:
        logits: of validation rows, float [rows, labels].
        true: bool [rows, labels].
    """
    fitted = []
    for own, sign in zip(np.asarray(logits, dtype=float).T, np.where(true, 1.0, -1.0).T, strict=True):

        def loss(parameters: np.ndarray, own: np.ndarray = own, sign: np.ndarray = sign) -> float:
            nll = -log_expit(sign * (np.exp(parameters[0]) * own + parameters[1])).sum()
            return float(nll + (parameters**2).sum() / (2 * PRIOR**2))

        fitted.append(minimize(loss, [0.0, 0.0], method="L-BFGS-B", bounds=[(-4, 4), (-20, 20)]).x)
    scale, bias = np.array(fitted).T
    return {"scale": np.exp(scale).tolist(), "bias": bias.tolist()}


def label_probabilities(logits: np.ndarray, task: Mapping[str, Any]) -> np.ndarray:
    """Return the calibrated probabilities of labels, float64 [rows, labels], from the logits of the ensemble."""
    calibration = task["calibration"]
    return expit(np.asarray(logits, dtype=float) * calibration["scale"] + calibration["bias"])


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the fine-tuned model with the base model and the baselines on the test rows.

    Args:
        rows: as for `utils.evaluation.classification.evaluate`, but `label` is 0 or 1, [rows, labels].
        outputs: `validation` and `test` with `logits`, float [rows, labels], and, for an ensemble, `linear_scores`;
            `base_test` and the like as for `other_system`. Without `test`, only validation rows are evaluated.
        task: the content of `task.json`, including what `calibrate` returned.

    Returns:
        results: for `all_results.json`.
        files: path -> text of the other files; empty without test rows.
    """
    names, class_counts = task["labels"], rows["train"]["class_counts"]
    validation, groups = rows["validation"], frequency_groups(class_counts.tolist())
    known, thresholds = np.asarray(validation["label"], dtype=bool), np.array(task["thresholds"])
    results: dict[str, Any] = {"data_classes": len(names), "data_labels_per_row": float(known.sum() / len(known))}
    if task["ensemble"]["method"] != "none":
        results["ensemble_linear"] = task["ensemble"]["linear"]
    probabilities = label_probabilities(ensemble_logits(outputs["validation"], task), task)
    statistics = row_statistics(probabilities, probabilities >= thresholds, known, groups)
    results |= evaluate_statistics(statistics, validation["cluster"], "eval")
    results["validation_clusters"] = count_clusters(validation["cluster"])
    if "test" not in outputs:
        return results, {}

    test, true = rows["test"], np.asarray(rows["test"]["label"], dtype=bool)
    clusters, results["test_clusters"] = test["cluster"], count_clusters(test["cluster"])
    logits = ensemble_logits(outputs["test"], task)
    results["data_untested_classes"] = len(names) - int(true.any(axis=0).sum())
    probabilities = label_probabilities(logits, task)
    predicted = probabilities >= thresholds
    tuned = row_statistics(probabilities, predicted, true, groups)
    uncalibrated = probability_statistics(expit(np.asarray(logits, dtype=float)), true)
    tuned |= {f"uncalibrated_{name}": uncalibrated[name] for name in ("ece", "brier")}
    results |= evaluate_statistics(tuned, clusters, "test")
    others = {name: own for name, own in outputs.items() if name not in ("validation", "test")}
    sets = {}
    for name, own in others.items():
        sets[name], statistics = other_system(own, known, true, groups)
        results |= evaluate_statistics(statistics, clusters, name)
        results |= paired_difference({m: tuned[m] for m in COMPARED}, statistics, clusters, f"delta_{name}")
        results[f"mcnemar_{name.removeprefix('base_')}_accuracy_p"] = mcnemar(
            (predicted == true).all(axis=1), (sets[name] == true).all(axis=1), clusters
        )

    given = task.get("data", {}).get("language")
    results["language"] = [given] if given else identify_languages(test["text"])
    conflicts = label_conflicts(test["text"], [own.tobytes() for own in true])
    results["data_accuracy_ceiling"] = conflicts["accuracy_ceiling"]
    patterns = label_error_patterns(predicted, true, class_counts, test["cut"], conflicts["rows"])
    results |= {f"errors_{name}": len(indices) for name, indices in patterns.items()}
    columns = {
        "id": test["id"],
        "cluster": list(clusters),
        "source": test["text"],
        "prediction": chosen_labels(predicted, probabilities, names),
        "reference": chosen_labels(true, probabilities, names),
        "base_prediction": chosen_labels(sets["base_test"], probabilities, names),
        "confidence": [
            sorted(row[own].tolist(), reverse=True) for row, own in zip(probabilities, predicted, strict=True)
        ],
    }
    classes = analyse_labels(probabilities, predicted, true, names, class_counts, clusters)
    classes = [row | {"threshold": value} for row, value in zip(classes, thresholds.tolist(), strict=True)]
    analysis = {"problem_type": task["problem_type"], "labels": list(names), "classes": classes}
    files = prediction_files(columns, patterns)
    return results, files | class_files(analysis, class_report(true, predicted, names))


def other_system(
    output: Mapping[str, Any], known: np.ndarray, true: np.ndarray, groups: dict[str, list[int]]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the sets of labels of a system on the test rows, bool [rows, labels], and its row statistics.

    Args:
        output: the sets as `prediction`; or `logits` and `validation_logits`, which get the calibration and thresholds
            that the fine-tuned model has.
        known, true: labels of the validation and the test rows, bool [rows, labels].
        groups: from `frequency_groups`.
    """
    if "prediction" in output:
        predicted = np.asarray(output["prediction"], dtype=bool)
        return predicted, multi_label_statistics(predicted, true, groups)
    fitted = {"calibration": fit_calibration(output["validation_logits"], known)}
    thresholds = f1_thresholds(label_probabilities(output["validation_logits"], fitted), known)
    probabilities = label_probabilities(output["logits"], fitted)
    predicted = probabilities >= thresholds
    return predicted, row_statistics(probabilities, predicted, true, groups)


def row_statistics(
    probabilities: np.ndarray, predicted: np.ndarray, true: np.ndarray, groups: dict[str, list[int]]
) -> dict[str, Any]:
    """Return row statistics of a model: of its sets of labels, of their order, and of its probabilities."""
    statistics = multi_label_statistics(predicted, true, groups) | ranking_statistics(probabilities, true)
    return statistics | probability_statistics(probabilities, true)
