"""Files of options and of dialogues, from the file to the splits: the same rows however they are written."""

import dataclasses
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_rows

from utils.arguments import DataArguments, UserError
from utils.data.columns import Columns
from utils.data.load import load_splits
from utils.data.questions import find_format, question_columns
from utils.data.rows import read_row
from utils.data.sources import column_names

WORDS = [f"word{number}" for number in range(3000)]
LETTERS = "ABCDE"


def exam(number=40):
    """Questions with two to five options, the right one among them anywhere."""
    rng = random.Random(3)
    rows = []
    for i in range(number):
        options = [" ".join(rng.sample(WORDS, 3)) for _ in range(2 + i % 4)]
        rows.append({"id": f"m{i}", "question": " ".join(rng.sample(WORDS, 12)), "options": options, "right": i % 2})
    return rows


def load(path, columns, **arguments):
    args = DataArguments(train_file=str(path), near_duplicate_threshold=1.0, **arguments)
    clusters = [name for name in (columns.input, columns.target) if name]
    return load_splits(args, columns, cluster_columns=clusters, seed=1)


def table(splits):
    """The rows of all splits by id, without what differs from file to file."""
    rows = [row for split in splits.values() for row in split]
    return {row["id"]: {k: v for k, v in row.items() if k not in ("id", "_cluster")} for row in rows}


# ----- Columns


def columns_for(path, dataset_format="auto", **given):
    names = ("question", "answer", "context", "options", "answer_index", "index_base")
    args = DataArguments(train_file=str(path), keep_columns=["ward"], lowercase=True)
    return question_columns(args, dataset_format, *(given.get(name) for name in names))


def test_columns_are_those_that_are_named_else_those_of_the_files_format(tmp_path):
    chat = write_rows(tmp_path / "chat.jsonl", [{"messages": [], "q": "x"}])
    both = write_rows(tmp_path / "both.jsonl", [{"messages": [], "question": "x", "answer": "y"}])
    alpaca = write_rows(tmp_path / "alpaca.csv", [{"instruction": "x", "output": "y"}])
    plain = Columns("question", "answer", kept=("ward",), lowercase=True)
    assert columns_for(chat) == dataclasses.replace(plain, dataset_format="messages")
    assert columns_for(chat, question="q") == dataclasses.replace(plain, input="q")
    assert columns_for(alpaca) == dataclasses.replace(plain, optional=("context",), dataset_format="alpaca")
    assert columns_for(both, "columns") == plain and columns_for(both, "messages").has_turns
    exam = columns_for(both, options=["o"], answer_index="i", index_base=1)
    assert (exam.target, exam.lists, exam.index, exam.index_base) == (None, ("o",), "i", 1)
    assert Columns.from_dict(json.loads(json.dumps(exam.to_dict()))) == exam
    for wrong in (
        {"dataset_format": "auto"}, {"dataset_format": "chat"}, {"dataset_format": "messages", "question": "q"},
        {"options": ["o"], "answer_index": "i", "index_base": 2}, {"dataset_format": "columns", "index_base": 1},
    ):  # fmt: skip
        with pytest.raises(UserError, match="`dataset_format`|`answer_index_base`"):
            columns_for(both, **wrong)


def test_the_format_of_a_data_set_in_a_folder_is_known(tmp_path):
    write_rows(tmp_path / "set" / "train.jsonl", [{"conversations": [{"from": "human", "value": "Why?"}]}] * 3)
    for streaming in (False, True):
        args = DataArguments(dataset_name=str(tmp_path / "set"), streaming=streaming, max_train_samples=2)
        assert column_names(args) == ["conversations"]


# ----- Options


LIST = Columns("question", lists=("options",), index="right")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    splits, report = load(write_rows(tmp_path_factory.mktemp("exam") / "exam.jsonl", exam()), LIST)
    counts = {key: value for key, value in report.items() if key.startswith(("data_rows_with", "data_answers"))}
    assert counts == {f"data_rows_with_{n}_options": 10 for n in (2, 3, 4, 5)} | {
        "data_answers_by_index": 40, "data_answers_at_first_place": 20,
    }  # fmt: skip
    return table(splits)


@pytest.mark.parametrize("write", [str, lambda i: LETTERS[i], lambda i: f"({LETTERS[i].lower()})", lambda i: f"{i}.0"])
@pytest.mark.parametrize("shape", [list, lambda o: dict(zip(LETTERS, o, strict=False)), json.dumps])
def test_options_and_answers_in_any_form_are_the_same_rows(shape, write, expected, tmp_path):
    rows = [row | {"options": shape(row["options"]), "right": write(row["right"])} for row in exam()]
    assert table(load(write_rows(tmp_path / "exam.jsonl", rows), LIST)[0]) == expected


def test_the_text_of_an_option_is_an_answer_also_where_cleaning_changes_it(expected, tmp_path):
    rows = [row | {"options": [f" {o}\u200b" for o in row["options"]]} for row in exam()]
    rows = [row | {"right": row["options"][row["right"]]} for row in rows]
    splits, report = load(write_rows(tmp_path / "exam.jsonl", rows), LIST)
    assert table(splits) == expected and report["data_answers_by_text"] == 40


@pytest.mark.parametrize("name", ["exam.csv", "exam.parquet"])
@pytest.mark.parametrize("base", [0, 1])
def test_blank_columns_leave_a_question_the_options_that_it_has(name, base, expected, tmp_path):
    rows = []
    for i, row in enumerate(exam()):
        cells: list[str | None] = list(row["options"])
        place = row["right"]
        if len(cells) < 5 and i % 3 == 0:  # a blank one before the right one
            cells.insert(place, None)
            place += 1
        cells += [None] * (5 - len(cells))
        rows.append(
            {"id": row["id"], "question": row["question"]}
            | dict(zip(LETTERS, cells, strict=True))
            | {"right": place + base}
        )
    path = tmp_path / name
    pq.write_table(pa.Table.from_pylist(rows), path) if path.suffix == ".parquet" else write_rows(path, rows)
    splits, report = load(path, Columns("question", lists=tuple(LETTERS), index="right", index_base=base))
    assert table(splits) == expected
    assert report["data_rows_with_blank_options"] == 30 and report["data_dropped_missing"] == 0


def test_the_letter_of_a_column_is_that_of_its_name_wherever_the_recipe_names_it(expected, tmp_path):
    rows = [
        {"id": row["id"], "question": row["question"], "right": LETTERS[row["right"]]}
        | dict(zip(LETTERS, [*row["options"], *[""] * 5], strict=False))
        for row in exam()
    ]
    for letters in (LETTERS, LETTERS[::-1], "CADBE"):
        columns = Columns("question", lists=tuple(letters), index="right")
        found = table(load(write_rows(tmp_path / "exam.csv", rows), columns)[0])
        for name, row in found.items():
            assert row["options"][row["right"]] == expected[name]["options"][expected[name]["right"]]


def test_options_that_repeat_their_letters_are_the_same_rows_and_counted(expected, tmp_path):
    rows = [
        row | {"options": [f"{letter}. {o}" for letter, o in zip(LETTERS, row["options"], strict=False)]}
        for row in exam()
    ]
    splits, report = load(write_rows(tmp_path / "exam.jsonl", rows), LIST)
    assert table(splits) == expected and report["data_rows_with_lettered_options"] == 40
    rows = [row | {"right": row["options"][row["right"]]} for row in rows]
    assert table(load(write_rows(tmp_path / "exam.jsonl", rows), LIST)[0]) == expected


def test_what_names_a_blank_option_is_refused_and_too_few_options_are_counted(tmp_path):
    cells = [dict(zip("ABC", row, strict=True)) for row in (["x y", "", "z"], ["x y", "", ""], ["", "", ""])]
    rows = [{"question": f"What is {i} of them?", **row, "right": 0} for i, row in enumerate(cells * 20)]
    columns = Columns("question", lists=("A", "B", "C"), index="right")
    _, report = load(write_rows(tmp_path / "exam.csv", rows), columns)
    assert report["data_dropped_missing"] == 40 and report["data_rows_with_2_options"] == 20
    rows[3]["right"] = 1
    with pytest.raises(UserError, match="row 5: `right` .*blank"):
        load(write_rows(tmp_path / "exam.csv", rows), columns)


def test_a_file_that_counts_from_one_is_warned_about_or_read(expected, tmp_path, caplog):
    path = write_rows(
        tmp_path / "exam.jsonl", [row | {"right": row["right"] + 1} for row in exam() if row["right"] == 0]
    )
    load(path, LIST)
    assert "`answer_index_base: 1`" in caplog.text and "`right`" in caplog.text
    caplog.clear()
    path = write_rows(tmp_path / "exam.jsonl", [row | {"right": row["right"] + 1} for row in exam()])
    splits, _ = load(path, Columns("question", lists=("options",), index="right", index_base=1))
    assert table(splits) == expected and "answer_index_base" not in caplog.text and "`right`" not in caplog.text


# ----- Dialogues


def dialogues(number=40):
    rng = random.Random(4)
    return [[" ".join(rng.sample(WORDS, 10)) for _ in range(2 + 2 * (i % 3))] for i in range(number)]


def as_messages(texts, system=None):
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + turns


def columns_of(dataset_format):
    optional = ("context",) if dataset_format == "alpaca" else ()
    return Columns("question", "answer", optional=optional, dataset_format=dataset_format)


def test_a_dialogue_is_one_row_with_its_earlier_turns(tmp_path):
    rows = [{"id": f"d{i}", "messages": as_messages(texts, "Be  brief.")} for i, texts in enumerate(dialogues())]
    splits, report = load(write_rows(tmp_path / "chat.jsonl", rows), columns_of("messages"))
    found = table(splits)
    for i, texts in enumerate(dialogues()):
        assert found[f"d{i}"] == {
            "system": "Be brief.", "history": texts[:-2], "question": texts[-2], "answer": texts[-1],
        }  # fmt: skip
    assert report["data_rows_with_system_turn"] == 40 and report["data_rows_with_several_turns"] == 26


def test_every_shape_gives_the_same_rows(tmp_path):
    texts = dialogues()
    pairs = [[turns[i : i + 2] for i in range(0, len(turns) - 2, 2)] for turns in texts]
    files = {
        "messages": [{"messages": as_messages(turns)} for turns in texts],
        "sharegpt": [
            {"conversations": [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]}
            for turns in texts
        ],
        "alpaca": [
            {"instruction": turns[-2], "input": "", "output": turns[-1], "history": own}
            for turns, own in zip(texts, pairs, strict=True)
        ],
        "prompt_completion": [{"prompt": as_messages(turns[:-1]), "completion": turns[-1]} for turns in texts],
        "preference": [{"prompt": as_messages(turns[:-1]), "chosen": turns[-1], "rejected": "x"} for turns in texts],
    }
    found = []
    for shape, rows in files.items():
        rows = [{"id": f"d{i}", **row} for i, row in enumerate(rows)]
        path = write_rows(tmp_path / f"{shape}.jsonl", rows)
        assert find_format(column_names(DataArguments(train_file=str(path))), path.name) == shape
        splits, _ = load(path, columns_of(shape))
        found.append({key: {k: v for k, v in row.items() if k != "context"} for key, row in table(splits).items()})
    assert all(rows == found[0] for rows in found) and len(found[0]) == 40


def test_turns_that_do_not_alternate_and_lost_answers_are_counted(tmp_path, caplog):
    texts = dialogues()
    rows = [{"messages": as_messages(turns)} for turns in texts]
    for i in range(5):
        rows[i]["messages"].insert(0, {"role": "assistant", "content": "Hello there."})
        rows[i + 5]["messages"].pop()
    rows[10]["messages"][0]["content"] = "  "
    _, report = load(write_rows(tmp_path / "chat.jsonl", rows), columns_of("messages"))
    assert report["data_dropped_turns"] == 5 and report["data_dropped_missing"] == 6
    assert "5 rows" in caplog.text and report["data_rows_read"] == 40
    rows = [{"messages": as_messages(turns)[1:]} for turns in texts]
    with pytest.raises(UserError, match="40 turns"):
        load(write_rows(tmp_path / "chat.jsonl", rows), columns_of("messages"))


def test_a_dialogue_leaks_as_a_whole_and_as_the_start_of_a_longer_one(tmp_path):
    texts = [turns + dialogues()[i][:2] for i, turns in enumerate(dialogues(20))]
    starts = [turns[:-2] for turns in texts[:5]]
    ends = [["A new start.", "Of a talk.", *turns[-2:]] for turns in texts[5:10]]
    test = write_rows(tmp_path / "test.jsonl", [{"messages": as_messages(turns)} for turns in starts + ends])
    train = write_rows(tmp_path / "train.jsonl", [{"messages": as_messages(turns)} for turns in texts])
    splits, report = load(train, columns_of("messages"), test_file=str(test))
    assert report["data_dropped_leaks"] == 5  # the last question alone is another question
    assert len(splits["test"]) == 10
    whole = [" ".join(["Well.", *turns[1:]]) for turns in texts]
    assert len(set(whole)) == 20


def test_paragraphs_and_squads_answers_are_texts_and_counted(tmp_path):
    rows = [
        {
            "question": f"Is number {i} of them bad?",
            "context": {"contexts": [f"Study {i} was small.", "It says no."], "labels": ["A", "B"]},
            "answers": {"text": ["rather not", "not"][: 1 + i % 2], "answer_start": [0, 5][: 1 + i % 2]},
        }
        for i in range(20)
    ]
    rows += [
        {"question": f"Is {i} fine?", "context": "Yes.", "answers": {"text": [], "answer_start": []}} for i in range(3)
    ]
    columns = Columns("question", "answers", optional=("context",))
    splits, report = load(write_rows(tmp_path / "qa.jsonl", rows), columns)
    assert all(row["answers"] == "rather not" and row["context"].count("\n") == 1 for row in table(splits).values())
    assert report["data_rows_with_joined_paragraphs"] == 20 and report["data_rows_with_several_answers"] == 10
    assert report["data_dropped_missing"] == 3
    assert read_row(rows[2], columns, "row 3")["context"] == "Study 2 was small.\nIt says no."
