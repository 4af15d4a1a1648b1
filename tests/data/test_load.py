"""From files and Hub data sets to splits: nothing crosses, every row is counted, each mistake says what it is."""

import gzip
import json
import os
import random
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from conftest import ROOT

from tests.hub_server import serve_hub
from utils.arguments import DataArguments, UserError, parse_recipe
from utils.data.__main__ import ColumnArguments, main
from utils.data.cleaning import clean_text
from utils.data.columns import Columns
from utils.data.files import read_rows
from utils.data.load import load_splits
from utils.data.splits import fingerprint

REAL_DATA = Path(__file__).parents[3] / "shared/data"
WORDS = [f"word{number}" for number in range(3000)]


def question_rows(number: int, seed: int = 0) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    text = [" ".join(generator.choices(WORDS, k=12)) for _ in range(2 * number)]
    return [{"question": text[2 * i], "answer": text[2 * i + 1]} for i in range(number)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def load(seed: int = 1, columns: dict[str, Any] | None = None, **arguments: Any):
    """`load_splits` of question and answer, clustered by the question; `columns` replaces parts of these."""
    parts = {"input": "question", "target": "answer", "clustered": ["question"]} | (columns or {})
    clustered, args = parts.pop("clustered"), DataArguments(**arguments)
    kept = tuple(args.keep_columns or ())
    return load_splits(args, Columns(**parts, kept=kept), cluster_columns=clustered, seed=seed)


def all_rows(splits: datasets.DatasetDict) -> list[dict[str, Any]]:
    return [row for split in splits.values() for row in split]


# ----- report


def test_the_report_counts_every_row_and_fingerprints_every_split(tmp_path):
    rows = question_rows(40)
    rows += [
        {"question": "Gout?", "answer": None},
        {"question": " ", "answer": "yes"},
        {"question": None, "answer": ""},
        {"question": "Is gout bad?", "answer": "None"},
        {"question": "is  gout bad?", "answer": "none"},
        {"question": "Is gout  bad?", "answer": "yes"},
    ]
    splits, report = load(train_file=write_jsonl(tmp_path / "a.jsonl", rows))
    assert {row["answer"] for row in all_rows(splits) if row["question"] == "Is gout bad?"} == {"None", "yes"}
    assert report["data_rows_read"] == 46
    dropped = {key.removeprefix("data_dropped_"): n for key, n in report.items() if key.startswith("data_dropped_")}
    assert dropped == {"missing": 3, "short": 0, "ambiguous": 0, "duplicate": 1, "unlabelled": 0, "leaks": 0}
    assert report["data_rows_without_input"] == report["data_rows_without_target"] == 2
    assert report["data_changed_symbols"] == 0 and report["data_changed_whitespace"] == 2
    assert report["data_conflicting_inputs"] == 1 and report["data_conflicting_rows"] == 2
    assert report["data_clusters"] == 41 and report["data_near_duplicate_rows"] == 2
    assert sum(report[f"{split}_rows"] for split in splits) == len(all_rows(splits)) == 42
    for split, data in splits.items():
        assert report[f"{split}_sha256"] == fingerprint(data.remove_columns(["id", "_cluster"]))
        assert data.column_names == ["id", "question", "answer", "_cluster"]


# ----- columns


def test_only_named_columns_stay_and_ids_are_kept_or_made(tmp_path):
    rows = [row | {"id": i, "patient": i % 9, "note": None, "x": 1} for i, row in enumerate(question_rows(30))]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    splits, _ = load(train_file=path, group_column="patient", keep_columns=["note"])
    assert splits["train"].column_names == ["id", "question", "answer", "patient", "note", "_cluster"]
    assert sorted(int(row["id"]) for row in all_rows(splits)) == list(range(30))
    for row in all_rows(splits):
        assert row["patient"] == str(int(row["id"]) % 9) and row["note"] == ""
    splits, _ = load(train_file=write_jsonl(tmp_path / "b.jsonl", question_rows(30)))
    assert sorted(row["id"] for row in all_rows(splits)) == sorted(f"train-{line}" for line in range(1, 31))


def test_a_name_that_differs_in_what_cannot_be_seen_is_shown(tmp_path):
    rows = [{"question\u200b": row["question"], "ans\u0301wer": row["answer"]} for row in question_rows(20)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"`question\\u200b`.*did you mean `question\\u200b`"):
        load(train_file=path)
    (tmp_path / "a.csv").write_text('"question,answer"\n"some words,x"\n')
    with pytest.raises(UserError, match="around whole lines"):
        load(train_file=str(tmp_path / "a.csv"))


def test_a_dropped_duplicate_of_another_group_is_counted(tmp_path):
    rows = [row | {"patient": f"p{i}"} for i, row in enumerate(question_rows(40))]
    rows += [rows[0], rows[1] | {"patient": "p0"}, rows[2] | {"patient": "p2"}]
    _, report = load(train_file=write_jsonl(tmp_path / "a.jsonl", rows), group_column="patient")
    assert report["data_dropped_duplicate"] == 3 and report["data_rows_repeated_in_other_groups"] == 1


@pytest.mark.parametrize(("patients", "warns"), [(12, True), (100, False)])
def test_too_few_clusters_for_an_interval_are_noticed_before_the_training(patients, warns, tmp_path, caplog):
    rows = [row | {"patient": f"p{i % patients}"} for i, row in enumerate(question_rows(300))]
    with caplog.at_level("INFO"):
        splits, _ = load(train_file=write_jsonl(tmp_path / "a.jsonl", rows), group_column="patient", test_fraction=0.4)
    clusters = len(set(splits["test"]["_cluster"]))
    assert f"test {len(splits['test'])} rows of {clusters} clusters" in caplog.text
    assert ("intervals and p-values need 10" in caplog.text) == (clusters < 10) == warns


def test_a_column_may_have_any_name_but_id(tmp_path):
    rows = [
        {"cluster": row["question"], "label": row["answer"], "text": i % 9} for i, row in enumerate(question_rows(30))
    ]
    columns = {"input": "cluster", "target": "label", "clustered": ["cluster"]}
    splits, _ = load(train_file=write_jsonl(tmp_path / "a.jsonl", rows), columns=columns, group_column="text")
    assert sorted(row["cluster"] for row in all_rows(splits)) == sorted(row["cluster"] for row in rows)
    columns = {"input": "label", "target": "cluster", "clustered": ["label"]}
    rows = [row | {"cluster": "ab"[i % 2]} for i, row in enumerate(rows)]
    columns |= {"label": "cluster"}
    splits, _ = load(train_file=write_jsonl(tmp_path / "b.jsonl", rows), columns=columns, group_column="text")
    assert splits["train"].features["cluster"].names == ["a", "b"]


def test_options_come_from_one_list_or_from_several_columns(tmp_path):
    rows = [row | {"options": ["red one", " blue "], "right": i % 2} for i, row in enumerate(question_rows(30))]
    columns = {"target": None, "lists": ("options",), "index": "right"}
    splits, _ = load(train_file=write_jsonl(tmp_path / "a.jsonl", rows), columns=columns)
    assert splits["train"].column_names == ["id", "question", "options", "right", "_cluster"]
    assert splits["train"][0]["options"] == ["red one", "blue"]
    assert {row["right"] for row in all_rows(splits)} == {0, 1}

    flat = [{"question": r["question"], "opa": "red one", "opb": "blue", "right": r["right"]} for r in rows] + [
        {"question": "The one held back", "opa": "red", "opb": "blue", "right": -1}
    ]
    columns |= {"lists": ("opa", "opb"), "clustered": ["question", "options"]}
    splits, report = load(train_file=write_jsonl(tmp_path / "b.jsonl", flat), columns=columns)
    assert splits["train"].column_names == ["id", "question", "options", "right", "_cluster"]
    assert splits["train"][0]["options"] == ["red one", "blue"]
    assert report["data_dropped_unlabelled"] == 1 and report["data_rows_read"] == 31


@pytest.mark.parametrize(
    ("columns", "arguments", "says"),
    [
        ({"input": "qestion"}, {}, ["`qestion`", "`question`, `answer`", "did you mean `question`"]),
        ({"target": "zzz"}, {}, ["`zzz`", "`question`, `answer`"]),
        ({"clustered": ["zzz"]}, {}, ["`zzz`"]),
        ({}, {"group_column": "patient"}, ["`patient`"]),
        ({}, {"keep_columns": ["anser"]}, ["`anser`", "did you mean `answer`"]),
        ({"target": "question"}, {}, ["`question`", "two roles"]),
        ({"target": "id"}, {}, ["`id`"]),
        ({}, {"group_column": "_cluster"}, ["`_cluster`"]),
        ({"input": "options", "lists": ("a", "b")}, {}, ["`options`", "two roles"]),
    ],
)
def test_a_column_that_cannot_be_used_is_named_with_the_nearest(tmp_path, columns, arguments, says):
    path = write_jsonl(tmp_path / "a.jsonl", question_rows(20))
    with pytest.raises(UserError) as error:
        load(train_file=path, columns=columns, **arguments)
    assert all(part in str(error.value) for part in says), str(error.value)


@pytest.mark.parametrize(
    ("rows", "column", "says"),
    [
        ([{"messages": [{"role": "user", "content": "Why?"}]}], "answer", "`messages` has dialogues"),
        ([{"re\u0301ponse": "x", "note": "y"}], "r\u00e9ponse", "did you mean `re"),
        ([{"Answer\u00a0": "x", "note": "y"}], "answer", "did you mean `Answer"),
        ([{"note": "y"}], "answer", "choose one of these"),
    ],
)
def test_what_may_be_meant_by_a_name_that_no_column_has_is_said(tmp_path, rows, column, says):
    with pytest.raises(UserError, match=f"`{column}` is not in .*{says}"):
        load(
            train_file=write_jsonl(tmp_path / "a.jsonl", rows),
            columns={"input": column, "target": None, "clustered": [column]},
        )


def test_a_separator_that_cannot_be_guessed_is_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question:answer\nWhy so:No idea\n")
    with pytest.raises(UserError, match="`question` is not in .*`sep=:`"):
        load(train_file=str(path))


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
    columns = {"target": "label", "label": "label"}
    arguments = {"train_file": path, "validation_fraction": 0.2, "test_fraction": 0.3, "columns": columns}
    splits, report = load(**arguments)
    assert [report[f"{split}_rows"] for split in splits] == [100, 40, 60]
    assert splits["train"].features["label"].names == ["a", "b"]
    assert [data["label"][:].count(1) for data in splits.values()] == [10, 4, 6]
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
        "import sys; from utils.arguments import DataArguments\n"
        "from utils.data.load import load_splits; from utils.data.columns import Columns\n"
        "columns = Columns(input='question', target='answer')\n"
        "args = DataArguments(train_file=sys.argv[1])\n"
        "splits, _ = load_splits(args, columns, cluster_columns=['question'], seed=1)\n"
        "splits.map(lambda row: row); print(splits['train'].cache_files[0]['filename'])"
    )
    environment = {"HF_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script, path]
    root = Path(__file__).parents[2]
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
        ({"test_fraction": 0.6, "validation_fraction": 0.4}, ["`validation_fraction` + `test_fraction`", "0.4 + 0.6"]),
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


def test_a_test_that_is_the_training_file_leaves_no_rows_and_says_so(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", question_rows(20))
    with pytest.raises(UserError, match="`train` has no rows.*20 leaks.* later split"):
        load(train_file=path, test_file=path)


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


def test_rows_of_a_hub_set_without_an_answer_are_dropped_as_missing(tmp_path):
    folder = Path(write_folder(tmp_path / "set", {"train": 30}))
    rows = [*question_rows(30), *({"question": row["question"], "answer": None} for row in question_rows(12, 1))]
    write_jsonl(folder / "train.jsonl", rows)  # MedQuAD on the Hub has thousands of rows without an answer
    for streaming in ({}, {"streaming": True, "max_train_samples": 100}):
        splits, report = load(dataset_name=str(folder), **streaming)
        assert report["data_rows_read"] == 42 and report["data_dropped_missing"] == 12
        assert len(all_rows(splits)) == 30 and all(row["answer"] for row in all_rows(splits))


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
    columns = {"lists": ("options",), "index": "right"}
    for streaming in ({}, {"streaming": True, "max_train_samples": 100}):
        splits, report = load(dataset_name=str(tmp_path / "set"), columns=columns, **streaming)
        assert {(row["answer"], row["right"]) for row in all_rows(splits)} == {("benign", 0), ("malign", 1)}
        assert report["data_dropped_missing"] == 1


ODD = ["NA", "None", "null", "nan", "007", "1.0", "true", "2024-01-05", "250.00", "1e5", "", " x "]


def odd_csv(number: int, separator: str = ",") -> str:
    """A csv whose answers pandas would change."""
    rows = [(row["question"], ODD[i % len(ODD)]) for i, row in enumerate(question_rows(number))]
    return "".join(f"{separator.join(row)}\n" for row in [("question", "answer"), *rows])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_set_of_csv_files_has_the_rows_that_the_file_has(tmp_path, separator, streaming):
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "train.csv"
    file.write_text(odd_csv(60, separator), encoding="utf-16" if separator == ";" else "utf-8")
    options = {"streaming": streaming, "max_train_samples": 1000, "min_target_words": 0}
    _, report = load(dataset_name=str(tmp_path / "set"), **options)
    assert report == load(train_file=str(file), **options)[1]
    assert report["data_rows_read"] == 60 and report["data_dropped_missing"] == 5


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_a_set_in_a_folder_has_the_rows_that_its_file_has(tmp_path, ending, streaming):
    odd = ["2020-01-03", "2020-01-03T08:00:00Z", "007", "1.0", "NA", "None", "true", "\u2028"]
    rows = [
        row | {"ward": odd[i % len(odd)], "day": f"2020-01-{i % 7 + 1:02d}"} for i, row in enumerate(question_rows(40))
    ]
    path = tmp_path / "set" / f"train{ending}"
    path.parent.mkdir()
    if ending == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    elif ending == ".csv":
        datasets.Dataset.from_list(rows).to_csv(path)
    else:
        data = "\n".join(map(json.dumps, rows)).encode()
        path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    columns = {"group_column": "day", "keep_columns": ["ward"]}
    most = {"streaming": True, "max_train_samples": 40} if streaming else {}
    found, _ = load(dataset_name=str(path.parent), **columns, **most)
    wanted, _ = load(train_file=str(path), **columns)
    kept = ("question", "answer", "ward", "day")
    same = [sorted(tuple(row[name] for name in kept) for row in all_rows(each)) for each in (found, wanted)]
    assert same[0] == same[1] and {row["ward"] for row in all_rows(found)} == set(odd)


def test_a_set_of_several_csv_files_has_its_slices_and_names_the_one_without_a_column(tmp_path):
    (tmp_path / "set").mkdir()
    lines = odd_csv(50).splitlines(keepends=True)
    for number in range(2):
        part = tmp_path / "set" / f"train-{number}.csv"
        part.write_text("".join([lines[0], *lines[1 + 25 * number : 26 + 25 * number]]))
    folder = {"dataset_name": str(tmp_path / "set")}
    splits, report = load(**folder, train_split_name="train[:60%]", test_split_name="train[60%:]")
    assert report["data_rows_read"] == 50 and len({row["id"] for row in all_rows(splits)}) == len(all_rows(splits))
    assert {int(name.split("-")[1]) for name in splits["test"]["id"]} <= set(range(20))
    part.write_text("question,reply\nsome words here,x\n")
    with pytest.raises(UserError, match="`answer`.*`reply`"):
        load(**folder)


def test_classes_of_a_csv_set_are_numbers_or_names_in_it(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - {name: question, dtype: string}\n  - name: answer\n    dtype:\n"
        "      class_label:\n        names: {'0': benign, '1': malign}\n---\n"
    )
    rows = [(row["question"], ["0", "1", "malign", "-1", ""][i % 5]) for i, row in enumerate(question_rows(50))]
    text = "".join(",".join(row) + "\n" for row in [("question", "answer"), *rows])
    (tmp_path / "set" / "train.csv").write_text(text)
    splits, report = load(dataset_name=str(tmp_path / "set"), columns={"label": "answer"})
    assert splits["train"].features["answer"].names == ["benign", "malign"]
    assert report["data_dropped_missing"] == 20 and sum(row["answer"] for row in all_rows(splits)) == 20


def test_a_csv_set_of_the_hub_is_read_from_its_files_with_and_without_a_connection(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text(odd_csv(60))
    script = (
        "import json; from utils.arguments import DataArguments\n"
        "from utils.data.load import load_splits; from utils.data.columns import Columns\n"
        "args, columns = DataArguments(dataset_name='lab/notes'), Columns('question', 'answer')\n"
        "print(json.dumps(load_splits(args, columns, cluster_columns=['question'], seed=1)[1]))"
    )
    with serve_hub() as hub:
        hub.add_repo("lab/notes", tmp_path / "set")
        for offline in ("0", "1"):
            environment = os.environ | hub.env(tmp_path / "home") | {"HF_HUB_OFFLINE": offline}
            command = [sys.executable, "-c", script]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            assert json.loads(done.stdout) == load(train_file=str(tmp_path / "set" / "train.csv"))[1]


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


def test_the_command_splits_questions_as_training_does_which_compares_answers_too(tmp_path, capsys):
    generator = random.Random(0)
    answers = [" ".join(generator.choices(WORDS, k=60)) for _ in range(30)]
    rows = [{"question": f"{WORDS[i]} {WORDS[-i]} {i}", "answer": answers[i % 30]} for i in range(60)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    flags = ["--question_column", "question", "--answer_column", "answer", "--seed", "1"]
    run_main("--train_file", path, *flags, "--output_dir", str(tmp_path / "clean"))
    _, report = load(train_file=path, columns={"clustered": ["question", "answer"]})
    assert json.loads(capsys.readouterr().out) == report and report["data_clusters"] == 30
    assert load(train_file=path)[1]["data_clusters"] == 60  # by the question alone


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


def test_command_line_ends_with_code_2_and_one_line(tmp_path, monkeypatch, capsys):
    flags = ["--train_file", str(tmp_path / "no.csv"), "--output_dir", "x", "--text_column", "text"]
    monkeypatch.setattr(sys, "argv", ["utils.data", *flags, "--label_column", "label"])
    monkeypatch.delitem(sys.modules, "utils.data.__main__", raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module("utils.data", run_name="__main__")
    stdout, stderr = capsys.readouterr()
    assert end.value.code == 2 and stderr.startswith("error: ") and stderr.count("\n") == 1
    assert "no.csv" in stderr and not stdout


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
    columns = {"target": None, "lists": ("options",), "index": "answer_index"}
    path = REAL_DATA / "headqa/headqa.jsonl"
    splits, report = load(train_file=str(path), columns=columns, min_input_words=1, drop_ambiguous=False)
    source = {row["id"]: row for _, row in read_rows(path)}
    assert len(all_rows(splits)) == len(source) - report["data_dropped_duplicate"] - report["data_dropped_missing"]
    for row in all_rows(splits):
        assert row["options"] == [clean_text(option) for option in source[row["id"]]["options"]]
        assert row["answer_index"] == source[row["id"]]["answer_index"]
