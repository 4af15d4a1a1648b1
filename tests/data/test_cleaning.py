"""Cleaning rows: what survives, what is dropped and counted, and what a wrong value says."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.arguments import DataArguments, UserError
from utils.data.cleaning import clean_text
from utils.data.columns import Columns
from utils.data.rows import clean_rows

GOUT = {"question": "What is gout?", "answer": "A disease."}


def clean(rows: list[dict[str, Any]], columns: dict[str, Any] | None = None, **arguments: Any):
    """The rows that `clean_rows` yields, and its counts; `columns` replaces parts of question and answer."""
    counts = Counter()
    numbered = (("a.jsonl", number, row) for number, row in enumerate(rows, 1))
    args = DataArguments(**arguments)
    parts = Columns(**{"input": "question", "target": "answer", "lowercase": args.lowercase} | (columns or {}))
    return list(clean_rows(numbered, "train", parts, args, counts)), counts


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a \t b\u00a0c  ", "a b c"),
        ("Doctor: hi \r\n\r\n  Patient: hello\u2028bye", "Doctor: hi\nPatient: hello\nbye"),
        ("zero\u200bwidth \ufffd\ue000soft\u00adhyphen\x00 \ud800", "zerowidth softhyphen"),
        ("cafe\u0301 e\u200b\u0301", "caf\u00e9 \u00e9"),
        ("well..... really??!! ------ ok... wait", "well. really??!! - ok... wait"),
        ("10² µg ± 5 °C ≥ 3 ≤ 4 % 1/2 <0.5 >7 Na+ ++++", "10² µg ± 5 °C ≥ 3 ≤ 4 % 1/2 <0.5 >7 Na+ ++++"),
        ("None", "None"),
        (" \u200b\n ", ""),
        ("می\u200cشود", "می\u200cشود"),
        ("ක්\u200dෂය ශ්\u200dරී", "ක්\u200dෂය ශ්\u200dරී"),
        ("അവന്\u200d പോയി", "അവന്\u200d പോയി"),
        ("می\u200b\u200c\u200cشود \u200cرا\u200c", "می\u200cشود را"),
        ("pa\u200cin\u200d \u200d\u200c5\u200d6 痛\u200d", "pain 56 痛"),
        (
            "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🩹 👩🏽\u200d⚕\ufe0f",
            "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🩹 👩🏽\u200d⚕\ufe0f",
        ),
        (
            "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f a\U000e0067b",
            "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f ab",
        ),
        ("👨\u200d ok \u200d👩", "👨 ok 👩"),
    ],
)
def test_cleaning_takes_what_is_no_text_and_leaves_units_and_signs(text, clean):
    assert clean_text(text) == clean


def test_cleaning_twice_changes_nothing_more():
    generator = random.Random(0)
    alphabet = (
        "ab.-? \n\t\r\u0301\u0308\u200b\u00a0\u2028\x00\x1c\x85\ufffd\u1100\u1161\u11a8\u037e\u1fef\ud800\ue000µ°²"
        "\u200c\u200dمی\u094dक\u0654👨❤\ufe0f\U0001f3f4\U000e0067\U000e007f"
    )
    for _ in range(20_000):
        text = "".join(generator.choices(alphabet, k=generator.randrange(25)))
        text += "".join(chr(generator.randrange(0x110000)) for _ in range(5))
        once = clean_text(text)
        assert clean_text(once) == once
        once.encode()


def test_every_reason_is_counted_and_the_right_rows_stay():
    rows = [
        {"question": None, "answer": "x"},
        {"question": " \u200b ", "answer": "x"},
        {"question": "What is gout", "answer": ""},
        {"answer": "no question at all"},
        {"question": "Gout?", "answer": "a"},
        {"question": "Why is it?", "answer": "because"},
        {"question": "What does that do?", "answer": "nothing"},
        {"question": "Is CO it?", "answer": "a gas in capitals is no function word"},
        {"question": "Is gout bad?", "answer": "None"},
        {"question": "is  gout bad?", "answer": "none"},
        {"question": "Is gout  bad?", "answer": "yes"},
        {"question": "How many \ufffdmg?", "answer": 5},
    ]
    kept, counts = clean(rows)
    assert [(row["id"], row["question"], row["answer"]) for row in kept] == [
        ("train-8", "Is CO it?", "a gas in capitals is no function word"),
        ("train-9", "Is gout bad?", "None"),
        ("train-11", "Is gout bad?", "yes"),
        ("train-12", "How many mg?", "5"),
    ]
    assert counts == {
        "read": 12,
        "missing": 4,
        "rows_without_input": 3,
        "rows_without_target": 1,
        "short": 1,
        "ambiguous": 2,
        "duplicate": 1,
        "symbols": 1,
        "whitespace": 2,
    }


def test_zero_and_false_are_values():
    rows = [{"id": 0, "question": 0, "answer": False}, {"id": None, "question": 0.0, "answer": 0}]
    kept, counts = clean(rows, min_input_words=1, drop_ambiguous=False)
    assert [(row["id"], row["question"], row["answer"]) for row in kept] == [
        ("0", "0", "False"),
        ("train-2", "0.0", "0"),
    ]
    assert not counts["missing"]


CELLS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.fixed_dictionaries({"question": CELLS, "answer": CELLS, "ward": CELLS, "id": CELLS}), max_size=8))
def test_no_row_is_lost_without_a_count(rows):
    kept, counts = clean(rows, {"kept": ("ward",)})
    dropped = sum(counts[reason] for reason in ("missing", "short", "ambiguous", "duplicate", "unlabelled"))
    assert counts["read"] == len(rows) == len(kept) + dropped
    assert all(isinstance(value, str) and value.encode() is not None for row in kept for value in row.values())
    again, counts = clean(kept, {"kept": ("ward",)})
    assert again == kept and not counts["symbols"] and not counts["whitespace"]


def test_limits_of_length_and_ambiguity_follow_the_arguments():
    rows = [{"question": "Gout?", "answer": "a b"}, {"question": "Why is it?", "answer": "a b"}]
    kept, counts = clean(rows, min_input_words=1, min_target_words=3, drop_ambiguous=False)
    assert kept == [] and counts["short"] == 2
    assert len(clean(rows, min_input_words=1, drop_ambiguous=False)[0]) == 2


def test_a_context_makes_a_short_question_clear():
    row = {"question": "Why is it?", "answer": "x", "context": "Gout hurts."}
    assert len(clean([row], {"optional": ("context",)})[0]) == 1
    assert clean([row | {"context": ""}], {"optional": ("context",)})[1]["ambiguous"] == 1


def test_lower_case_is_off_by_default_and_leaves_labels():
    rows, columns = [{"text": "Mg pH", "label": "A"}], {"input": "text", "target": "label", "label": "label"}
    assert clean(rows, columns)[0] == [{"id": "train-1", "text": "Mg pH", "label": "A"}]
    assert clean(rows, columns, lowercase=True)[0] == [{"id": "train-1", "text": "mg ph", "label": "A"}]


def test_options_come_from_one_list_from_json_or_from_several_columns():
    columns = {"target": None, "lists": ("options",), "index": "right"}
    for options in (["red one", " blue "], '["red one", " blue "]'):
        kept, _ = clean([GOUT | {"options": options, "right": "1"}], columns)
        assert kept == [{"id": "train-1", "question": "What is gout?", "options": ["red one", "blue"], "right": 1}]
    row = GOUT | {"opa": "red one", "opb": "blue"}
    kept, counts = clean([row | {"right": 1.0}, row | {"right": -1}], columns | {"lists": ("opa", "opb")})
    assert kept == [{"id": "train-1", "question": "What is gout?", "options": ["red one", "blue"], "right": 1}]
    assert counts["unlabelled"] == 1 and counts["read"] == 2
    as_floats = [row | {"right": "1.0"}, row | {"right": "-1.0"}, row | {"right": -1.0, "question": "What is it?"}]
    kept, counts = clean(as_floats, columns | {"lists": ("opa", "opb")})
    assert [row["right"] for row in kept] == [1] and counts["unlabelled"] == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"right": 2}, ["row 3", "`right`", "`2`", "0 to 1"]),
        ({"right": -2}, ["row 3", "`right`", "`-2`", "0 to 1"]),
        ({"right": "E"}, ["row 3", "`right`", "0 to 1", "A to B"]),
        ({"options": "red, blue"}, ["row 3", "`options`", "str", "list"]),
        ({"options": ["red"]}, ["row 3", "`options`", "list of 1"]),
        ({"options": ["red", {}]}, ["row 3", "`options`", "dict"]),
        ({"question": ["a", "b"]}, ["row 3", "`question`", "list"]),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_file_row_and_column(change, says):
    row = GOUT | {"options": ["red", "blue"], "right": 0}
    with pytest.raises(UserError) as error:
        clean([row, row, row | change], {"lists": ("options",), "index": "right"})
    assert all(part in str(error.value) for part in ["`a.jsonl`", *says]), str(error.value)


def test_rows_in_scripts_without_spaces_are_measured_in_words_and_stay():
    texts = [
        "高血压患者可以喝咖啡吗？",
        "CRP升高说明什么？",
        "熱が下がりません。",
        "ปวดหัวมากทำอย่างไร",
        "អ្នកជំងឺមានគ្រុនក្តៅ",
    ]
    kept, counts = clean([{"question": text, "answer": text} for text in texts], min_input_words=3, min_target_words=3)
    assert len(kept) == len(texts) == counts["read"] and not counts["short"]
    assert clean([{"question": "发热", "answer": "x"}])[1]["short"] == 1  # one word, as "Fever" is
