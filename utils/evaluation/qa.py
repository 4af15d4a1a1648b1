"""Compute the results and files of a question answering run from its outputs; no model is needed."""

from typing import Any

import numpy as np

from utils.evaluation.confidence import by_confidence, confidence_quality, fit_confidence
from utils.evaluation.error_analysis import error_patterns
from utils.evaluation.multiple_choice import choice_statistics, letter_statistics
from utils.evaluation.outputs import prediction_files
from utils.metrics.extra import compare_extra
from utils.metrics.intervals import count_clusters, evaluate_statistics, mcnemar, paired_difference
from utils.metrics.languages import describe_texts
from utils.metrics.statistics import accuracy_statistics, loss_statistics, text_statistics
from utils.overlap import Tokenizers, choose_tokenizers
from utils.words import count_words


def calibrate(outputs: dict[str, Any], rows: dict[str, Any]) -> dict[str, Any]:
    """Measure on validation rows how well the confidence of an answer predicts its score.

    Args:
        outputs: of `predict_answers` for the validation rows; the first rows may have answers.
        rows: their `reference` and `cluster`; with multiple choice also `options` and `answer_index`.

    Returns:
        what to add to `task.json`: `confidence`, from `fit_confidence`, or None with too few answers.
    """
    if "prediction" not in outputs:
        return {"confidence": None}
    statistics, metric = answer_statistics(outputs, rows, choose_tokenizers(rows["reference"]))
    clusters = rows["cluster"][: len(outputs["prediction"])]
    words = [count_words(text) for text in outputs["prediction"]]
    return {"confidence": fit_confidence(statistics, outputs["confidence"], metric, clusters, words)}


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the fine-tuned model with the base model and the baselines on the test rows.

    Args:
        rows: `validation` and `test`, each column -> one value per row: `cluster` and `reference`; with multiple
            choice also `options` and `answer_index`. `test` also has `id` and `source`, the user's turn.
        outputs: `validation`, `test`, `base_test` and, if there was one, `first_adapter_test` from `predict_answers`;
            `baseline_<name>_test` with `prediction` only. Without `test`, only the validation rows are evaluated.
        task: the content of `task.json`, including what `calibrate` returned.

    Returns:
        results: for `all_results.json`.
        files: path -> text of the other files; empty without test rows.
    """
    seed, table = task["evaluation"]["seed"], task["confidence"]
    validation, output = rows["validation"], outputs["validation"]
    tokenizers = choose_tokenizers([*validation["reference"], *rows.get("test", {}).get("reference", [])])
    clusters = validation["cluster"]
    results = evaluate_statistics(loss_statistics(output["nll"], output["tokens"]), clusters, "eval")
    results["validation_clusters"] = count_clusters(clusters)
    if table:
        statistics, _ = answer_statistics(output, validation, tokenizers)
        parts = by_confidence(statistics, output["confidence"], table)
        results |= evaluate_statistics(parts, clusters[: table["rows"]], "eval")
    if "test" not in outputs:
        return results, {}

    test, output = rows["test"], outputs["test"]
    clusters, results["test_clusters"] = test["cluster"], count_clusters(test["cluster"])
    results |= describe_texts(test["reference"], tokenizers, task.get("data", {}).get("language"), test["source"])
    tuned = row_statistics(output, test, tokenizers, seed)
    results |= evaluate_statistics(tuned, clusters, "test")
    if table:
        results |= evaluate_statistics(by_confidence(tuned, output["confidence"], table), clusters, "test")
        words = [count_words(text) for text in output["prediction"]]
        quality = confidence_quality(tuned, output["confidence"], words, table, clusters)
        results |= {f"test_{name}": value for name, value in quality.items()}
    for name in [name for name in outputs if name not in ("validation", "test")]:
        if name.startswith("baseline_"):
            statistics = text_statistics(outputs[name]["prediction"], test["reference"], tokenizers=tokenizers)
        else:
            statistics = row_statistics(outputs[name], test, tokenizers, seed)
        results |= evaluate_statistics(statistics, clusters, name)
        results |= paired_difference({key: tuned[key] for key in statistics}, statistics, clusters, f"delta_{name}")
        if "accuracy" in statistics:
            key = f"mcnemar_{name.removeprefix('base_')}_accuracy_p"
            results[key] = mcnemar(tuned["accuracy"][:, 0], statistics["accuracy"][:, 0], clusters)

    systems = {name: o["prediction"] for name, o in outputs.items() if name != "validation" and "prediction" in o}
    results |= compare_extra(task.get("extra_metrics"), systems, test["reference"], clusters)

    patterns = error_patterns(output["prediction"], test["reference"], test["source"], output["finished"], tuned)
    results |= {f"errors_{name}": len(indices) for name, indices in patterns.items()}
    columns = {
        "id": test["id"],
        "cluster": list(clusters),
        "source": test["source"],
        "prediction": output["prediction"],
        "reference": test["reference"],
        "base_prediction": outputs["base_test"]["prediction"],
        "finished": output["finished"],
        "confidence": output["confidence"].tolist(),
    }
    return results, prediction_files(columns, patterns)


def answer_statistics(
    outputs: dict[str, Any], rows: dict[str, Any], tokenizers: Tokenizers
) -> tuple[dict[str, np.ndarray], str]:
    """Return row statistics of the answered rows, and the metric that confidence should predict: the accuracy of the
    generated letter or, without options, ROUGE-L."""
    texts = outputs["prediction"]
    if "options" in rows:
        n = len(texts)
        return letter_statistics(rows["options"][:n], rows["answer_index"][:n], texts), "generated_accuracy"
    return text_statistics(texts, rows["reference"][: len(texts)], tokenizers=tokenizers), "rougeL"


def row_statistics(
    outputs: dict[str, Any], rows: dict[str, Any], tokenizers: Tokenizers, seed: int
) -> dict[str, np.ndarray]:
    """Return row statistics of a model: loss, overlap with the experts' answers and, with options, its choices."""
    statistics = loss_statistics(outputs["nll"], outputs["tokens"])
    statistics |= text_statistics(outputs["prediction"], rows["reference"], tokenizers=tokenizers)
    statistics |= accuracy_statistics(outputs["finished"], "finished")
    if "options" in rows:
        statistics |= choice_statistics(outputs, rows["options"], rows["answer_index"], seed)
    return statistics
