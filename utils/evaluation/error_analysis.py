"""What kind of mistakes the answers have, how often, and what to do about each."""

import re
from collections.abc import Sequence

import numpy as np

from utils.metrics.statistics import four_grams, text_statistics

# 1,000 and 0.50 and .5 and the 10 of 10mg, not the 12 of B12 or the 1 of HbA1c
NUMBER = re.compile(r"(?<![A-Za-z\d.])(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)")
LENGTH_BINS = 8
ROWS_A_BIN = 10  # at least: with 10 rows the interval of an error rate of 0.5 is 0.24 to 0.76
ERROR_ADVICE = {
    "verbose": "Lower `max_new_tokens`, and train on shorter answers: the model gives back the length it has seen.",
    "too_short": "Check how many training answers `max_length` cuts, and raise it or `num_train_epochs`.",
    "repeated": "Raise `repetition_penalty` to 1.1 or 1.2, and look for duplicates in the training data.",
    "cut_off": "Raise `max_new_tokens`; if it stays, `max_length` cuts the end that the model should learn.",
    "empty": "Check that training answers are not empty and that `max_length` leaves room for the answer.",
    "copies_source": "Check that the loss covers the answer only, and raise `num_train_epochs` or `learning_rate`.",
    "low_overlap": "Read these rows first: wrong topic or another wording; more training data on the topic helps.",
    "wrong_numbers": "Have an expert check doses, ages and dates; overlap metrics hardly see a wrong number.",
}


def length_bins(words: np.ndarray) -> list[np.ndarray]:
    """Row numbers of up to `LENGTH_BINS` groups of like length; rows of one length share a group."""
    bins = int(np.clip(len(words) // ROWS_A_BIN, 1, LENGTH_BINS))
    bin_of_row = np.searchsorted(np.quantile(words, np.arange(1, bins) / bins), words)
    return [np.flatnonzero(bin_of_row == number) for number in np.unique(bin_of_row)]


def error_patterns(
    predictions: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str] | None = None,
    finished: Sequence[bool] | None = None,
    statistics: dict[str, np.ndarray] | None = None,
) -> dict[str, list[int]]:
    """Indices of the rows that show each pattern of `ERROR_ADVICE`; what to do about it stands there.

    verbose: over 2 times the reference's words and over 20 more. too_short: under half of them. repeated: repetition
    over 0.2. cut_off: did not end by itself. empty: no word; such a row shows none of the others but cut_off.
    copies_source: over half of its 4-grams stand in the source, and not so for the reference. low_overlap: ROUGE-L
    under 0.1. wrong_numbers: other numbers than the reference (English notation, 1,000 = 1000, 0.50 = .5).

    Args:
        sources, finished: without them `copies_source`, `cut_off` are left out.
        statistics: `text_statistics` of the same rows, computed if not given.
    """
    statistics = statistics or text_statistics(predictions, references)
    found: dict[str, list[int]] = {name: [] for name in ERROR_ADVICE}
    for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        words, reference_words = len(prediction.split()), len(reference.split())
        source = sources[i] if sources is not None else ""
        shown = {
            "verbose": words > 2 * reference_words and words > reference_words + 20,
            "too_short": words < reference_words / 2,
            "repeated": statistics["repetition"][i, 0] > 0.2,
            "copies_source": _copied(prediction, source) > 0.5 >= _copied(reference, source),
            "low_overlap": statistics["rougeL"][i, 0] < 0.1,
            "wrong_numbers": _numbers(prediction) != _numbers(reference),
        }
        shown = shown if words else {"empty": True}
        shown["cut_off"] = finished is not None and not finished[i]
        for name in shown:
            found[name] += [i] if shown[name] else []
    unknown = {"copies_source": sources is None, "cut_off": finished is None}
    return {name: rows for name, rows in found.items() if not unknown.get(name)}


def _copied(text: str, source: str) -> float:
    grams, known = four_grams(text), four_grams(source)
    return sum(count for gram, count in grams.items() if gram in known) / max(grams.total(), 1)


def _numbers(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in NUMBER.findall(text)}
