"""Reading, cleaning and splitting: what survives, what is dropped and counted, and what each mistake says."""

import csv
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from utils.arguments import DataArguments, UserError, parse_recipe
from utils.data import ColumnArguments, clean_text, load_splits, main, read_rows
from utils.splits import fingerprint

REAL_DATA = Path(__file__).parents[2] / "shared/data"
WORDS = [f"word{number}" for number in range(3000)]


def question_rows(number: int, seed: int = 0) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    text = [" ".join(generator.choices(WORDS, k=12)) for _ in range(2 * number)]
    return [{"question": text[2 * i], "answer": text[2 * i + 1]} for i in range(number)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def load(seed: int = 1, columns: dict[str, Any] | None = None, **arguments: Any):
    """`load_splits` of question and answer; `columns` replaces its column arguments."""
    default = {"input_column": "question", "target_column": "answer", "cluster_columns": ["question"]}
    return load_splits(DataArguments(**arguments), **(default | (columns or {})), seed=seed)


def all_rows(splits: datasets.DatasetDict) -> list[dict[str, Any]]:
    return [row for split in splits.values() for row in split]


# ----- reading


def test_every_format_gives_the_same_rows(tmp_path):
    rows = [{"q": 'a "quoted", text\nin two lines', "n": "None"}, {"q": "NA", "n": "007"}, {"q": "µg ± 10²", "n": ""}]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, ["q", "n"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": rows}))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert len(list(tmp_path.iterdir())) == 12
    for path in tmp_path.iterdir():
        assert [row for _, row in read_rows(path)] == rows, path.name
    assert [number for number, _ in read_rows(tmp_path / "a.csv")] == [2, 4, 5]
    assert [number for number, _ in read_rows(tmp_path / "a.jsonl")] == [1, 2, 3]
    assert [number for number, _ in read_rows(tmp_path / "a.parquet")] == [0, 1, 2]
    assert [row for _, row in read_rows(tmp_path / "a.parquet", ["n", "x"])] == [{"n": row["n"]} for row in rows]


def test_a_field_longer_than_the_csv_limit_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("q,a\n" + "x" * 200_000 + ",y\n")
    assert len(next(read_rows(path))[1]["q"]) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, ["missing.csv", "does not exist"]),
        ("folder.csv", "folder", ["folder.csv", "is a folder"]),
        ("a.xlsx", b"x", ["a.xlsx", "`.xlsx`", ".parquet"]),
        ("a.csv", b"", ["a.csv", "no rows"]),
        ("a.csv", b"q,a\n", ["a.csv", "no rows"]),
        ("a.jsonl", b"\n\n", ["a.jsonl", "no rows"]),
        ("a.json", b"[]", ["a.json", "no rows"]),
        ("a.csv", b"q,a\n1,2\n\xb5g,3\n", ["a.csv", "not UTF-8", "byte 8", "line 3"]),
        ("a.jsonl.gz", gzip.compress(b'{"q": 1}\n{"q": "\xe9"}'), ["a.jsonl.gz", "not UTF-8", "byte 16"]),
        ("a.csv", b'q,a\n"1\n1",2\n\n1,2,3\n', ["a.csv", "row 5", "3 fields", "2"]),
        ("a.csv", b'q,a\n1,2\n3,"4\n5,6\n', ["a.csv", "row 3", "quotes"]),
        ("a.csv", b"q,a,q\n1,2,3\n", ["a.csv", "`q` twice"]),
        ("a.jsonl", b'{"q": 1}\n\n{"q": \n', ["a.jsonl", "row 3", "not JSON"]),
        ("a.jsonl", b'{"q": 1}\n[1]\n', ["a.jsonl", "row 2", "list"]),
        ("a.json", b'{"q": 1}\n{"q": 2}', ["a.json", "not JSON", ".jsonl"]),
        ("a.json", b'{"rows": []}', ["a.json", "data"]),
        ("a.json", b'[{"q": 1}, 2]', ["a.json", "row 1", "int"]),
        ("a.json", b'["\xff"]', ["a.json", "not UTF-8", "byte 2"]),
        ("a.csv.gz", b"not gzip", ["a.csv.gz", "damaged"]),
        ("a.csv.gz", gzip.compress(b"q,a\n" + bytes(range(97, 122)) * 99)[:-12], ["a.csv.gz", "damaged"]),
        ("a.parquet", b"PAR1 not parquet PAR1", ["a.parquet", "damaged"]),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_row(tmp_path, name, content, says):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_rows(tmp_path / name))
    assert all(part in str(error.value) for part in says), str(error.value)


# ----- cleaning


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
    ],
)
def test_cleaning_takes_what_is_no_text_and_leaves_units_and_signs(text, clean):
    assert clean_text(text) == clean


def test_cleaning_twice_changes_nothing_more():
    generator = random.Random(0)
    alphabet = (
        "ab.-? \n\t\r\u0301\u0308\u200b\u00a0\u2028\x00\x1c\x85\ufffd\u1100\u1161\u11a8\u037e\u1fef\ud800\ue000µ°²"
    )
    for _ in range(20_000):
        text = "".join(generator.choices(alphabet, k=generator.randrange(25)))
        text += "".join(chr(generator.randrange(0x110000)) for _ in range(5))
        once = clean_text(text)
        assert clean_text(once) == once
        once.encode()


def test_every_reason_is_counted_and_the_right_rows_stay(tmp_path):
    rows = question_rows(40)
    rows += [
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
    splits, report = load(train_file=write_jsonl(tmp_path / "a.jsonl", rows))
    kept = {row["question"]: row["answer"] for row in all_rows(splits)[:]}
    assert kept["How many mg?"] == "5"
    assert {row["answer"] for row in all_rows(splits) if row["question"] == "Is gout bad?"} == {"None", "yes"}
    assert report["data_rows_read"] == 52
    assert report["data_dropped_missing"] == 4
    assert report["data_dropped_short"] == 1
    assert report["data_dropped_ambiguous"] == 2
    assert report["data_dropped_duplicate"] == 1
    assert report["data_dropped_unlabelled"] == report["data_dropped_leaks"] == 0
    assert report["data_changed_symbols"] == 1
    assert report["data_changed_whitespace"] == 2
    assert report["data_conflicting_inputs"] == 1 and report["data_conflicting_rows"] == 2
    assert report["data_clusters"] == 43 and report["data_near_duplicate_rows"] == 2
    assert sum(report[f"{split}_rows"] for split in splits) == len(all_rows(splits)) == 44
    for split, data in splits.items():
        assert report[f"{split}_sha256"] == fingerprint(data.remove_columns(["id", "cluster"]))
        assert data.column_names == ["id", "question", "answer", "cluster"]


def test_limits_of_length_and_ambiguity_follow_the_arguments(tmp_path):
    rows = [*question_rows(20), {"question": "Gout?", "answer": "a b"}, {"question": "Why is it?", "answer": "a b"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    _, report = load(train_file=path, min_input_words=1, min_target_words=3, drop_ambiguous=False)
    assert report["data_dropped_short"] == 2
    _, report = load(train_file=path, min_input_words=1, drop_ambiguous=False)
    assert report["data_dropped_short"] == report["data_dropped_ambiguous"] == 0


def test_a_context_makes_a_short_question_clear(tmp_path):
    rows = [row | {"context": ""} for row in question_rows(20)]
    rows += [{"question": "Why is it?", "answer": "x", "context": "Gout hurts."}]
    columns = {"optional_columns": ["context"]}
    splits, report = load(train_file=write_jsonl(tmp_path / "a.jsonl", rows), columns=columns)
    assert report["data_dropped_ambiguous"] == 0 and len(all_rows(splits)) == 21


def test_lower_case_is_off_by_default_and_leaves_labels(tmp_path):
    rows = [{"text": f"Mg pH {number}", "label": "AB"[number % 2]} for number in range(30)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    columns = {
        "input_column": "text",
        "target_column": "label",
        "cluster_columns": ["text"],
        "stratify_column": "label",
    }
    splits, _ = load(train_file=path, columns=columns)
    assert all(row["text"].startswith("Mg pH") for row in all_rows(splits))
    splits, _ = load(train_file=path, columns=columns, lowercase=True)
    assert all(row["text"].startswith("mg ph") and row["label"] in "AB" for row in all_rows(splits))


# ----- columns


def test_only_named_columns_stay_and_ids_are_kept_or_made(tmp_path):
    rows = [row | {"id": i, "patient": i % 9, "note": None, "x": 1} for i, row in enumerate(question_rows(30))]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    splits, _ = load(train_file=path, group_column="patient", keep_columns=["note"])
    assert splits["train"].column_names == ["id", "question", "answer", "patient", "note", "cluster"]
    assert sorted(int(row["id"]) for row in all_rows(splits)) == list(range(30))
    for row in all_rows(splits):
        assert row["patient"] == str(int(row["id"]) % 9) and row["note"] == ""
    splits, _ = load(train_file=write_jsonl(tmp_path / "b.jsonl", question_rows(30)))
    assert sorted(row["id"] for row in all_rows(splits)) == sorted(f"train-{line}" for line in range(1, 31))


def test_options_come_from_one_list_or_from_several_columns(tmp_path):
    rows = [row | {"options": ["red one", " blue "], "right": i % 2} for i, row in enumerate(question_rows(30))]
    columns = {"target_column": None, "list_columns": ["options"], "index_column": "right"}
    splits, _ = load(train_file=write_jsonl(tmp_path / "a.jsonl", rows), columns=columns)
    assert splits["train"].column_names == ["id", "question", "options", "right", "cluster"]
    assert splits["train"][0]["options"] == ["red one", "blue"]
    assert {row["right"] for row in all_rows(splits)} == {0, 1}

    flat = [{"question": r["question"], "opa": "red one", "opb": "blue", "right": r["right"]} for r in rows] + [
        {"question": "The one held back", "opa": "red", "opb": "blue", "right": -1}
    ]
    columns |= {"list_columns": ["opa", "opb"], "cluster_columns": ["question", "options"]}
    splits, report = load(train_file=write_jsonl(tmp_path / "b.jsonl", flat), columns=columns)
    assert splits["train"].column_names == ["id", "question", "options", "right", "cluster"]
    assert splits["train"][0]["options"] == ["red one", "blue"]
    assert report["data_dropped_unlabelled"] == 1 and report["data_rows_read"] == 31


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"right": 2}, ["row 3", "`right`", "`2`", "0 to 1"]),
        ({"right": -2}, ["row 3", "`right`", "`-2`", "0 to 1"]),
        ({"right": "A"}, ["row 3", "`right`", "`A`", "0 to 1"]),
        ({"options": "red, blue"}, ["row 3", "`options`", "str", "list of two"]),
        ({"options": ["red"]}, ["row 3", "`options`", "list of 1"]),
        ({"options": ["red", {}]}, ["row 3", "`options`", "dict"]),
        ({"question": ["a", "b"]}, ["row 3", "`question`", "list"]),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_file_row_and_column(tmp_path, change, says):
    rows = [row | {"options": ["red", "blue"], "right": 0} for row in question_rows(20)]
    rows[2] |= change
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError) as error:
        load(train_file=path, columns={"list_columns": ["options"], "index_column": "right"})
    assert all(part in str(error.value) for part in [path, *says]), str(error.value)


def test_index_as_text_in_a_csv_with_json_options(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["question", "options", "right"])
        writer.writerows([row["question"], '["a", "b"]', "1"] for row in question_rows(20))
    columns = {"target_column": None, "list_columns": ["options"], "index_column": "right"}
    splits, _ = load(train_file=str(path), columns=columns)
    assert all(row["options"] == ["a", "b"] and row["right"] == 1 for row in all_rows(splits))


@pytest.mark.parametrize(
    ("columns", "arguments", "says"),
    [
        ({"input_column": "qestion"}, {}, ["`qestion`", "`question`, `answer`", "did you mean `question`"]),
        ({"target_column": "zzz"}, {}, ["`zzz`", "`question`, `answer`"]),
        ({"cluster_columns": ["zzz"]}, {}, ["`zzz`"]),
        ({}, {"group_column": "patient"}, ["`patient`"]),
        ({}, {"keep_columns": ["anser"]}, ["`anser`", "did you mean `answer`"]),
        ({"target_column": "question"}, {}, ["`question`", "one part"]),
        ({"target_column": "id"}, {}, ["`id`"]),
    ],
)
def test_a_column_that_cannot_be_used_is_named_with_the_nearest(tmp_path, columns, arguments, says):
    path = write_jsonl(tmp_path / "a.jsonl", question_rows(20))
    with pytest.raises(UserError) as error:
        load(train_file=path, columns=columns, **arguments)
    assert all(part in str(error.value) for part in says), str(error.value)


# ----- splitting


@pytest.mark.parametrize("seed", range(5))
def test_no_twin_and_no_group_crosses_splits_given_or_cut(tmp_path, seed):
    generator = random.Random(seed)
    base = question_rows(120, seed)
    rows = []
    for _ in range(400):
        row = dict(generator.choice(base))
        change = generator.random()
        if change < 0.3:
            row["question"] += " now"  # a near-duplicate: 8 of 9 shingles are common
        elif change < 0.6:
            row["question"] = row["question"].upper() + "?"
        row["answer"] += f" {generator.randrange(10)}"
        rows.append(row | {"patient": generator.choice([None, *range(100)])})
    train = write_jsonl(tmp_path / "train.jsonl", rows[:300])
    validation = write_jsonl(tmp_path / "validation.jsonl", rows[300:350])
    test = write_jsonl(tmp_path / "test.jsonl", rows[350:])
    for given in ({}, {"test_file": test}, {"validation_file": validation}):
        rows_of_base = {row["question"]: number for number, row in enumerate(base)}
        splits, _ = load(train_file=train, seed=seed, near_duplicate_threshold=0.8, **given)
        homes: dict[int, set[str]] = {}
        for split, data in splits.items():
            for row in data:
                words = row["question"].lower().removesuffix("?").removesuffix(" now")
                homes.setdefault(rows_of_base[words], set()).add(split)
        assert all(len(places) == 1 for places in homes.values())


def test_no_group_crosses_splits_and_rows_without_a_group_are_free(tmp_path):
    generator = random.Random(0)
    rows = [row | {"patient": generator.choice(["", None, *range(40)])} for row in question_rows(400)]
    train = write_jsonl(tmp_path / "train.jsonl", rows[:350])
    test = write_jsonl(tmp_path / "test.jsonl", rows[350:380])
    splits, report = load(train_file=train, test_file=test, group_column="patient")
    homes: dict[str, str] = {}
    for split, data in splits.items():
        for row in data:
            assert not row["patient"] or homes.setdefault(row["patient"], split) == split
    assert report["data_dropped_leaks"] > 0 and report["test_rows"] == 30
    assert sum(not row["patient"] for row in all_rows(splits)) == sum(
        row["patient"] in ("", None) for row in rows[:380]
    )


def test_given_splits_stay_and_leaks_leave_the_earlier_one(tmp_path):
    rows = question_rows(60)
    train, validation, test = rows[:40], rows[40:50], rows[50:]
    twin = {"question": test[0]["question"] + "!", "answer": "another"}
    paths = {
        "train_file": write_jsonl(tmp_path / "train.jsonl", [*train, twin, validation[0]]),
        "validation_file": write_jsonl(tmp_path / "validation.jsonl", [*validation, twin]),
        "test_file": write_jsonl(tmp_path / "test.jsonl", [*test, twin]),
    }
    splits, report = load(**paths)
    assert report["data_dropped_leaks"] == 3
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [40, 10, 11]
    assert [row["question"] for row in splits["train"]] == [row["question"] for row in train]
    assert splits["test"]["id"][:2] == ["test-1", "test-2"]


def test_fractions_seed_and_labels_decide_the_cut(tmp_path):
    rows = [row | {"label": "ab"[number % 10 == 0]} for number, row in enumerate(question_rows(200))]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    columns = {"target_column": "label", "stratify_column": "label"}
    arguments = {"train_file": path, "validation_fraction": 0.2, "test_fraction": 0.3, "columns": columns}
    splits, report = load(**arguments)
    assert [report[f"{split}_rows"] for split in splits] == [100, 40, 60]
    assert [data["label"][:].count("b") for data in splits.values()] == [10, 4, 6]
    assert load(**arguments)[1] == report
    assert load(**arguments, seed=2)[1]["test_sha256"] != report["test_sha256"]


def test_maximum_samples_are_random_repeatable_and_in_order(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", question_rows(200))
    arguments = {"train_file": path, "max_train_samples": 20, "max_eval_samples": 5, "max_predict_samples": 500}
    splits, report = load(**arguments)
    assert [len(data) for data in splits.values()] == [20, 5, 20]
    numbers = [int(name.removeprefix("train-")) for name in splits["train"]["id"]]
    assert numbers == sorted(numbers) and max(numbers) > 50
    assert load(**arguments)[1] == report


def test_a_changed_file_of_the_same_name_is_read_anew(tmp_path):
    for number in (20, 21):
        path = write_jsonl(tmp_path / "a.jsonl", question_rows(number, seed=number))
        splits, _ = load(train_file=path)
        questions = {row["question"] for row in splits.map(lambda row: row)["train"]}
        assert questions < {row["question"] for row in question_rows(number, seed=number)}
        assert len(all_rows(splits)) == number


def test_rows_lie_in_a_folder_that_goes_with_the_process(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", question_rows(20))
    script = (
        "from utils.data import *; splits, _ = load_splits(DataArguments(train_file=sys.argv[1]), seed=1,"
        "input_column='question', target_column='answer', cluster_columns=['question'])\n"
        "splits.map(lambda row: row); print(splits['train'].cache_files[0]['filename'])"
    )
    environment = {"HF_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script, path]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout and not Path(done.stdout.strip()).parent.exists()
    assert not list(tmp_path.rglob("*.arrow"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"train_file": None}, ["`dataset_name`", "`train_file`", "neither"]),
        ({"dataset_name": "a/b"}, ["`dataset_name`", "`train_file`", "both"]),
        ({"validation_fraction": 0}, ["`validation_fraction` is 0", "`validation_file`"]),
        ({"test_fraction": 1.5}, ["`test_fraction` is 1.5"]),
        ({"test_fraction": 0.6, "validation_fraction": 0.4}, ["`validation_fraction` + `test_fraction`", "below 1"]),
        ({"max_train_samples": 0}, ["`max_train_samples` is 0", "1 or more"]),
        ({"max_predict_samples": -1}, ["`max_predict_samples` is -1"]),
        ({"streaming": True}, ["`streaming`", "`max_train_samples`"]),
        ({"near_duplicate_threshold": 0}, ["`near_duplicate_threshold` is 0"]),
        ({"test_split_name": "test"}, ["`test_split_name`", "`test_file`"]),
        ({"min_input_words": 99}, ["`train`", "20 were read", "20 short", "`min_input_words`"]),
        ({"group_column": "answer", "test_file": "SAME"}, ["`train`", "20 leaks"]),
    ],
)
def test_arguments_that_cannot_be_name_the_key_and_the_value(tmp_path, arguments, says):
    path = write_jsonl(tmp_path / "a.jsonl", question_rows(20))
    arguments = {key: path if value == "SAME" else value for key, value in arguments.items()}
    with pytest.raises(UserError) as error:
        load(**{"train_file": path} | arguments)
    assert all(part in str(error.value) for part in says), str(error.value)


def test_one_group_leaves_no_rows_for_the_test(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [row | {"patient": "x"} for row in question_rows(20)])
    with pytest.raises(UserError, match="`validation` has no rows.*`group_column`"):
        load(train_file=path, group_column="patient")


# ----- Hub data sets, as a local folder: `load_dataset` takes both


def write_folder(path: Path, sizes: dict[str, int]) -> str:
    path.mkdir()
    for seed, (split, number) in enumerate(sizes.items()):
        write_jsonl(path / f"{split}.jsonl", question_rows(number, seed))
    return str(path)


def test_hub_splits_load_whole_or_streamed(tmp_path):
    folder = write_folder(tmp_path / "set", {"train": 50, "validation": 10, "test": 12})
    splits, report = load(dataset_name=folder, validation_split_name="validation", test_split_name="test")
    assert [len(data) for data in splits.values()] == [50, 10, 12]
    assert splits["test"]["id"][0] == "test-0"
    streamed, streamed_report = load(
        dataset_name=folder,
        validation_split_name="validation",
        test_split_name="test",
        streaming=True,
        max_train_samples=20,
        max_eval_samples=5,
    )
    assert [len(data) for data in streamed.values()] == [20, 5, 12]
    assert streamed["train"]["question"][:] == splits["train"]["question"][:20]
    assert streamed_report["test_sha256"] == report["test_sha256"]
    splits, _ = load(dataset_name=folder)
    assert [len(data) for data in splits.values()] == [40, 5, 5]


def test_streaming_a_file_stops_at_the_last_row_needed(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, question_rows(1500))
    with path.open("a") as stream:
        stream.write("\nnot json")
    _, report = load(train_file=str(path), streaming=True, max_train_samples=1200)
    assert report["data_rows_read"] == 1200
    with pytest.raises(UserError, match="row 1501"):
        load(train_file=str(path))


def test_class_labels_become_their_names_but_an_answer_index_stays_a_number(tmp_path):
    rows = [row | {"answer": i % 2, "right": i % 2, "options": ["a", "b"]} for i, row in enumerate(question_rows(30))]
    rows[0]["answer"] = -1
    features = datasets.Features(
        question=datasets.Value("string"),
        answer=datasets.ClassLabel(names=["benign", "malign"]),
        right=datasets.ClassLabel(names=["A", "B"]),
        options=datasets.List(datasets.Value("string")),
    )
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_list(rows, features).to_parquet(tmp_path / "set" / "train.parquet")
    columns = {"list_columns": ["options"], "index_column": "right"}
    for streaming in ({}, {"streaming": True, "max_train_samples": 100}):
        splits, report = load(dataset_name=str(tmp_path / "set"), columns=columns, **streaming)
        assert {(row["answer"], row["right"]) for row in all_rows(splits)} == {("benign", 0), ("malign", 1)}
        assert report["data_dropped_missing"] == 1


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"test_split_name": "nope"}, ["`test_split_name` is `nope`", "train", "validation"]),
        ({"train_split_name": "training"}, ["`train_split_name` is `training`", "train", "validation"]),
        ({"dataset_config_name": "english"}, ["`dataset_name`", "english", "default"]),
        ({"dataset_name": "EMPTY"}, ["`dataset_name`", "empty"]),
        ({"dataset_name": "nobody/no-such-set"}, ["`dataset_name` is `nobody/no-such-set`", "hf auth login"]),
        ({"test_file": "a.csv"}, ["`test_file`", "`test_split_name`"]),
        ({"group_column": "patient"}, ["`patient`", "`question`"]),
    ],
)
def test_a_hub_set_that_does_not_load_says_why(tmp_path, monkeypatch, arguments, says, streaming):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = write_folder(tmp_path / "set", {"train": 20, "validation": 5})
    (tmp_path / "empty").mkdir()
    arguments = {k: str(tmp_path / "empty") if v == "EMPTY" else v for k, v in arguments.items()}
    with pytest.raises(UserError) as error:
        load(**{"dataset_name": folder, "streaming": streaming, "max_train_samples": 9} | arguments)
    assert all(part in str(error.value) for part in says), str(error.value)


# ----- command line


def run_main(*flags: str) -> None:
    main(*parse_recipe((DataArguments, ColumnArguments), list(flags))[:2])


def test_command_line_writes_three_files_that_load_again_with_the_same_fingerprints(tmp_path, capsys):
    path = write_jsonl(tmp_path / "a.jsonl", question_rows(60))
    columns = ["--question_column", "question", "--answer_column", "answer"]
    run_main("--train_file", path, *columns, "--output_dir", str(tmp_path / "clean"))
    report = json.loads(capsys.readouterr().out)
    files = {f"{split}_file": str(tmp_path / "clean" / f"{split}.jsonl") for split in ("train", "validation", "test")}
    splits, again = load(**files)
    assert {key: report[key] for key in again if key.endswith("sha256")} == {
        key: value for key, value in again.items() if key.endswith("sha256")
    }
    assert again["data_dropped_leaks"] == 0 and len(all_rows(splits)) == 60
    assert set(json.loads(Path(files["test_file"]).read_text().splitlines()[0])) == {"id", "question", "answer"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--question_column", "question"], "`answer_index_column`"),
        (["--answer_column", "answer"], "`question_column`"),
        (["--question_column", "question", "--text_column", "answer"], "`text_column`"),
        (["--question_column", "question", "--answer_column", "answer", "--options_column", "x"], "go together"),
        (["--question_column", "question", "--answer_column", "answer", "--output_dir", "FILE/x"], "`output_dir`"),
        (["--question_column", "question", "--answer_column", "answer", "--output_dir", "HERE"], "already"),
    ],
)
def test_command_line_mistakes_change_no_file(tmp_path, flags, says):
    path = write_jsonl(tmp_path / "train.jsonl", question_rows(30))
    before = Path(path).read_text()
    flags = [flag.replace("FILE", path).replace("HERE", str(tmp_path)) for flag in flags]
    flags += [] if "--output_dir" in flags else ["--output_dir", str(tmp_path / "clean")]
    with pytest.raises(UserError, match=says):
        run_main("--train_file", path, *flags)
    assert Path(path).read_text() == before and [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]


def test_command_line_ends_with_code_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "utils.data", "--train_file", str(tmp_path / "no.csv"), "--output_dir", "x"]
    command += ["--text_column", "text", "--label_column", "label"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "no.csv" in done.stderr and not done.stdout


# ----- real data


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "medquad").exists(), reason="the shared data sets are absent")
def test_medquad_keeps_documents_together():
    splits, report = load(train_file=str(REAL_DATA / "medquad/medquad.jsonl"), group_column="document_id")
    documents = [set(data["document_id"][:]) for data in splits.values()]
    assert not documents[0] & documents[1] and not documents[0] & documents[2] and not documents[1] & documents[2]
    assert report["data_rows_read"] == 6076
    kept = sum(report[f"{split}_rows"] for split in splits)
    assert kept + sum(value for key, value in report.items() if "dropped" in key) == 6076
    assert report["test_rows"] / kept == pytest.approx(0.1, abs=0.01)


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "headqa").exists(), reason="the shared data sets are absent")
def test_headqa_keeps_every_right_option():
    columns = {"target_column": None, "list_columns": ["options"], "index_column": "answer_index"}
    path = REAL_DATA / "headqa/headqa.jsonl"
    splits, report = load(train_file=str(path), columns=columns, min_input_words=1, drop_ambiguous=False)
    source = {row["id"]: row for _, row in read_rows(path)}
    assert len(all_rows(splits)) == len(source) - report["data_dropped_duplicate"] - report["data_dropped_missing"]
    for row in all_rows(splits):
        assert row["options"] == [clean_text(option) for option in source[row["id"]]["options"]]
        assert row["answer_index"] == source[row["id"]]["answer_index"]
