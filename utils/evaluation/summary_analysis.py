"""Error patterns of summaries, and how quality depends on the length of the source.

The analyses contain numbers, never texts of rows.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from utils.evaluation.error_analysis import length_bins
from utils.metrics.intervals import Clusters, evaluate_statistics
from utils.metrics.statistics import four_grams, reduce_sums
from utils.metrics.summaries import LONGEST_NGRAM, source_statistics
from utils.words import count_words

Findings = Sequence[dict[str, Any]]  # of a row, from `utils.factuality`

REPEATED = 5  # repeated 4-grams of a loop, at least: "500 mg q.d." for two drugs repeats three
CONTENT = ("drug", "finding", "number")  # kinds of findings about what the patient takes, has or measures
OF_FINDINGS = ("omission", "hallucination", "negation_flip", "wrong_number", "wrong_person")
ERROR_ADVICE = {
    "omission": "Look at `cut_source` and `too_short` first: the model cannot report what it did not read. Then train "
    "longer.",
    "hallucination": "Have an expert read these first. Lower `num_train_epochs`, and remove training summaries that "
    "their sources do not support.",
    "negation_flip": "Have an expert read these first: the summary affirms a denied finding, or denies an affirmed "
    "one.",
    "wrong_number": "Have an expert check doses, ages and dates against the source: overlap metrics barely notice "
    "them.",
    "wrong_person": "Have an expert check whose finding it is and on which side. Keep the names of the speakers in "
    "the source.",
    "too_long": "Lower `max_new_tokens` or, with beam search, `length_penalty`: the model reproduces the length of "
    "its training summaries.",
    "too_short": "Check how many training summaries `max_target_length` truncates. With beam search, raise "
    "`length_penalty`.",
    "repetition": "Set `no_repeat_ngram_size: 3`, and look for duplicates in the training data.",
    "cut_source": "Raise `max_source_length`, or set `long_texts: chunks`.",
    "empty": "Check that the training summaries are not empty, and train longer.",
    "copies_source": "Raise `num_train_epochs` or `learning_rate`: the model has not learned to summarize yet.",
    "cut_off": "Raise `max_new_tokens`. If that does not help, `max_target_length` cuts off the end of the training "
    "summaries.",
}


def summary_error_patterns(
    predictions: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str],
    finished: Sequence[bool],
    cut: Sequence[bool],
    hallucinations: Sequence[Findings] | None,
    omissions: Sequence[Findings] | None,
    statistics: dict[str, np.ndarray],
) -> dict[str, list[int]]:
    """Return, for each pattern of `ERROR_ADVICE`, the indices of the rows that show it.

    - omission: lacks a drug, finding or number of the reference.
    - hallucination: names a drug or finding that the source does not.
    - negation_flip: denies what the source or the reference affirms, or the reverse.
    - wrong_number: has a number that the source does not have.
    - wrong_person: gives a finding to another person or side of the body.
    - too_long: more than twice the words of the reference, and over 10 more.
    - too_short: less than half the words of the reference.
    - repetition: over a fifth of its 4-grams, and at least 5, occur earlier in it.
    - cut_source: the model read only part of the source.
    - copies_source: over half of its 4-grams occur in the source, which is not true of the reference.
    - cut_off: the summary is not finished.
    - empty: no words. Such a row shows no other pattern but cut_source and cut_off.

    Args:
        predictions, references, sources: one text per row.
        finished: whether each summary was finished, not cut off.
        cut: whether each source was longer than the model reads.
        hallucinations, omissions: findings of each row, from `utils.factuality`; with None, where it was not asked,
            the patterns of findings are left out.
        statistics: `summary_statistics` of the same rows.
    """
    searched = hallucinations is not None and omissions is not None
    copied = _copied(statistics) > 0.5
    reference_copied = _copied(source_statistics(references, sources)) > 0.5
    found: dict[str, list[int]] = {name: [] for name in ERROR_ADVICE}
    for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        words, reference_words = count_words(prediction), count_words(reference)
        grams = four_grams(prediction)
        hallucinated = _kinds(hallucinations[i]) if hallucinations is not None else set()
        omitted = _kinds(omissions[i]) if omissions is not None else set()
        shown = {
            "omission": not omitted.isdisjoint(CONTENT),
            "hallucination": not hallucinated.isdisjoint(("drug", "finding")),
            "negation_flip": "negation" in hallucinated | omitted,
            "wrong_number": "number" in hallucinated,
            "wrong_person": "person" in hallucinated | omitted or "laterality" in hallucinated,
            "too_long": words > 2 * reference_words and words > reference_words + 10,
            "too_short": words < reference_words / 2,
            "repetition": statistics["repetition"][i, 0] > 0.2 and grams.total() - len(grams) >= REPEATED,
            "copies_source": copied[i] and not reference_copied[i],
        }
        shown = shown if words else {"empty": True}
        shown |= {"cut_source": cut[i], "cut_off": not finished[i]}
        for name in shown:
            found[name] += [i] if shown[name] else []
    return {name: rows for name, rows in found.items() if searched or name not in OF_FINDINGS}


def analyse_summaries(
    predictions: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str],
    cut: Sequence[bool],
    hallucinations: Sequence[Findings] | None,
    omissions: Sequence[Findings] | None,
    statistics: dict[str, np.ndarray],
    clusters: Clusters,
) -> dict[str, Any]:
    """Return what `analysis.json` holds about the summaries of the test rows.

    Args:
        predictions, references, sources, cut, hallucinations, omissions: as for `summary_error_patterns`.
        statistics: row statistics of the same rows; `rougeL`, `omission` and `hallucination` are used if present.
        clusters: id of the cluster of each row.

    Returns:
        source_length: `bins`, up to 8 of about the same number of rows, with inclusive limits in words of the source,
            the number of rows and of truncated sources (`cut`), and each metric with its 95% interval; `spearman`, the
            correlation of each metric with the words of the source over rows, None if one side is constant.
        summary_words: percentiles 0 to 100 of the number of words in `predictions` and `references`.
        references: compression and novel n-grams of the references, for comparison with the predictions.
        findings: kind -> number of `hallucinations`, of `omissions`, and of the rows with at least one of each; None
            without findings.
    """
    words = np.array([count_words(source) for source in sources])
    metrics: list[str] = [name for name in ("rougeL", "omission", "hallucination") if name in statistics]
    bins = []
    for rows in length_bins(words):
        shown = {name: statistics[name][rows] for name in metrics}
        counts = {"rows": len(rows), "cut": int(np.asarray(cut, dtype=bool)[rows].sum())}
        span = {"low": int(words[rows].min()), "high": int(words[rows].max())}
        bins.append(span | counts | evaluate_statistics(shown, np.asarray(clusters)[rows]))
    own = source_statistics(references, sources)
    return {
        "source_length": {
            "bins": bins,
            "spearman": {name: _spearman(words, statistics[name]) for name in metrics},
        },
        "summary_words": {
            "predictions": _percentiles(predictions),
            "references": _percentiles(references),
        },
        "references": {name: float(reduce_sums(name, rows.sum(axis=0))) for name, rows in own.items()},
        "findings": None if hallucinations is None or omissions is None else _count(hallucinations, omissions),
    }


def _kinds(findings: Findings) -> set[str]:
    return {finding["kind"] for finding in findings}


def _copied(statistics: dict[str, np.ndarray]) -> np.ndarray:
    """Return the share of each summary's longest n-grams that occur in its source; 0 for a summary without any."""
    novel, grams = statistics[f"novel_{LONGEST_NGRAM}gram"].T
    return (grams - novel) / np.maximum(grams, 1)


def _percentiles(texts: Sequence[str]) -> list[float]:
    """Return the percentiles 0 to 100 of the number of words."""
    return np.percentile([count_words(text) for text in texts], range(101), method="inverted_cdf").tolist()


def _spearman(words: np.ndarray, statistic: np.ndarray) -> float | None:
    known = statistic[:, 1] > 0
    x, y = words[known], statistic[known, 0] / statistic[known, 1]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y).statistic)


def _count(hallucinations: Sequence[Findings], omissions: Sequence[Findings]) -> dict[str, dict[str, int]]:
    counts = {}
    for name, rows in (("hallucinations", hallucinations), ("omissions", omissions)):
        counts[name] = Counter(finding["kind"] for row in rows for finding in row)
        counts[f"rows_with_{name}"] = Counter(kind for row in rows for kind in _kinds(row))
    kinds = sorted(counts["hallucinations"] | counts["omissions"])
    return {kind: {name: count[kind] for name, count in counts.items()} for kind in kinds}
