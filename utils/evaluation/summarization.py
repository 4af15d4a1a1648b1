"""From summaries to the numbers and files of a run; no model is needed."""

from typing import Any

import numpy as np

from utils.evaluation.outputs import prediction_files
from utils.evaluation.summary_analysis import analyse_summaries, summary_error_patterns
from utils.factuality import factuality_statistics, find_hallucinations, find_omissions
from utils.json_files import json_text
from utils.metrics.intervals import evaluate_statistics, paired_difference, resampling_weights
from utils.metrics.statistics import accuracy_statistics, loss_statistics
from utils.metrics.summaries import bert_statistics, summary_statistics


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the tuned model with the base model and the baselines on the test rows.

    Args:
        rows: `validation` and `test`, each with `cluster`; `test` also has `id`, `text` (the source), `reference` and
            `cut` (the model saw only a part of the source).
        outputs: `validation` holds `nll` and `tokens` [rows]; `test` and `base_test` also `prediction` and `finished`,
            lists; `baseline_<name>_test` hold `prediction` alone. Each may have `bert_scores` [rows, 3]. Without
            `test` the loss on validation rows alone is evaluated.
        task: the content of `task.json`; `evaluation` says `seed`, `use_stemmer` and `bertscore_model`.

    Returns:
        results for `all_results.json`, and the text of each further file.
    """
    seed, use_stemmer, test = task["evaluation"]["seed"], task["evaluation"]["use_stemmer"], rows["test"]
    clusters, output = rows["validation"]["cluster"], outputs["validation"]
    weights = resampling_weights(len(clusters), seed, clusters)
    results = evaluate_statistics(loss_statistics(output["nll"], output["tokens"]), weights, "eval")
    if "test" not in outputs:
        return results, {}

    results["use_stemmer"] = use_stemmer
    if task["evaluation"]["bertscore_model"]:
        results["bertscore_model"] = task["evaluation"]["bertscore_model"]
    weights = resampling_weights(len(test["cluster"]), seed, test["cluster"])
    statistics = {
        name: row_statistics(own, test, use_stemmer) for name, own in outputs.items() if name != "validation"
    }
    for name, own in statistics.items():
        results |= evaluate_statistics(own, weights, name)
    tuned = statistics.pop("test")
    for name, own in statistics.items():
        results |= paired_difference({key: tuned[key] for key in own}, own, weights, f"delta_{name}")

    sources, references, cut = test["text"], test["reference"], test["cut"]
    predictions, finished = outputs["test"]["prediction"], outputs["test"]["finished"]
    hallucinations = [find_hallucinations(s, p) for s, p in zip(sources, predictions, strict=True)]
    omissions = [find_omissions(r, p) for r, p in zip(references, predictions, strict=True)]
    patterns = summary_error_patterns(
        predictions, references, sources, finished, cut, hallucinations, omissions, tuned
    )
    results |= {f"errors_{name}": len(found) for name, found in patterns.items()}
    analysis = analyse_summaries(predictions, references, sources, cut, hallucinations, omissions, tuned, weights)
    columns = {"id": test["id"], "source": sources, "prediction": predictions, "reference": references}
    columns |= {"base_prediction": outputs["base_test"]["prediction"], "finished": finished, "cut": cut}
    columns |= {"hallucinations": hallucinations, "omissions": omissions}
    shown = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return results, prediction_files(shown, patterns) | {"analysis.json": json_text(analysis)}


def row_statistics(output: dict[str, Any], rows: dict[str, Any], use_stemmer: bool) -> dict[str, np.ndarray]:
    """Row statistics of what a system has written: overlap, length, facts, and what else was measured of it."""
    texts, references, sources = output["prediction"], rows["reference"], rows["text"]
    statistics = summary_statistics(texts, references, sources, use_stemmer)
    statistics |= factuality_statistics(texts, references, sources)
    if "bert_scores" in output:
        statistics |= bert_statistics(output["bert_scores"])
    if "nll" in output:
        statistics |= loss_statistics(output["nll"], output["tokens"])
        statistics |= accuracy_statistics(output["finished"], "finished")
    return statistics
