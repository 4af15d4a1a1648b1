"""Compute the results and files of a run on a tree of classes from its logits; no model is needed."""

from typing import Any

import numpy as np

from utils.evaluation.calibration import (
    abstention_threshold,
    calibration_curves,
    calibration_rows,
    calibration_statistics,
    find_temperature,
)
from utils.evaluation.class_analysis import (
    analyse_classes,
    class_error_patterns,
    class_files,
    class_report,
    label_conflicts,
)
from utils.evaluation.confidence import abstain_to_parent
from utils.evaluation.ensemble import ensemble_logits, fit_ensemble
from utils.evaluation.outputs import prediction_files
from utils.hierarchy import (
    LabelTree,
    expand_predictions,
    leaf_log_probabilities,
    sum_to_parents,
)
from utils.metrics.extra import compare_extra
from utils.metrics.hierarchy import hierarchy_statistics
from utils.metrics.intervals import Clusters, count_clusters, evaluate_statistics, mcnemar, paired_difference
from utils.metrics.languages import identify_languages
from utils.words import count_words

COMPARED = ("macro_f1", "path_accuracy", "hierarchical_f1")  # ends of metrics, paired with each other system


def calibrate(
    outputs: dict[str, Any],
    labels: np.ndarray,
    clusters: Clusters,
    class_counts: np.ndarray,
    tree: LabelTree,
    task: dict[str, Any],
) -> dict[str, Any]:
    """Fit on validation rows what serving applies to logits.

    Args:
        outputs: of the validation rows: `logits`, float [rows, nodes], and with `method: linear` `linear_scores` of
            the leaves, float [rows, leaves].
        labels: their leaves, int [rows].
        clusters: their clusters.
        class_counts: training rows of each leaf, int [leaves].
        tree: the tree of classes.
        task: the content of `task.json`: `ensemble` has the `method`, `abstention` the `max_risk`, the highest share
            of wrong answers to allow; `evaluation` has the `seed`.

    Returns:
        what to add to `task.json`: `log_prior`, `ensemble`, `temperature` and `abstention`, whose `thresholds` are one
        per level.
    """
    max_risk = task["abstention"]["max_risk"]
    log_prior = np.log(np.maximum(class_counts, 1) / class_counts.sum())
    leaves = leaf_outputs(outputs, tree)
    fits, held = calibration_rows(clusters, task["evaluation"]["seed"])
    own = {name: values[fits] for name, values in leaves.items()}
    ensemble = fit_ensemble(task["ensemble"]["method"], own, log_prior, labels[fits])
    fitted: dict[str, Any] = {"log_prior": log_prior.tolist(), "ensemble": ensemble}
    logits = ensemble_logits(leaves, fitted)
    temperature = find_temperature(logits[fits], labels[fits])
    log_p = sum_to_parents(logits[held] / temperature, tree)
    correct = expand_predictions(log_p, tree) == tree.ancestors[labels[held]]
    thresholds = [
        abstention_threshold(np.exp(log_p[:, nodes]).max(axis=1), correct[:, level], max_risk)
        for level, nodes in enumerate(tree.columns)
    ]
    abstention = task["abstention"] | {"thresholds": thresholds, "rows": len(held)}
    return fitted | {"temperature": temperature, "abstention": abstention}


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the fine-tuned model with the base model and the baselines on the test rows.

    Args:
        rows: `validation` and `test`, each column -> one value per row: `label`, the leaf, int, and `cluster`. `test`
            also has `id`, `text` and `cut` (the model read only part of the text); `train` has only `class_counts` of
            the leaves, int [leaves].
        outputs: `validation`, `test`, `base_test` and, if there was one, `first_adapter_test` with `logits`, float
            [rows, nodes] or, of the linear probe `base_test`, [rows, leaves]; for an ensemble with a linear model also
            `linear_scores`, float [rows, leaves]; `baseline_<name>_test` with the node on each level as `prediction`,
            int [rows, depth]. Without `test`, only the validation rows are evaluated.
        task: the content of `task.json`, including what `calibrate` returned.

    Returns:
        results: for `all_results.json`.
        files: path -> text of the other files; empty without test rows.
    """
    tree, temperature = LabelTree.from_dict(task["tree"]), task["temperature"]
    class_counts, validation = rows["train"]["class_counts"], rows["validation"]
    results: dict[str, Any] = {
        f"data_{name}_classes": len(nodes) for name, nodes in zip(tree.level_names, tree.levels, strict=True)
    }
    results["temperature"] = temperature
    if task["ensemble"]["method"] != "none":
        results |= {f"ensemble_{part}": task["ensemble"][part] for part in ("prior", "linear")}
    logits = ensemble_logits(leaf_outputs(outputs["validation"], tree), task)
    statistics = row_statistics(sum_to_parents(logits / temperature, tree), validation["label"], tree)
    results |= evaluate_statistics(statistics, validation["cluster"], "eval")
    results["validation_clusters"] = count_clusters(validation["cluster"])
    if "test" not in outputs:
        return results, {}

    test, labels = rows["test"], rows["test"]["label"]
    clusters, results["test_clusters"] = test["cluster"], count_clusters(test["cluster"])
    logits = ensemble_logits(leaf_outputs(outputs["test"], tree), task)
    log_p = sum_to_parents(logits / temperature, tree)
    base_log_p = sum_to_parents(leaf_outputs(outputs["base_test"], tree)["logits"], tree)
    results |= compare_systems(log_p, outputs, labels, tree, clusters, task)

    predictions = expand_predictions(log_p, tree)
    thresholds = [np.inf if threshold is None else threshold for threshold in task["abstention"]["thresholds"]]
    shown = abstain_to_parent(log_p, tree, thresholds)
    results |= {f"test_shown_to_{name}": float((shown > i).mean()) for i, name in enumerate(tree.level_names)}
    answered, deepest = shown > 0, np.maximum(shown, 1) - 1
    if answered.any():  # an answer is right if the deepest level that it shows is right
        correct = (predictions == tree.ancestors[labels])[np.arange(len(labels)), deepest]
        risk = {"selective_risk": np.column_stack([answered & ~correct, answered]).astype(float)}
        results |= evaluate_statistics(risk, clusters, "test")

    leaves = predictions[:, -1]
    conflicts = label_conflicts(test["text"], labels)
    given = task.get("data", {}).get("language")
    results["language"] = [given] if given else identify_languages(test["text"])
    results["data_accuracy_ceiling"] = conflicts["accuracy_ceiling"]
    results["data_untested_classes"] = len(tree.levels[-1]) - len(set(labels.tolist()))
    probabilities = np.exp(log_p[:, tree.columns[-1]])
    patterns = class_error_patterns(labels, leaves, probabilities, class_counts, test["cut"], conflicts["rows"])
    results |= {f"errors_{name}": len(indices) for name, indices in patterns.items()}
    uncalibrated = sum_to_parents(logits, tree)
    analysis = analyse_levels(log_p, uncalibrated, shown, test, class_counts, tree, task)
    columns = {
        "id": test["id"],
        "cluster": list(clusters),
        "source": test["text"],
        "prediction": [tree.path(leaf) for leaf in leaves],
        "reference": [tree.path(leaf) for leaf in labels],
        "base_prediction": [tree.path(leaf) for leaf in expand_predictions(base_log_p, tree)[:, -1]],
        "confidence": probabilities.max(axis=1).tolist(),
        "shown": shown.tolist(),
    }
    files = prediction_files(columns, patterns)
    return results, files | class_files(analysis, class_report(labels, leaves, list(tree.leaves)))


def compare_systems(
    log_p: np.ndarray,
    outputs: dict[str, Any],
    labels: np.ndarray,
    tree: LabelTree,
    clusters: Clusters,
    task: dict[str, Any],
) -> dict[str, Any]:
    """Return the test metrics of all systems and the paired differences from the fine-tuned model.

    Args:
        log_p: log-probabilities of the fine-tuned model, float [rows, nodes].
        outputs, task: as for `evaluate`.
        labels: leaves, int [rows].
        tree: the tree of classes.
        clusters: id of the cluster of each row.
    """
    tuned = row_statistics(log_p, labels, tree)
    compared = {name: statistic for name, statistic in tuned.items() if name.endswith(COMPARED)}
    results = evaluate_statistics(tuned, clusters, "test")
    predictions = {"test": expand_predictions(log_p, tree)[:, -1]}
    correct = predictions["test"] == labels
    for name, output in outputs.items():
        if name.startswith("baseline_"):
            predictions[name] = output["prediction"][:, -1]
            statistics = hierarchy_statistics(output["prediction"], labels, tree)
            results |= evaluate_statistics(statistics, clusters, name)
            results |= paired_difference(compared, statistics, clusters, f"delta_{name}")
            on_path = (output["prediction"] == tree.ancestors[labels]).all(axis=1)
            results[f"mcnemar_{name}_path_accuracy_p"] = mcnemar(correct, on_path, clusters)
        elif name not in ("validation", "test"):
            scores = leaf_outputs(output, tree)["logits"] / output.get("temperature", 1.0)
            predictions[name] = expand_predictions(sum_to_parents(scores, tree), tree)[:, -1]
            statistics = row_statistics(sum_to_parents(scores, tree), labels, tree)
            results |= evaluate_statistics(statistics, clusters, name)
            results |= paired_difference(compared, statistics, clusters, f"delta_{name}")
    return results | compare_extra(task.get("extra_metrics"), predictions, labels, clusters)


def analyse_levels(
    log_p: np.ndarray,
    uncalibrated: np.ndarray,
    shown: np.ndarray,
    test: dict[str, Any],
    class_counts: np.ndarray,
    tree: LabelTree,
    task: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of `analysis.json`: `analyse_classes` and `calibration_curves` of each level.

    Args:
        log_p, uncalibrated: log-probabilities with and without the temperature, float [rows, nodes].
        shown: number of levels that the model answers, int [rows].
        test, class_counts, task: as for `evaluate`.
        tree: the tree of classes.

    Returns:
        the analysis of the leaves, with `tree`, `level_names`, and `levels`, the analyses of the levels above.
    """
    words, clusters = [count_words(text) for text in test["text"]], test["cluster"]
    true, predictions = tree.ancestors[test["label"]], expand_predictions(log_p, tree)
    levels = []
    for i, nodes in enumerate(tree.columns):
        probabilities = np.exp(log_p[:, nodes])
        counts = np.bincount(tree.ancestors[:, i], class_counts).astype(int)
        level = analyse_classes(true[:, i], predictions[:, i], probabilities, tree.levels[i], counts, words, clusters)
        before = np.exp(uncalibrated[:, nodes])
        level |= calibration_curves(probabilities, before, true[:, i], task["temperature"], clusters)
        answered, wrong = shown > i, predictions[:, i] != true[:, i]
        level["abstention"] = {
            **{key: value for key, value in task["abstention"].items() if key != "thresholds"},
            "threshold": task["abstention"]["thresholds"][i],
            "coverage": float(answered.mean()),
            "risk": float(wrong[answered].mean()) if answered.any() else None,
        }
        levels.append(level)
    return levels[-1] | {"tree": tree.to_dict(), "level_names": tree.level_names, "levels": levels[:-1]}


def leaf_outputs(outputs: dict[str, Any], tree: LabelTree) -> dict[str, Any]:
    """Return the outputs with the log-probabilities of the leaves as `logits`, which the ensemble and the temperature
    apply to; those of a linear probe are such."""
    if outputs["logits"].shape[1] == len(tree.leaves):
        return outputs
    return outputs | {"logits": leaf_log_probabilities(outputs["logits"], tree)}


def row_statistics(log_p: np.ndarray, labels: np.ndarray, tree: LabelTree) -> dict[str, Any]:
    """Return row statistics of a model: paths, levels, and the calibration of the probabilities of each level."""
    statistics = hierarchy_statistics(expand_predictions(log_p, tree), labels, tree, log_p)
    for level, name in enumerate(tree.level_names):
        calibration = calibration_statistics(np.exp(log_p[:, tree.columns[level]]), tree.ancestors[labels, level])
        statistics |= {f"{name}_{metric}": statistic for metric, statistic in calibration.items()}
    return statistics
