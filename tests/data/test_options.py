import json
from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.arguments import UserError
from utils.data.options import (
    answer_warnings,
    column_labels,
    drop_blanks,
    find_answer,
    label_options,
    read_options,
    strip_labels,
)

PLAIN = {"A": "rest", "B": "surgery", "C": "", "D": "tablets"}
texts = st.lists(st.text("abcdefgh", min_size=2), min_size=2, max_size=10, unique=True)


def find(value, options=PLAIN, base=None):
    return find_answer(value, options, base, "key", "row 3")


def refused(value, options=PLAIN, base=None) -> str:
    with pytest.raises(UserError, match="^row 3: `key` ") as caught:
        find(value, options, base)
    assert not any(len(text) > 3 and text in str(caught.value) for text in options.values())
    return str(caught.value)


# ----- Options


@pytest.mark.parametrize(
    "written",
    [
        ["rest", "surgery", "tablets"],
        {"A": "rest", "B": "surgery", "C": "tablets"},
        {"C": "tablets", "a": "rest", "(B)": "surgery"},
        {"opc": "tablets", "opb": "surgery", "opa": "rest"},
        {"label": ["A", "B", "C"], "text": ["rest", "surgery", "tablets"]},
        [{"key": "A", "value": "rest"}, {"key": "B", "value": "surgery"}, {"key": "C", "value": "tablets"}],
        [{"text": "rest", "id": "a"}, {"text": "surgery", "id": "b"}, {"text": "tablets", "id": "c"}],
        [
            {"option": "A", "content": "rest", "right": True},
            {"option": "B", "content": "surgery", "right": False},
            {"option": "C", "content": "tablets", "right": False},
        ],
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_options_are_labelled_in_the_order_of_their_letters(written, as_json):
    value = json.dumps(written) if as_json else written
    found = read_options(value, "options", "row 3")
    assert list(found.items()) == [("A", "rest"), ("B", "surgery"), ("C", "tablets")]


def test_options_with_numbers_are_in_the_order_of_the_numbers():
    assert list(read_options({"10": "j", "2": "b", "1": "a"}, "o", "row 1").items()) == [
        ("1", "a"), ("2", "b"), ("10", "j"),
    ]  # fmt: skip
    assert read_options([{"aid": 2, "atext": "b"}, {"aid": 1, "atext": "a"}], "o", "row 1") == {"1": "a", "2": "b"}


def test_blank_options_keep_their_place_and_no_options_are_none():
    assert read_options(["rest", None, "tablets"], "o", "row 1") == {"A": "rest", "B": None, "C": "tablets"}
    assert read_options({"A": "rest", "E": None, "B": ""}, "o", "row 1") == {"A": "rest", "B": "", "E": None}
    assert all(read_options(value, "o", "row 1") == {} for value in (None, "", [], {}, "[]"))


@pytest.mark.parametrize(
    "value",
    [
        ["one"], "['one', 'two']", "one, two", 5, ["x"] * 27, {"A": "one"}, {"drug": "one", "care": "two"},
        {"A": "one", "a": "two"}, {"A": "one", "1": "two"}, {"label": ["A", "B"], "text": ["one"]},
        [{"name": "one"}, {"name": "two"}], [{"key": "A", "value": "one"}, {"key": "A", "value": "two"}],
    ],
)  # fmt: skip
def test_another_shape_is_refused_by_row_and_column_without_its_text(value):
    with pytest.raises(UserError, match="^row 3: `options` ") as caught:
        read_options(value, "options", "row 3")
    assert "one" not in str(caught.value).replace("one of", "") and "two" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["A", "B", "C"], "ABC"), (["C", "B", "A"], "CBA"), (["opa", "opb", "opc", "opd"], "ABCD"),
        (["option_2", "option_1"], "21"), (["ending0", "ending1", "ending2"], "012"),
        ([f"choice{i}" for i in range(1, 12)], list(map(str, range(1, 12)))),
        (["right", "wrong"], "AB"), (["A", "C"], "AB"), (["x1", "x3"], "AB"), (["a1", "b1"], "AB"),
    ],
)  # fmt: skip
def test_columns_of_options_are_labelled_by_the_ends_of_their_names(names, labels):
    assert column_labels(names) == list(labels)


def test_the_letters_that_options_repeat_are_left_out_and_refused_if_they_are_others():
    plain = {"A": "rest", "B": "surgery", "C": None}
    for lettered in (["A. rest", "B. surgery"], ["(a) rest", "(b)  surgery"], ["A) rest", " B: surgery"]):
        assert strip_labels(dict(zip("ABC", [*lettered, None], strict=True)), "o", "row 1") == plain
    for kept in (
        plain,
        {"A": "A. rest", "B": "surgery"},
        {"A": "a.m.", "B": "b.i.d."},
        {"A": "E. coli", "B": "S. mitis"},
    ):
        assert strip_labels(kept, "o", "row 1") == kept
    with pytest.raises(UserError, match="row 1: `o` ") as caught:
        strip_labels({"A": "B. rest", "B": "A. surgery"}, "o", "row 1")
    assert "rest" not in str(caught.value)


# ----- Answers


@pytest.mark.parametrize(
    "value",
    [
        "D",
        "d",
        "(D)",
        "D.",
        "d)",
        "[D]",
        "\uff24",
        "Option D",
        "option_d",
        "opd",
        "D. tablets",
        "(d) Tablets",
        "tablets",
        "3",
        3,
        3.0,
        "3.0",
    ],
)
def test_an_answer_is_a_letter_a_text_or_a_place(value):
    assert find(value)[0] == 3


def test_the_form_of_an_answer_is_told():
    assert [find(value)[1] for value in ("B", "surgery", "B: surgery", 1, "1")] == [
        "letter", "text", "letter", "index", "index",
    ]  # fmt: skip


def test_a_base_of_one_moves_places_and_nothing_else():
    assert [find(value, base=1)[0] for value in ("1", 2, "D", "tablets")] == [0, 1, 3, 3]
    assert "1 to 4" in refused("0", base=1) and "1 to 4" in refused(5, base=1)
    assert find("-1", base=1)[0] == find("-1.0")[0] == find(-1)[0] == -1


@pytest.mark.parametrize("value", ["4", -2, "E", "diet", "B. rest", "1.5", True, "B or D"])
def test_an_answer_that_names_no_option_is_refused(value):
    refused(value)


@pytest.mark.parametrize("value", ["C", 2, "2", "(c)"])
def test_an_answer_that_names_a_blank_option_is_refused(value):
    assert "blank" in refused(value)


def test_readings_that_disagree_are_refused_and_those_that_agree_are_not():
    numbers, letters = {"A": "1", "B": "2", "C": "x"}, {"A": "B", "B": "A", "C": "O"}
    refused("1", numbers)
    refused("A", letters)
    assert find("O", letters) == (2, "text") and find("A", {"A": "A", "B": "B"})[0] == 0
    assert find("1", {"A": "0", "B": "1"}) == (1, "index")
    # A number in JSON is a place, and so are digits where the recipe says from where places count
    assert find(1, numbers)[0] == find("1", numbers, base=0)[0] == 1 and find("1", numbers, base=1)[0] == 0
    by_number = {"1": "rest", "2": "surgery"}
    refused("1", by_number)
    assert find(1, by_number, base=1)[0] == 0 and find("surgery", by_number)[0] == 1
    assert find(1, by_number, base=0)[0] == 1  # the recipe says what a number means


def test_the_text_of_two_equal_options_is_refused():
    twice = {"A": "rest", "B": "Rest ", "C": "rest"}
    assert "several" in refused("rest", twice)
    assert find("B", twice)[0] == 1 and find("REST", {"A": "rest", "B": "x"})[0] == 0


@given(texts, st.data())
def test_letter_text_and_place_are_one_answer(options, data):
    place = data.draw(st.integers(0, len(options) - 1))
    labelled = label_options(options)
    for base in (None, 0, 1):
        ways = [ascii_uppercase[place], options[place], str(place + (base or 0)), float(place + (base or 0))]
        assert {find_answer(way, labelled, base, "o", "row 1")[0] for way in ways} == {place}


# ----- Blank options


@given(st.lists(st.sampled_from(["", "rest", "diet"]), min_size=2, max_size=8), st.data())
def test_the_right_option_stays_right_without_the_blank_ones(options, data):
    place = data.draw(st.integers(0, len(options) - 1))
    kept, new = drop_blanks(options, place)
    assert kept == [text for text in options if text]
    assert not options[place] or kept[new] == options[place]


def test_a_file_that_never_names_the_first_place_or_mixes_forms_is_warned_about():
    (warning,) = answer_warnings({"answers_by_index": 40}, None)
    assert "`answer_index_base: 1`" in warning and "40" in warning
    assert len(answer_warnings({"answers_by_index": 40}, 1)) == 1
    assert answer_warnings({"answers_by_index": 40, "answers_at_first_place": 2}, None) == []
    assert answer_warnings({"answers_by_letter": 40}, None) == answer_warnings({}, None) == []
    (warning,) = answer_warnings({"answers_by_letter": 40, "answers_by_text": 7}, None)
    assert "40 by letter" in warning and "7 by text" in warning
