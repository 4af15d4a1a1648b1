"""Compute the results and files of a summarization run from its summaries; no model is needed."""

import logging
from typing import Any

import numpy as np

from utils.evaluation.outputs import prediction_files
from utils.evaluation.summary_analysis import analyse_summaries, summary_error_patterns
from utils.factuality import factuality_statistics, find_hallucinations, find_omissions
from utils.json_files import json_text
from utils.metrics.extra import compare_extra
from utils.metrics.intervals import count_clusters, evaluate_statistics, paired_difference
from utils.metrics.languages import describe_texts, is_english
from utils.metrics.statistics import accuracy_statistics, loss_statistics
from utils.metrics.summaries import bert_statistics, summary_statistics
from utils.overlap import Tokenizers, choose_tokenizers

logger = logging.getLogger(__name__)


def evaluate(
    rows: dict[str, Any], outputs: dict[str, Any], task: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compare the fine-tuned model with the base model and the baselines on the test rows.

    Args:
        rows: `validation` and `test`, each column -> one value per row: `cluster`. `test` also has `id`, `text` (the
            source), `reference` and `cut` (the model read only part of the source).
        outputs: `validation` with `nll` and `tokens` [rows]; `test`, `base_test` and, if there was one,
            `first_adapter_test` also with the lists `prediction` and `finished`; `baseline_<name>_test` with
            `prediction` only. All but `validation` may have `bert_scores`, float [rows, 3]. Without `test`, only the
            loss on the validation rows is evaluated.
        task: the content of `task.json`; `evaluation` has `use_stemmer` and `bertscore_model`.

    Returns:
        results: for `all_results.json`.
        files: path -> text of the other files; empty without test rows.
    """
    use_stemmer = task["evaluation"]["use_stemmer"]
    clusters, output = rows["validation"]["cluster"], outputs["validation"]
    results = evaluate_statistics(loss_statistics(output["nll"], output["tokens"]), clusters, "eval")
    results["validation_clusters"] = count_clusters(clusters)
    if "test" not in outputs:
        return results, {}

    test = rows["test"]
    tokenizers = choose_tokenizers(test["reference"])
    results |= describe_texts(test["reference"], tokenizers, task.get("data", {}).get("language"), test["text"])
    english = is_english(results["language"], tokenizers.rouge)
    results["use_stemmer"] = use_stemmer and english
    if use_stemmer and not english:
        logger.warning("`use_stemmer` is off: Porter stemming is for English, and the summaries are not.")
    if task["evaluation"]["bertscore_model"]:
        results["bertscore_model"] = task["evaluation"]["bertscore_model"]
    clusters, results["test_clusters"] = test["cluster"], count_clusters(test["cluster"])
    systems = {name: output for name, output in outputs.items() if name != "validation"}
    statistics = {
        name: row_statistics(o, test, results["use_stemmer"], tokenizers, english) for name, o in systems.items()
    }
    for name, of_system in statistics.items():
        results |= evaluate_statistics(of_system, clusters, name)
    tuned = statistics.pop("test")
    for name, of_system in statistics.items():
        results |= paired_difference({key: tuned[key] for key in of_system}, of_system, clusters, f"delta_{name}")

    texts = {name: output["prediction"] for name, output in systems.items()}
    results |= compare_extra(task.get("extra_metrics"), texts, test["reference"], clusters)

    sources, references, cut = test["text"], test["reference"], test["cut"]
    predictions, finished = outputs["test"]["prediction"], outputs["test"]["finished"]
    findings: tuple[list | None, list | None] = (None, None)
    if english:  # the word lists and rules would find nothing in another language, and 0 looks like good news
        findings = (
            [find_hallucinations(s, p) for s, p in zip(sources, predictions, strict=True)],
            [find_omissions(r, p) for r, p in zip(references, predictions, strict=True)],
        )
    patterns = summary_error_patterns(predictions, references, sources, finished, cut, *findings, tuned)
    results |= {f"errors_{name}": len(indices) for name, indices in patterns.items()}
    analysis = analyse_summaries(predictions, references, sources, cut, *findings, tuned, clusters)
    columns = {
        "id": test["id"],
        "cluster": list(clusters),
        "source": sources,
        "prediction": predictions,
        "reference": references,
        "base_prediction": outputs["base_test"]["prediction"],
        "finished": finished,
        "cut": cut,
    }
    columns |= dict(zip(("hallucinations", "omissions"), findings, strict=True)) if english else {}
    return results, prediction_files(columns, patterns) | {"analysis.json": json_text(analysis)}


def row_statistics(
    output: dict[str, Any], rows: dict[str, Any], use_stemmer: bool, tokenizers: Tokenizers, english: bool
) -> dict[str, np.ndarray]:
    """Return row statistics of a system: overlap, length, in English factuality and, where measured, BERTScore and
    loss."""
    texts, references, sources = output["prediction"], rows["reference"], rows["text"]
    statistics = summary_statistics(texts, references, sources, use_stemmer, tokenizers)
    if english:
        statistics |= factuality_statistics(texts, references, sources)
    if "bert_scores" in output:
        statistics |= bert_statistics(output["bert_scores"])
    if "nll" in output:
        statistics |= loss_statistics(output["nll"], output["tokens"])
        statistics |= accuracy_statistics(output["finished"], "finished")
    return statistics
