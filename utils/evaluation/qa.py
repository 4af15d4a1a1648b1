"""From the answers of language models to the numbers and files of a run; no model is needed."""

from typing import Any

import numpy as np

from utils.evaluation.confidence import by_confidence, fit_confidence
from utils.evaluation.error_analysis import error_patterns
from utils.evaluation.multiple_choice import choice_statistics, letter_statistics
from utils.evaluation.outputs import prediction_files
from utils.metrics.intervals import evaluate_statistics, mcnemar, paired_difference, resampling_weights
from utils.metrics.statistics import accuracy_statistics, loss_statistics, text_statistics


def calibrate(outputs: dict[str, Any], rows: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Find out on validation rows what the confidence of an answer is worth, for `task.json`.

    Args:
        outputs: of the validation rows, from `predict_answers`; the first ones have answers.
        rows: their `reference` and `cluster`; with multiple choice `options` and `answer_index`.
        task: `evaluation` says the `seed`.

    Returns:
        `confidence`, the table of `fit_confidence`, or None where too few rows were answered.
    """
    if "prediction" not in outputs:
        return {"confidence": None}
    statistics, metric = answer_statistics(outputs, rows)
    clusters = rows["cluster"][: len(outputs["prediction"])]
    return {
        "confidence": fit_confidence(statistics, outputs["confidence"], metric, clusters, task["evaluation"]["seed"])
    }


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the tuned model with the base model and the nearest training question on the test rows.

    Args:
        rows: `validation` and `test`, each with a value a row: `cluster`, `reference`, and with multiple choice
            `options` and `answer_index`; `test` also has `id` and `source`, what the user asks.
        outputs: of `validation`, `test` and `base_test` from `predict_answers`; `baseline_<name>_test` hold
            `prediction` alone. Without `test` the loss on validation rows alone is evaluated.
        task: the content of `task.json`, with what `calibrate` has found.

    Returns:
        results for `all_results.json`, and the text of each further file.
    """
    seed, table = task["evaluation"]["seed"], task["confidence"]
    validation, test = rows["validation"], rows["test"]
    weights = resampling_weights(len(validation["cluster"]), seed, validation["cluster"])
    output = outputs["validation"]
    results = evaluate_statistics(loss_statistics(output["nll"], output["tokens"]), weights, "eval")
    if table:
        statistics, _ = answer_statistics(output, validation)
        weights = resampling_weights(table["rows"], seed, validation["cluster"][: table["rows"]])
        results |= evaluate_statistics(by_confidence(statistics, output["confidence"], table), weights, "eval")
    if "test" not in outputs:
        return results, {}

    weights = resampling_weights(len(test["cluster"]), seed, test["cluster"])
    tuned = row_statistics(outputs["test"], test, seed)
    base = row_statistics(outputs["base_test"], test, seed)
    results |= evaluate_statistics(tuned, weights, "test")
    if table:
        confident = by_confidence(tuned, outputs["test"]["confidence"], table)
        results |= evaluate_statistics(confident, weights, "test")
    results |= evaluate_statistics(base, weights, "base_test")
    results |= paired_difference(tuned, base, weights, "delta_base_test")
    for name, output in outputs.items():
        if name.startswith("baseline_"):
            statistics = text_statistics(output["prediction"], test["reference"])
            results |= evaluate_statistics(statistics, weights, name)
            results |= paired_difference({k: tuned[k] for k in statistics}, statistics, weights, f"delta_{name}")
    if "options" in test:
        results["mcnemar_test_accuracy_p"] = mcnemar(tuned["accuracy"][:, 0], base["accuracy"][:, 0])

    predictions, finished = outputs["test"]["prediction"], outputs["test"]["finished"]
    patterns = error_patterns(predictions, test["reference"], test["source"], finished, tuned)
    results |= {f"errors_{name}": len(found) for name, found in patterns.items()}
    columns = {
        "id": test["id"],
        "source": test["source"],
        "prediction": predictions,
        "reference": test["reference"],
        "base_prediction": outputs["base_test"]["prediction"],
        "finished": finished,
        "confidence": outputs["test"]["confidence"].tolist(),
    }
    shown = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return results, prediction_files(shown, patterns)


def answer_statistics(outputs: dict[str, Any], rows: dict[str, Any]) -> tuple[dict[str, np.ndarray], str]:
    """Row statistics of the rows that were answered, and the metric that confidence is held against: whether the
    letter is right or, without options, ROUGE-L."""
    texts = outputs["prediction"]
    if "options" in rows:
        n = len(texts)
        return letter_statistics(rows["options"][:n], rows["answer_index"][:n], texts), "generated_accuracy"
    return text_statistics(texts, rows["reference"][: len(texts)]), "rougeL"


def row_statistics(outputs: dict[str, Any], rows: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Row statistics of a model: loss, overlap with the experts' answers and, with options, what it chooses."""
    statistics = loss_statistics(outputs["nll"], outputs["tokens"])
    statistics |= text_statistics(outputs["prediction"], rows["reference"])
    statistics |= accuracy_statistics(outputs["finished"], "finished")
    if "options" in rows:
        statistics |= choice_statistics(outputs, rows["options"], rows["answer_index"], seed)
    return statistics
