"""From the logits of a tree of classes to the numbers and files of a run; no model is needed."""

from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from utils.evaluation.calibration import (
    abstention_threshold,
    calibration_curves,
    calibration_statistics,
    fit_temperature,
)
from utils.evaluation.class_analysis import (
    analyse_classes,
    class_error_patterns,
    class_files,
    label_conflicts,
)
from utils.evaluation.ensemble import ensemble_logits, fit_ensemble
from utils.evaluation.outputs import prediction_files
from utils.hierarchy import (
    LabelTree,
    abstain_to_parent,
    expand_predictions,
    leaf_log_probabilities,
    sum_to_parents,
)
from utils.metrics.hierarchy import hierarchy_statistics
from utils.metrics.intervals import evaluate_statistics, mcnemar, paired_difference, resampling_weights


def calibrate(
    outputs: dict[str, Any],
    labels: np.ndarray,
    class_counts: np.ndarray,
    tree: LabelTree,
    task: dict[str, Any],
) -> dict[str, Any]:
    """Fit on validation rows what serving applies to logits, for `task.json`.

    Args:
        outputs: of the validation rows: `logits` [rows, nodes] and, with `method: linear`, `linear_scores` of leaves.
        labels: their leaves, int [rows].
        class_counts: training rows of each leaf.
        tree: the labels.
        task: `ensemble` says the `method`, `abstention` the `max_risk`: the error rate that answers may have.

    Returns:
        `log_prior`, `ensemble`, `temperature` and `abstention`, whose `thresholds` are one a level.
    """
    max_risk = task["abstention"]["max_risk"]
    log_prior = np.log(np.maximum(class_counts, 1) / class_counts.sum())
    leaves = leaf_outputs(outputs, tree)
    fitted = {
        "log_prior": log_prior.tolist(),
        "ensemble": fit_ensemble(task["ensemble"]["method"], leaves, log_prior, labels),
    }
    logits = ensemble_logits(leaves, fitted)
    fitted["temperature"] = fit_temperature(logits, labels)
    log_p = sum_to_parents(logits / fitted["temperature"], tree)
    correct = expand_predictions(log_p, tree) == tree.ancestors[labels]
    thresholds = [
        abstention_threshold(np.exp(log_p[:, columns]).max(axis=1), right, max_risk)
        for columns, right in zip(tree.columns, correct.T, strict=True)
    ]
    return fitted | {"abstention": {"max_risk": max_risk, "thresholds": thresholds}}


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the tuned model with the base model and the baselines on the test rows.

    Args:
        rows: split -> a value a row: `label` (the leaf) and `cluster` of `validation` and `test`, and `id`, `text` and
            `cut` (the model saw only a part) of `test`; `train` has `class_counts` of the leaves alone.
        outputs: `validation`, `test` and `base_test` hold `logits` [rows, nodes] and, with an ensemble of a linear
            model, `linear_scores` [rows, leaves]; `baseline_<name>_test` hold the node on each level as `prediction`
            [rows, depth]. Without `test` the validation rows alone are evaluated.
        task: the content of `task.json`, with what `calibrate` has fitted; `evaluation` says `seed`.

    Returns:
        results for `all_results.json`, and the text of each further file.
    """
    tree, temperature = LabelTree.from_dict(task["tree"]), task["temperature"]
    seed, max_risk, thresholds = (
        task["evaluation"]["seed"],
        task["abstention"]["max_risk"],
        task["abstention"]["thresholds"],
    )
    validation, test = rows["validation"], rows["test"]
    results: dict[str, Any] = {
        f"data_{name}_classes": len(nodes) for name, nodes in zip(tree.level_names, tree.levels, strict=True)
    }
    results["temperature"] = temperature
    if task["ensemble"]["method"] != "none":
        results |= {f"ensemble_{part}": task["ensemble"][part] for part in ("prior", "linear")}
    weights = resampling_weights(len(validation["label"]), seed, validation["cluster"])
    leaves = ensemble_logits(leaf_outputs(outputs["validation"], tree), task)
    statistics = row_statistics(sum_to_parents(leaves / temperature, tree), validation["label"], tree)
    results |= evaluate_statistics(statistics, weights, "eval")
    if "test" not in outputs:
        return results, {}

    labels, texts = test["label"], test["text"]
    true = tree.ancestors[labels]
    weights = resampling_weights(len(labels), seed, test["cluster"])
    leaves = ensemble_logits(leaf_outputs(outputs["test"], tree), task)
    log_p, uncalibrated = sum_to_parents(leaves / temperature, tree), sum_to_parents(leaves, tree)
    predictions = expand_predictions(log_p, tree)
    correct = predictions[:, -1] == labels
    tuned = row_statistics(log_p, labels, tree)
    base_log_p = sum_to_parents(leaf_log_probabilities(outputs["base_test"]["logits"], tree), tree)
    base = row_statistics(base_log_p, labels, tree)
    results |= evaluate_statistics(tuned, weights, "test") | evaluate_statistics(base, weights, "base_test")
    compared = {k: v for k, v in tuned.items() if k.endswith(("macro_f1", "path_accuracy", "hierarchical_f1"))}
    results |= paired_difference(compared, base, weights, "delta_base_test")
    for name, output in outputs.items():
        if name.startswith("baseline_"):
            statistics = hierarchy_statistics(output["prediction"], labels, tree)
            results |= evaluate_statistics(statistics, weights, name)
            results |= paired_difference(compared, statistics, weights, f"delta_{name}")
            on_path = (output["prediction"] == true).all(axis=1)
            results[f"mcnemar_{name}_path_accuracy_p"] = mcnemar(correct, on_path)

    # the deepest level that is sure enough is what a reader is shown
    shown = abstain_to_parent(log_p, tree, [np.inf if t is None else t for t in thresholds])
    results |= {f"test_shown_to_{name}": float((shown > i).mean()) for i, name in enumerate(tree.level_names)}
    answered, deepest = shown > 0, np.maximum(shown, 1) - 1
    right = np.take_along_axis(predictions == true, deepest[:, None], axis=1)[:, 0]
    if answered.any():
        risk = {"selective_risk": np.column_stack([answered & ~right, answered]).astype(float)}
        results |= evaluate_statistics(risk, weights, "test")

    conflicts = label_conflicts(texts, labels)
    results["data_accuracy_ceiling"] = conflicts["accuracy_ceiling"]
    probabilities, counts = np.exp(log_p[:, tree.columns[-1]]), rows["train"]["class_counts"]
    patterns = class_error_patterns(labels, predictions[:, -1], probabilities, counts, test["cut"], conflicts["rows"])
    results |= {f"errors_{name}": len(found) for name, found in patterns.items()}
    words, levels = [len(text.split()) for text in texts], []
    for i, columns in enumerate(tree.columns):
        own, of_level = np.exp(log_p[:, columns]), np.bincount(tree.ancestors[:, i], counts).astype(int)
        level = analyse_classes(true[:, i], predictions[:, i], own, tree.levels[i], of_level, words, weights)
        level |= calibration_curves(own, np.exp(uncalibrated[:, columns]), true[:, i], temperature)
        told, wrong = shown > i, predictions[:, i] != true[:, i]
        level["abstention"] = {"max_risk": max_risk, "threshold": thresholds[i], "coverage": float(told.mean())}
        level["abstention"]["risk"] = float(wrong[told].mean()) if told.any() else None
        levels.append(level)
    analysis = levels[-1] | {"tree": tree.to_dict(), "level_names": tree.level_names, "levels": levels[:-1]}
    columns = {
        "id": test["id"],
        "source": texts,
        "prediction": [tree.path(leaf) for leaf in predictions[:, -1]],
        "reference": [tree.path(leaf) for leaf in labels],
        "base_prediction": [tree.path(leaf) for leaf in expand_predictions(base_log_p, tree)[:, -1]],
        "confidence": probabilities.max(axis=1).tolist(),
        "shown": shown.tolist(),
    }
    table = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    every = {"labels": range(len(tree.leaves)), "target_names": list(tree.leaves), "digits": 3, "zero_division": 0}
    report = classification_report(labels, predictions[:, -1], **every)
    return results, prediction_files(table, patterns) | class_files(analysis, report)


def leaf_outputs(outputs: dict[str, Any], tree: LabelTree) -> dict[str, Any]:
    """The outputs of a model with the log-probabilities of the leaves as `logits`, which is what is calibrated."""
    return outputs | {"logits": leaf_log_probabilities(outputs["logits"], tree)}


def row_statistics(log_p: np.ndarray, labels: np.ndarray, tree: LabelTree) -> dict[str, Any]:
    """Row statistics of a model: paths, levels, and how good the probabilities of each level are."""
    statistics = hierarchy_statistics(expand_predictions(log_p, tree), labels, tree, log_p)
    for level, name in enumerate(tree.level_names):
        found = calibration_statistics(np.exp(log_p[:, tree.columns[level]]), tree.ancestors[labels, level])
        statistics |= {f"{name}_{metric}": statistic for metric, statistic in found.items()}
    return statistics
