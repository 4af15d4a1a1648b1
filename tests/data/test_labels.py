"""Labels: the data set's names and order, and every doubtful one named."""

import csv
import json
from collections import Counter
from pathlib import Path

import datasets
import pytest

from utils.arguments import DataArguments, UserError
from utils.data.columns import Columns
from utils.data.label_lists import has_label_lists
from utils.data.load import load_splits

WORDS = ["aorta", "bile", "cornea", "dermis", "enamel", "femur", "gland", "hilum", "iris", "jaw", "knee", "lung"]


def rows_of(counts: dict) -> list[dict]:
    """That many rows of each label, every text another one."""
    labels = [label for label, n in counts.items() for _ in range(n)]
    return [
        {"text": f"{WORDS[i % 12]} {WORDS[i // 12 % 12]} case {i}", "label": label} for i, label in enumerate(labels)
    ]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(**arguments):
    args = DataArguments(near_duplicate_threshold=1.0, **arguments)
    return load_splits(args, Columns("text", "label", label="label"), cluster_columns=["text"], seed=1)


def named(split: datasets.Dataset) -> Counter:
    return Counter(split.features["label"].int2str(number) for number in split["label"])


def test_text_labels_are_sorted_and_every_split_keeps_their_shares(tmp_path):
    splits, _ = load(train_file=write(tmp_path / "a.jsonl", rows_of({"Urology": 50, "Allergy": 30, "ENT": 20})))
    assert splits["train"].features["label"].names == ["Allergy", "ENT", "Urology"]
    assert named(splits["train"]) == {"Urology": 40, "Allergy": 24, "ENT": 16}
    assert named(splits["test"]) == {"Urology": 5, "Allergy": 3, "ENT": 2}


def test_numbers_are_sorted_by_size_and_a_whole_float_is_a_whole_number(tmp_path):
    rows = rows_of({10: 10, 9: 10, 2.0: 10, -1: 10})
    splits, _ = load(train_file=write(tmp_path / "a.jsonl", rows))
    assert splits["train"].features["label"].names == ["-1", "2", "9", "10"]


def test_class_labels_keep_the_order_of_the_data_set(tmp_path):
    rows = rows_of({"z": 10, "a": 10})
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["z", "unused", "a"]))
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    splits, _ = load(dataset_name=str(tmp_path / "data"))
    assert splits["train"].features["label"].names == ["z", "unused", "a"]
    assert set(named(splits["train"])) == {"z", "a"}


def test_a_label_with_blanks_around_it_everywhere_is_one_label(tmp_path):
    splits, _ = load(train_file=write(tmp_path / "a.jsonl", rows_of({" Surgery": 20, "Urology": 20})))
    assert splits["train"].features["label"].names == ["Surgery", "Urology"]


def test_labels_that_differ_by_case_or_blanks_are_named_and_not_merged(tmp_path):
    rows = rows_of({"Surgery": 20, "surgery ": 3, "Urology": 20, "UROLOGY": 1})
    with pytest.raises(UserError) as error:
        load(train_file=write(tmp_path / "a.jsonl", rows))
    assert "`label` has 2 labels in several spellings" in str(error.value)
    assert "'Surgery' (20 rows) and 'surgery' (3 rows)" in str(error.value)
    assert "'UROLOGY' (1 rows) and 'Urology' (20 rows)" in str(error.value)


def test_a_path_with_and_without_blanks_is_one_label_in_two_spellings(tmp_path):
    with pytest.raises(UserError, match="1 labels in several spellings.*'A > B'.*'A>B'"):
        load(train_file=write(tmp_path / "a.jsonl", rows_of({"A > B": 20, "A>B": 20, "A > C": 20})))


def test_a_single_label_and_a_list_as_label_are_refused(tmp_path):
    with pytest.raises(UserError, match="`label` has only one label, 'Surgery'"):
        load(train_file=write(tmp_path / "a.jsonl", rows_of({"Surgery": 20})))
    rows = rows_of({"a": 5}) + [{"text": "a text with two labels", "label": ["a", "b"]}]
    with pytest.raises(UserError, match="row 6: `label` is a list"):
        load(train_file=write(tmp_path / "b.jsonl", rows))


def test_rows_without_a_label_are_dropped_and_counted(tmp_path):
    rows = rows_of({"a": 20, "b": 20, " ": 3})
    rows.append({"text": "no label at all", "label": None})
    _, report = load(train_file=write(tmp_path / "a.jsonl", rows))
    assert report["data_dropped_missing"] == 4


def test_labels_that_the_training_rows_lack_are_listed(tmp_path):
    train = write(tmp_path / "train.jsonl", rows_of({"a": 20, "b": 20}))
    test = [{"text": f"another {row['text']}", "label": row["label"]} for row in rows_of({"a": 3, "c": 2, "d": 1})]
    expected = r"2 labels of the test split are not in .*: `c` \(2 rows: test-4, test-5\), `d`"
    with pytest.raises(UserError, match=expected):
        load(train_file=train, test_file=write(tmp_path / "test.jsonl", test))


def test_a_class_with_one_row_goes_to_training(tmp_path):
    splits, _ = load(train_file=write(tmp_path / "a.jsonl", rows_of({"a": 40, "b": 40, "only": 1})))
    assert named(splits["train"])["only"] == 1
    assert named(splits["test"])["only"] == 0


def test_a_small_sample_keeps_a_row_of_each_label(tmp_path):
    path = write(tmp_path / "a.jsonl", rows_of({"a": 300, "b": 300, "rare": 5, "rarer": 4}))
    splits, report = load(train_file=path, max_train_samples=10)
    assert report["train_rows"] == 10 and set(named(splits["train"])) == {"a", "b", "rare", "rarer"}
    assert load(train_file=path, max_train_samples=10)[1] == report


def test_a_thousand_classes(tmp_path):
    splits, _ = load(train_file=write(tmp_path / "a.jsonl", rows_of({f"class {n}": 3 for n in range(1000)})))
    assert len(splits["train"].features["label"].names) == 1000
    assert len(named(splits["train"])) == 1000


def test_the_command_writes_names(tmp_path, monkeypatch):
    from utils.data.__main__ import ColumnArguments, main

    path = write(tmp_path / "a.jsonl", rows_of({"b": 30, "a": 30}))
    columns = ColumnArguments(output_dir=str(tmp_path / "out"), text_column="text", label_column="label")
    main(DataArguments(train_file=path), columns)
    written = [json.loads(line) for line in (tmp_path / "out" / "test.jsonl").read_text().splitlines()]
    assert {row["label"] for row in written} == {"a", "b"}


def test_in_a_csv_a_column_of_numbers_is_as_good_as_one_of_text(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows_of({1: 20, 0: 20}))
    splits, _ = load(train_file=str(path))
    assert splits["train"].features["label"].names == ["0", "1"]


# ----- Lists of labels


def lists_of(rows: int, names: tuple = ("z", "a", "m")) -> list[dict]:
    return [
        row | {"label": [names[i % 3], names[(i + 1) % 3]] if i % 2 else [names[i % 3]]}
        for i, row in enumerate(rows_of({"x": rows}))
    ]


def list_columns() -> Columns:
    return Columns(input="text", target="label", label="label", label_list=True)


def test_class_labels_in_lists_keep_the_order_of_the_data_set(tmp_path):
    rows = [row | {"label": [["z", "unused", "a", "m"].index(v) for v in row["label"]]} for row in lists_of(60)]
    names = datasets.List(datasets.ClassLabel(names=["z", "unused", "a", "m"]))
    features = datasets.Features(text=datasets.Value("string"), label=names)
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    args = DataArguments(dataset_name=str(tmp_path / "data"), near_duplicate_threshold=1.0)
    assert has_label_lists(args, "label")
    splits, _ = load_splits(args, list_columns(), cluster_columns=["text"], seed=0)
    feature = splits["train"].features["label"].feature
    assert feature.names == ["z", "unused", "a", "m"]
    assert Counter(name for row in splits["train"]["label"] for name in feature.int2str(row)).keys() == {"z", "a", "m"}


def test_the_order_and_repetition_of_a_list_do_not_matter_and_its_spellings_are_merged(tmp_path):
    plain = lists_of(60)
    mixed = [row | {"label": [*reversed(row["label"]), f" {row['label'][0]}"]} for row in plain]
    found = []
    for name, rows in (("plain", plain), ("mixed", mixed)):
        args = DataArguments(train_file=write(tmp_path / f"{name}.jsonl", rows), near_duplicate_threshold=1.0)
        found.append(load_splits(args, list_columns(), cluster_columns=["text"], seed=0))
    (splits, report), (others, mixed_report) = found
    assert [splits[split]["label"][:] for split in splits] == [others[split]["label"][:] for split in others]
    assert report["train_sha256"] == mixed_report["train_sha256"] and mixed_report["data_merged_key_rows"] == 60


def test_a_row_without_labels_is_dropped_and_counted_and_a_sample_keeps_each_label(tmp_path):
    rows = [row | ({"label": None} if i in (3, 7) else {}) for i, row in enumerate(lists_of(200))]
    rows[11]["label"] = ["a", "rare"]
    args = DataArguments(
        train_file=write(tmp_path / "a.jsonl", rows), near_duplicate_threshold=1.0, max_train_samples=4
    )
    splits, report = load_splits(args, list_columns(), cluster_columns=["text"], seed=0)
    feature = splits["train"].features["label"].feature
    assert report["data_dropped_missing"] == 2 and len(splits["train"]) == 4
    assert {name for row in splits["train"]["label"] for name in feature.int2str(row)} == {"z", "a", "m", "rare"}
