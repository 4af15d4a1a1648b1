"""What is the same key: by its look, by its column, and never by accident."""

import json
import logging
import unicodedata
from collections import Counter
from decimal import Decimal

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.arguments import DataArguments, UserError
from utils.data.columns import Columns
from utils.data.keys import alike, count_repeated_ids, find_groups, find_keys, fold, is_unknown, merge_keys
from utils.data.load import load_splits

ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("aé-‐−'’ \u00a0\u200b\u200c\ufe0f½²Ａﬁ`＇‴")
)


def keys_of(*splits: list[str], groups: bool = False) -> tuple[dict[str, str], Counter]:
    counts = Counter()
    return find_keys([Counter(split) for split in splits], "ward", counts, groups), +counts


# ----- A value


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_the_form_of_a_key_is_that_of_every_text_that_looks_like_it(text):
    once = fold(text)
    assert fold(once) == once and alike(text) == alike(once)
    for same in (unicodedata.normalize("NFD", text), f" {text}\u200b\t", text.replace(" ", "\u00a0  ")):
        assert fold(same) == once


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Crohn's", "Crohn\u2019s"), ("Type-2", "Type\u20112"), ("1\u20132 weeks", "1-2 weeks"), ("\u22121", "-1"),
        ("Me\u0301nie\u0300re", "M\u00e9ni\u00e8re"), ("flu", "f\u200blu"), ("flu", "flu\x07"), ("a b", "a\u00a0 b"),
        ("\uff34\uff11", "T1"), ("\ufb01brosis", "fibrosis"), ("Stage \u2163", "Stage IV"), ("\u00b5g", "\u03bcg"),
        ("one\nline", "one line"), ("\u201cA\u201d", '"A"'), ("heart \u2764\ufe0f", "heart \u2764"),
    ],
)  # fmt: skip
def test_names_that_look_the_same_are_one_key_with_the_frequent_spelling(one, other):
    keys, counts = keys_of([one, other, other])
    assert len(set(keys.values())) == 1 and counts["merged_key_rows"] >= 1
    assert fold(keys[one]) == fold(one) and "\n" not in keys[one]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10²", "102"),
        ("H₂O", "H2O"),
        ("½", "1/2"),
        ("<7", ">7"),
        ("NA", "Na"),
        ("++", "+"),
        ("A", "\u0410"),
        ("a", "á"),
    ],
)
def test_names_that_a_reader_tells_apart_are_two(one, other):
    assert len(set(keys_of([one, other])[0].values())) == 2


@pytest.mark.parametrize(
    "word", ["", "nan", "NaN", "NA", "n/a", "N.A.", "<NA>", "#N/A", "None", "null", "Unknown", "?", "--"]
)
def test_a_word_for_unknown_is_no_group(word, caplog):
    counts = Counter()
    assert find_groups([word, "p1", word, "p1", " p1"], "patient", counts) == [None, "p1", None, "p1", "p1"]
    assert counts == {"rows_without_group": 2, "merged_key_rows": 1, "similar_keys": 0}
    assert ("`patient`: 2 rows" in caplog.text) == bool(word) and "p1" not in caplog.text


def test_numbers_initials_and_names_are_groups():
    assert not any(map(is_unknown, ["0", "-1", "Nan Li", "NA1", "U", "未知1", "ناصر"]))


# ----- A column

WHOLE = st.integers(-(2**40), 2**40).map(str)


@given(st.lists(WHOLE, min_size=1), st.lists(WHOLE, min_size=1))
def test_whole_numbers_that_became_floats_in_one_split_are_the_same(train, test):
    keys, counts = keys_of(train, [f"{number}.0" for number in test])
    if set(train) & set(test):
        assert all(keys[f"{number}.0"] == number for number in test) and counts["merged_key_rows"] == len(test)
    else:
        assert keys == {key: key for key in keys}


def test_whole_numbers_in_both_forms_in_one_file_are_the_same_if_each_is_in_both():
    assert set(keys_of(["0", "0.0", "1", "1.0", "1"])[0].values()) == {"0", "1"}


@pytest.mark.parametrize(
    "codes",
    [["250.00", "250.0", "250.1"], ["250.00", "250", "250.0"], ["007", "7", "7.0"], ["1.10", "1.1", "1", "1.0"]],
)
def test_codes_that_no_program_writes_for_numbers_stay_apart(codes):
    for groups in (False, True):
        keys, counts = keys_of(codes, groups=groups)
        assert keys == {code: code for code in codes} and not counts["merged_key_rows"]


@pytest.mark.parametrize(
    "written", [["250", "250.0", "250.1"], ["1", "1.0", "2"], ["0", "0.0", "1", "1.0", "unclear"], ["3", "3.0", "NA"]]
)
def test_numbers_or_codes_are_refused_with_both_and_their_rows_but_kept_together_as_groups(written):
    with pytest.raises(UserError) as error:
        keys_of(written, written[1:2])
    number, twin = written[:2]
    assert all(part in str(error.value) for part in ("`ward`", f"`{number}` (1 rows)", f"`{twin}` (2 rows)"))
    assert keys_of(written, groups=True)[0][twin] == number


def test_case_and_zeros_are_reported_and_not_merged(caplog):
    for groups in (False, True):
        keys, counts = keys_of(["p7", "5", "250.01"], ["P7", "005", "250.1"], groups=groups)
        assert keys == {key: key for key in keys} and counts == {"similar_keys": 4}
    shown, hidden = (record.getMessage() for record in caplog.records)
    assert "2 keys (4 rows)" in shown and "2 keys (4 rows)" in hidden
    assert "'P7'" in shown and "P7" not in hidden


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("250.00", "250.0"), ("250", "250.00"), ("+5", "5"), ("1.10", "1.1"), ("A-type", "\u0410-type"),
        ("\u0421O2", "CO2"), ("Type \u0391", "Type A"),
    ],
)  # fmt: skip
def test_numbers_and_letters_that_look_alike_are_reported_and_not_merged(one, other):
    keys, counts = keys_of([one, other, "x1"])
    assert keys == {one: one, other: other, "x1": "x1"} and counts == {"similar_keys": 2}


def test_numbers_that_a_spreadsheet_has_rounded_are_counted(caplog):
    keys, counts = keys_of(["1.23E+11", "4E+12", "123456789012", "E11.9", "1E3"], groups=True)
    assert counts == {"rounded_keys": 2} and len(set(keys.values())) == 5
    assert "2 keys" in caplog.text and "1.23E" not in caplog.text


def test_ids_that_are_equal_or_similar_are_counted_apart():
    counts = Counter()
    count_repeated_ids({"train": datasets.Dataset.from_dict({"id": ["7", "7", "7.0", "p1", "P1", "x"]})}, counts)
    assert counts == {"repeated_ids": 1, "similar_ids": 2}


def test_a_group_much_larger_than_all_others_is_pointed_at(caplog):
    find_groups(["-1"] * 20 + [f"p{i // 2}" for i in range(60)], "patient", Counter())
    assert "20 of 80 rows" in caplog.text
    caplog.clear()
    find_groups([f"p{i // 4}" for i in range(60)], "patient", Counter())
    assert not caplog.text


def test_a_group_of_most_rows_is_pointed_at(caplog):
    find_groups(["99999"] * 6 + list("abcd"), "patient", Counter())
    assert "6 of 10 rows" in caplog.text and "99999" not in caplog.text


def test_a_column_without_a_second_spelling_is_left_as_it_is():
    table = datasets.Dataset.from_dict({"id": ["1", "2"], "ward": ["a", "b"]})
    tables = {"train": table}
    assert merge_keys(tables, "ward", [], Counter()) == (tables, {"a": "a", "b": "b"})
    tables, keys = merge_keys(
        {"train": table, "test": datasets.Dataset.from_dict({"id": ["3"], "ward": ["a "]})}, "ward", ["c"], Counter()
    )
    assert tables["test"]["ward"][:] == ["a"] and keys == {"a": "a", "a ": "a", "b": "b", "c": "c"}


# ----- From files to splits


def rows_of(labels: list, **columns: list) -> list[dict]:
    rows = [{"text": f"words of the note {i}", "label": label} for i, label in enumerate(labels)]
    return [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)]


def write(path, rows: list[dict]) -> str:
    if path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def load(key_columns: list[str] | None = None, **arguments):
    args = DataArguments(**{"near_duplicate_threshold": 1.0} | arguments)
    columns = Columns("text", "label", label="label")
    return load_splits(args, columns, cluster_columns=["text"], key_columns=key_columns or [], seed=1)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_patient_is_the_same_with_and_without_a_point_in_every_format(tmp_path, ending):
    train = rows_of(["a", "b"] * 20, patient=[i % 20 for i in range(40)])
    test = rows_of(["a", "b"] * 3, patient=[3.0, 3.0, 4.0, 4.0, 99.0, 99.0])
    test = [row | {"text": f"other {row['text']}"} for row in test]
    files = {"train_file": write(tmp_path / "a.jsonl", train), "test_file": write(tmp_path / f"b.{ending}", test)}
    splits, report = load(**files, group_column="patient")
    assert report["data_dropped_leaks"] == 4
    assert not {"3", "4"} & {patient for split in ("train", "validation") for patient in splits[split]["patient"]}


def test_labels_and_parents_that_look_the_same_are_one_class(tmp_path):
    labels = ["Crohn's", "Crohn\u2019s", "Me\u0301nie\u0300re", "M\u00e9ni\u00e8re"] * 10
    rows = rows_of(labels, parent=["gut ", "gut", "e\u0301ar", "\u00e9ar"] * 10)
    splits, report = load(train_file=write(tmp_path / "a.jsonl", rows), key_columns=["parent"])
    assert splits["train"].features["label"].names == ["Crohn's", "M\u00e9ni\u00e8re"]
    assert set(splits["train"]["parent"]) == {"gut", "\u00e9ar"}
    assert report["data_merged_key_rows"] == 40
    assert {row["label"] for row in splits["test"]} == {0, 1}


def test_a_parent_of_floats_is_the_parent_of_whole_numbers(tmp_path):
    train, test = rows_of(["a", "b"] * 10, parent=[0, 1] * 10), rows_of(["a", "b"], parent=[0.0, None])
    test = [row | {"text": f"other {row['text']}"} for row in test]
    files = {"train_file": write(tmp_path / "a.jsonl", train), "test_file": write(tmp_path / "b.jsonl", test)}
    splits, _ = load(**files, key_columns=["parent"])
    assert splits["test"]["parent"][:] == ["0", ""] and set(splits["train"]["parent"]) == {"0", "1"}


def test_missing_words_are_classes_in_text_and_nothing_in_numbers(tmp_path):
    rows = rows_of(["NA", "None", "null", "nan", "N/A", ""] * 8)
    splits, report = load(train_file=write(tmp_path / "a.csv", rows))
    assert splits["train"].features["label"].names == ["N/A", "NA", "None", "nan", "null"]
    assert report["data_dropped_missing"] == 8
    rows = rows_of([1.0, 2.0, float("nan"), None] * 8)
    splits, report = load(train_file=write(tmp_path / "a.parquet", rows))
    assert splits["train"].features["label"].names == ["1", "2"] and report["data_dropped_missing"] == 16


NAMES = ["a", "A", "b ", "b", "c\u2019s", "c's", "1", "1.0", "01", "NA", "", "e\u0301", "\u00e9", "x\ny"]
SOME_NAMES = st.lists(st.sampled_from(NAMES), min_size=2, max_size=4).map(st.sampled_from)
CELLS = st.tuples(SOME_NAMES, st.lists(st.sampled_from(NAMES), min_size=9, max_size=9).map(st.sampled_from))


@settings(max_examples=25, deadline=None)
@given(
    rows=CELLS.flatmap(lambda cells: st.lists(st.tuples(*cells, st.integers(0, 60)), min_size=20, max_size=40)),
    given_test=st.booleans(),
)
def test_every_row_is_in_a_split_or_counted(tmp_path_factory, rows, given_test):
    folder = tmp_path_factory.mktemp("rows")
    rows = [{"text": f"words of note {n}", "label": label, "patient": patient} for label, patient, n in rows]
    files = {"train_file": write(folder / "a.jsonl", rows)}
    files |= {"test_file": write(folder / "b.jsonl", rows[::3])} if given_test else {}
    try:
        splits, report = load(**files, group_column="patient")
    except UserError as error:
        assert any(key in str(error) for key in ("`label`", "`train`", "`validation`", "`test`"))
        return
    dropped = sum(number for key, number in report.items() if key.startswith("data_dropped"))
    assert (
        report["data_rows_read"] == dropped + sum(map(len, splits.values())) == len(rows) + len(rows[::3]) * given_test
    )
    homes: dict[str, set[str]] = {}
    for split, table in splits.items():
        for patient in table["patient"]:
            homes.setdefault(fold(patient), set()).add(split)
    assert all(is_unknown(patient) or len(places) == 1 for patient, places in homes.items())
    names = splits["train"].features["label"].names
    assert len({alike(name) for name in names}) == len(names) and all(name.split("\n") == [name] for name in names)


def test_one_text_with_two_spellings_of_a_label_is_no_conflict(tmp_path):
    rows = rows_of(["0", "1"] * 10) + rows_of(["0.0", "1.0"]) + rows_of(["1.0"])
    _, report = load(train_file=write(tmp_path / "a.csv", rows))
    assert (report["data_conflicting_inputs"], report["data_conflicting_rows"]) == (1, 3)


def test_names_of_decimals_and_ids_of_floats_are_whole_and_repeated_ids_are_counted(tmp_path, caplog):
    rows = rows_of([Decimal("7.00"), Decimal("8.00")] * 10, id=[float(i // 2) for i in range(20)])
    splits, report = load(train_file=write(tmp_path / "a.parquet", rows))
    assert splits["train"].features["label"].names == ["7", "8"] and report["data_repeated_ids"] == 10
    assert set(splits["train"]["id"]) <= set(map(str, range(10))) and "`id`: 10 rows of train" in caplog.text


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.WARNING)
