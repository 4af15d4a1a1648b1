import json

import numpy as np
import pytest

from utils.evaluation.summary_analysis import ERROR_ADVICE, analyse_summaries, summary_error_patterns
from utils.metrics.statistics import text_statistics
from utils.metrics.summaries import summary_statistics

SOURCE = (
    "Doctor: What brings you here? Patient: I have had a cough and a fever for 3 days, no chest pain, I take aspirin."
)
REFERENCE = "Cough and fever for 3 days. Denies chest pain. Takes aspirin."


def finding(kind: str) -> dict:
    return {"kind": kind, "text": "x", "span": [0, 1], "detail": ""}


def patterns_of(
    prediction: str, hallucinated: str, omitted: str, finished: bool, cut: bool, reference: str
) -> set[str]:
    """Patterns of the second of two rows; the first is right."""
    predictions, references, sources = ["Cough.", prediction], ["Cough.", reference], ["I cough.", SOURCE]
    hallucinations, omissions = ([[], [finding(kind) for kind in kinds.split()]] for kinds in (hallucinated, omitted))
    statistics = summary_statistics(predictions, references, sources)
    found = summary_error_patterns(
        predictions, references, sources, [True, finished], [False, cut], hallucinations, omissions, statistics
    )
    assert set(found) == set(ERROR_ADVICE) and not any(0 in rows for rows in found.values())
    return {name for name, rows in found.items() if rows == [1]}


@pytest.mark.parametrize(
    ("prediction", "hallucinated", "omitted", "shown"),
    [
        (REFERENCE, "", "", set()),
        (REFERENCE, "word", "word", set()),  # another wording is no error
        (REFERENCE, "", "word drug", {"omission"}),
        (REFERENCE, "finding", "", {"hallucination"}),
        (REFERENCE, "drug drug", "", {"hallucination"}),
        (REFERENCE, "number", "number", {"wrong_number", "omission"}),
        (REFERENCE, "negation", "", {"negation_flip"}),
        (REFERENCE, "", "negation", {"negation_flip"}),
        (REFERENCE, "person", "", {"wrong_person"}),
        (REFERENCE, "laterality", "", {"wrong_person"}),
        (REFERENCE, "", "laterality", set()),  # a side that is left out is not a wrong one
        (REFERENCE, "", "person", {"wrong_person"}),
        (REFERENCE + " Also" + "".join(f" {word} was seen" for word in "abcdefgh"), "", "", {"too_long"}),
        ("Cough and fever, aspirin.", "", "", {"too_short"}),
        (REFERENCE + " Denies chest pain. Takes aspirin." * 2, "", "", {"repetition"}),
        ("Flagyl 500 mg q.d. and Levaquin 500 mg q.d.", "", "", set()),
        ("What brings you here? I have had a cough and a fever for 3 days.", "", "", {"copies_source"}),
        (" \n", "finding", "drug", {"empty"}),
    ],
)
def test_a_row_shows_exactly_its_error_patterns(prediction, hallucinated, omitted, shown):
    assert patterns_of(prediction, hallucinated, omitted, True, False, REFERENCE) == shown
    assert patterns_of(prediction, hallucinated, omitted, False, True, REFERENCE) == shown | {"cut_off", "cut_source"}


def test_copying_is_no_error_where_the_reference_copies_too():
    assert patterns_of(SOURCE, "", "", True, False, SOURCE) == set()


def analyse(rows: int) -> dict:
    sources = [f"word{i} " * (i + 1) for i in range(rows)]
    references, predictions = ["word0 a b c"] * rows, ["word0 b c"] * (rows - 1) + ["d"]
    hallucinations = [[finding("drug"), finding("drug")], *[[finding("number")]] * 2, *[[]] * (rows - 3)]
    omissions = [[]] * (rows - 1) + [[finding("drug")]]
    statistics = text_statistics(predictions, references)
    statistics["omission"] = np.column_stack([np.arange(rows) / rows, np.ones(rows)])
    cut = [False] * (rows - 4) + [True] * 4
    return analyse_summaries(
        predictions, references, sources, cut, hallucinations, omissions, statistics,
        np.arange(rows),
    )  # fmt: skip


def test_bins_of_length_hold_every_row_once_with_means_inside_their_intervals():
    analysis = analyse(42)
    bins, n = analysis["source_length"]["bins"], 0
    assert [b["low"] for b in bins] == [1, 12, 22, 32] and [b["high"] for b in bins] == [11, 21, 31, 42]
    for b in bins:
        rows = np.arange(n, n + b["rows"])
        assert b["omission"] == pytest.approx((rows / 42).mean())
        low, high = b["omission_ci95"]
        assert low < b["omission"] < high and high - low < 0.2
        assert b["cut"] == (4 if b is bins[-1] else 0)
        n += b["rows"]
    assert n == 42
    assert analysis["source_length"]["spearman"]["omission"] == pytest.approx(1)
    assert set(analysis["source_length"]["spearman"]) == {"rougeL", "omission"}


def test_rows_of_one_length_share_a_bin_and_have_no_correlation():
    predictions = ["a"] * 30
    statistics = text_statistics(predictions, predictions)
    empty = [[]] * 30
    analysis = analyse_summaries(
        predictions, predictions, predictions, [False] * 30, empty, empty, statistics, np.arange(30)
    )
    (b,) = analysis["source_length"]["bins"]
    assert (b["low"], b["high"], b["rows"], b["rougeL"]) == (1, 1, 30, 1.0)
    assert 0.8 < b["rougeL_ci95"][0] < b["rougeL_ci95"][1] == 1
    assert analysis["source_length"]["spearman"] == {"rougeL": None}
    assert analysis["findings"] == {}


def test_counts_percentiles_and_references_are_right_and_no_text_is_kept():
    analysis = analyse(40)
    assert analysis["findings"] == {
        "drug": {"hallucinations": 2, "rows_with_hallucinations": 1, "omissions": 1, "rows_with_omissions": 1},
        "number": {"hallucinations": 2, "rows_with_hallucinations": 2, "omissions": 0, "rows_with_omissions": 0},
    }
    words = analysis["summary_words"]
    assert words["references"] == [4.0] * 101 and (words["predictions"][0], words["predictions"][50]) == (1.0, 3.0)
    # only the first source has word0: 39 of 40 rows have four new words, one has three
    assert analysis["references"]["novel_1gram"] == pytest.approx(159 / 160)
    assert analysis["references"]["compression"] == pytest.approx(40 * 41 / 2 / 160)
    assert "word0" not in json.dumps(analysis)
