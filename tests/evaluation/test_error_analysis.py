import pytest

from utils.evaluation.error_analysis import ERROR_ADVICE, _numbers, error_patterns
from utils.metrics.statistics import text_statistics

SOURCE = "What are the early signs of iron deficiency in young children?"
REFERENCE = "Pale skin, tiredness and poor appetite; give 1,000 mg once or 0.50 g twice a day."


@pytest.mark.parametrize(
    ("prediction", "finished", "shown"),
    [
        ("Pale skin, tiredness and poor appetite; give 1000 mg once or .5 g twice a day.", True, set()),
        (REFERENCE + " Also" + "".join(f" see {word} notes" for word in "abcdefghijkl"), True, {"verbose"}),
        ("Pale skin, tiredness: 1000 mg, 0.5 g.", True, {"too_short"}),
        (REFERENCE + " Poor appetite; give" * 5, True, {"repeated"}),
        (REFERENCE, False, {"cut_off"}),
        ("", True, {"empty"}),
        (" \n", False, {"empty", "cut_off"}),
        (f"{SOURCE} 1000 mg, 0.5 g.", True, {"copies_source"}),
        ("It can run within families, we would ask what doctors have seen: 1000 0.5", True, {"low_overlap"}),
        (REFERENCE.replace("0.50", "5"), True, {"wrong_numbers"}),
        (REFERENCE.replace("1,000 mg", "some"), True, {"wrong_numbers"}),
    ],
)
def test_a_row_shows_exactly_its_error_patterns(prediction, finished, shown):
    patterns = error_patterns(["", prediction], ["", REFERENCE], ["", SOURCE], [True, finished])
    assert {name for name, rows in patterns.items() if 1 in rows} == shown
    assert patterns["empty"][:1] == [0]
    assert set(patterns) == set(ERROR_ADVICE)


def test_copying_is_no_error_where_the_reference_copies_too():
    assert error_patterns([SOURCE], [SOURCE], [SOURCE])["copies_source"] == []


def test_patterns_that_need_sources_or_finished_are_left_out_without_them():
    statistics = text_statistics(["a"], ["a"])
    patterns = error_patterns(["a"], ["a"], statistics=statistics)
    assert set(ERROR_ADVICE) - set(patterns) == {"copies_source", "cut_off"}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000 mg and 1000mg", {1000}),
        ("0.50 or .5, 5-10 days, at 37.5.", {0.5, 5, 10, 37.5}),
        ("vitamin B12, HbA1c 6.5%", {6.5}),
        ("1,2,3 and 12,5000", {1, 2, 3, 12, 5000}),
        ("on 01/10/2009 $1,234,567.80", {1, 10, 2009, 1234567.8}),
        ("none", set()),
    ],
)
def test_numbers_are_read_as_values(text, numbers):
    assert _numbers(text) == numbers
