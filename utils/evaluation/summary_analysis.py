"""What kind of mistakes summaries have, how often, and how they go with the length of the source.

Nothing here holds text of a data row: what comes out are numbers.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from utils.evaluation.error_analysis import length_bins
from utils.metrics.intervals import evaluate_statistics
from utils.metrics.statistics import four_grams, reduce_sums
from utils.metrics.summaries import LONGEST_NGRAM, source_statistics

REPEATED = 5  # 4-grams: "500 mg q.d." for two drugs repeats three, and is no loop
CONTENT = ("drug", "finding", "number")  # kinds of findings that are something the patient has, takes or measures
ERROR_ADVICE = {
    "omission": "Look at `cut_source` and `too_short` first: what is not read cannot be said; then train longer.",
    "hallucination": "Have an expert read these first. Lower `num_train_epochs`, and leave out training summaries "
    "that say what their source does not.",
    "negation_flip": "Have an expert read these first: a denied finding is said to be there, or the reverse.",
    "wrong_number": "Have an expert check doses, ages and dates against the source; overlap metrics hardly see them.",
    "wrong_person": "Have an expert check who has it, and on which side; keep the speakers' names in the source.",
    "too_long": "Lower `max_new_tokens`, or with beams `length_penalty`: the model gives back the length it has seen.",
    "too_short": "Check how many training summaries `max_target_length` cuts; with beams raise `length_penalty`.",
    "repetition": "Set `no_repeat_ngram_size: 3`, and look for duplicates in the training data.",
    "cut_source": "Raise `max_source_length`, or set `long_texts: chunks`.",
    "empty": "Check that training summaries are not empty, and train longer.",
    "copies_source": "Raise `num_train_epochs` or `learning_rate`: the model has not yet learnt to summarize.",
    "cut_off": "Raise `max_new_tokens`; if it stays, `max_target_length` cuts the end that the model should learn.",
}


def summary_error_patterns(
    predictions: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str],
    finished: Sequence[bool],
    cut: Sequence[bool],
    hallucinations: Sequence[Sequence[dict[str, Any]]],
    omissions: Sequence[Sequence[dict[str, Any]]],
    statistics: dict[str, np.ndarray],
) -> dict[str, list[int]]:
    """Indices of the rows that show each pattern of `ERROR_ADVICE`; what to do about it stands there.

    omission: lacks a drug, finding or number of the reference. hallucination: names a drug or finding that the source
    does not. wrong_number: has a number that the source does not have. negation_flip: denies what source or reference
    affirm, or the reverse. wrong_person: gives a finding to another person or side of the body. too_long: over 2 times
    the reference's words and over 10 more. too_short: under half of them. repetition: over a fifth of its 4-grams, and
    at least 5, were there before. cut_source: the model did not see all of the source. copies_source: over half of
    its 4-grams stand in the source, and not so for the reference. cut_off: did not end by itself. empty: no word; such
    a row shows none of the others but cut_source and cut_off.

    Args:
        predictions, references, sources: one text a row.
        finished: whether the summary ended by itself.
        cut: whether the source was longer than the model takes.
        hallucinations, omissions: the findings of each row, from `utils.factuality`.
        statistics: `summary_statistics` of the same rows.
    """
    copied = _copied(statistics) > 0.5
    reference_copied = _copied(source_statistics(references, sources)) > 0.5
    found: dict[str, list[int]] = {name: [] for name in ERROR_ADVICE}
    for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        words, reference_words = len(prediction.split()), len(reference.split())
        grams = four_grams(prediction)
        invented, omitted = _kinds(hallucinations[i]), _kinds(omissions[i])
        shown = {
            "omission": not omitted.isdisjoint(CONTENT),
            "hallucination": not invented.isdisjoint(("drug", "finding")),
            "negation_flip": "negation" in invented | omitted,
            "wrong_number": "number" in invented,
            "wrong_person": "person" in invented | omitted or "laterality" in invented,
            "too_long": words > 2 * reference_words and words > reference_words + 10,
            "too_short": words < reference_words / 2,
            "repetition": statistics["repetition"][i, 0] > 0.2 and grams.total() - len(grams) >= REPEATED,
            "copies_source": copied[i] and not reference_copied[i],
        }
        shown = shown if words else {"empty": True}
        shown |= {"cut_source": cut[i], "cut_off": not finished[i]}
        for name in shown:
            found[name] += [i] if shown[name] else []
    return found


def analyse_summaries(
    predictions: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str],
    cut: Sequence[bool],
    hallucinations: Sequence[Sequence[dict[str, Any]]],
    omissions: Sequence[Sequence[dict[str, Any]]],
    statistics: dict[str, np.ndarray],
    weights: np.ndarray,
) -> dict[str, Any]:
    """What `analysis.json` says about the summaries of the test rows.

    Args:
        predictions, references, sources, cut, hallucinations, omissions: as for `summary_error_patterns`.
        statistics: of the same rows; its rougeL, omission and hallucination are looked at, where they are there.
        weights: bootstrap counts [resamples, rows] from `resampling_weights`.

    Returns:
        source_length: `bins`, up to 8 of about as many rows, by the source's words, both ends included: rows, rows
            with a cut source, and each metric with its 95 % interval; `spearman`, for each metric the correlation of
            its row values with the source's words over rows, None where one side is constant.
        summary_words: percentiles 0 to 100 of the words of the `predictions` and the `references`.
        references: compression and novel n-grams of the references, to compare the model's with.
        findings: kind -> `hallucinations`, `omissions`, and the rows that have at least one of them.
    """
    words = np.array([len(source.split()) for source in sources])
    metrics = [name for name in ("rougeL", "omission", "hallucination") if name in statistics]
    bins = []
    for rows in length_bins(words):
        shown = {name: statistics[name][rows] for name in metrics}
        counts = {"rows": len(rows), "cut": int(np.asarray(cut, dtype=bool)[rows].sum())}
        span = {"low": int(words[rows].min()), "high": int(words[rows].max())}
        bins.append(span | counts | evaluate_statistics(shown, weights[:, rows]))
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
        "findings": _count_findings(hallucinations, omissions),
    }


def _kinds(findings: Sequence[dict[str, Any]]) -> set[str]:
    return {finding["kind"] for finding in findings}


def _copied(statistics: dict[str, np.ndarray]) -> np.ndarray:
    """Share of each summary's longest n-grams that stand in the source; 0 for a summary without any."""
    novel, grams = statistics[f"novel_{LONGEST_NGRAM}gram"].T
    return (grams - novel) / np.maximum(grams, 1)


def _percentiles(texts: Sequence[str]) -> list[float]:
    return np.percentile([len(text.split()) for text in texts], range(101), method="inverted_cdf").tolist()


def _spearman(words: np.ndarray, statistic: np.ndarray) -> float | None:
    known = statistic[:, 1] > 0
    x, y = words[known], statistic[known, 0] / statistic[known, 1]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y).statistic)


def _count_findings(
    hallucinations: Sequence[Sequence[dict[str, Any]]], omissions: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, dict[str, int]]:
    counts = {}
    for name, rows in (("hallucinations", hallucinations), ("omissions", omissions)):
        counts[name] = Counter(finding["kind"] for row in rows for finding in row)
        counts[f"rows_with_{name}"] = Counter(kind for row in rows for kind in _kinds(row))
    kinds = sorted(counts["hallucinations"] | counts["omissions"])
    return {kind: {name: count[kind] for name, count in counts.items()} for kind in kinds}
