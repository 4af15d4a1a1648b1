"""Error patterns of generated answers, with advice on each."""

import re
from collections.abc import Sequence

import numpy as np

from utils.metrics.statistics import four_grams, text_statistics
from utils.words import count_words

# matches 1,000, 0.50, .5 and the 10 of 10mg, but not the 12 of B12 or the 1 of HbA1c
NUMBER = re.compile(r"(?<![A-Za-z\d.])(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)")
LENGTH_BINS = 8
ROWS_PER_BIN = 10  # at least: with 10 rows, the interval of an error rate of 0.5 is 0.24 to 0.76
ERROR_ADVICE = {
    "verbose": "Lower `max_new_tokens` and train on shorter answers: the model reproduces the length of its training "
    "answers.",
    "too_short": "Check how many training answers `max_length` truncates. Raise it, or raise `num_train_epochs`.",
    "repeated": "Raise `repetition_penalty` to 1.1 or 1.2, and look for duplicates in the training data.",
    "cut_off": "Raise `max_new_tokens`. If that does not help, `max_length` cuts off the end of the training answers.",
    "empty": "Check that the training answers are not empty and that `max_length` leaves room for the answer.",
    "copies_source": "Check that only answer tokens enter the loss. Raise `num_train_epochs` or `learning_rate`.",
    "low_overlap": "Read these rows first: the topic may be wrong or only the wording different. Training data on the "
    "topic helps.",
    "wrong_numbers": "Have an expert check doses, ages and dates: overlap metrics barely notice a wrong number.",
}


def length_bins(words: np.ndarray) -> list[np.ndarray]:
    """Return the row indices of up to `LENGTH_BINS` bins of similar length; rows of equal length share a bin."""
    bins = int(np.clip(len(words) // ROWS_PER_BIN, 1, LENGTH_BINS))
    bin_of_row = np.searchsorted(np.quantile(words, np.arange(1, bins) / bins), words)
    return [np.flatnonzero(bin_of_row == number) for number in np.unique(bin_of_row)]


def error_patterns(
    predictions: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str] | None = None,
    finished: Sequence[bool] | None = None,
    statistics: dict[str, np.ndarray] | None = None,
) -> dict[str, list[int]]:
    """Return, for each pattern of `ERROR_ADVICE`, the indices of the rows that show it.

    - verbose: more than twice the words of the reference, and over 20 more.
    - too_short: less than half the words of the reference.
    - repeated: repetition over 0.2.
    - cut_off: the answer is not finished.
    - empty: no words. Such a row shows no other pattern but cut_off.
    - copies_source: over half of its 4-grams occur in the source, which is not true of the reference.
    - low_overlap: ROUGE-L under 0.1.
    - wrong_numbers: numbers that differ from the reference (English notation; 1,000 = 1000, 0.50 = .5).

    Args:
        predictions, references: one text per row.
        sources: the questions; without them, copies_source is left out.
        finished: whether each answer was finished, not cut off; without it, cut_off is left out.
        statistics: `text_statistics` of the same rows; computed if not given.
    """
    statistics = statistics or text_statistics(predictions, references)
    found: dict[str, list[int]] = {name: [] for name in ERROR_ADVICE}
    for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        words, reference_words = count_words(prediction), count_words(reference)
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
