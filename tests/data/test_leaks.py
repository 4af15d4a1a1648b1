"""What gives the target away in the input is found, and what only goes with it is not."""

import random

import numpy as np
import pytest
from conftest import flags, run_here, toy_notes, toy_rows, write_rows
from datasets import Dataset

import run_classification
from utils.data.columns import Columns
from utils.data.leaks import best_words, describe_leaks
from utils.metrics.baselines import one_word_predictions

WARDS = ["cardiology", "hand surgery", "ear, nose and throat"]
LABELLED = Columns("note", target="ward", label="ward")


def notes(write, rows: int = 120) -> Dataset:
    rng = random.Random(3)
    words = [f"word{i}" for i in range(400)]
    made = []
    for number in range(rows):
        ward = WARDS[number % 3]
        made.append({"note": write(" ".join(rng.sample(words, 30)), ward), "ward": ward})
    return Dataset.from_list(made)


@pytest.mark.parametrize(
    ("write", "place"),
    [
        (lambda text, ward: f"{text} Keywords: {ward.upper()}.", "last tenth"),
        (lambda text, ward: f"{ward.title()}: {text}", "first tenth"),
        (lambda text, ward: f"{text[:90]} {ward} {text[90:]}", "training rows"),
    ],
)
def test_a_class_that_is_named_in_its_texts_is_found_with_its_place(write, place):
    found = describe_leaks(notes(write), LABELLED)
    assert found["data_input_has_target"] == 1.0
    assert (
        "`ward`" in found["data_leaks"][0] and "`note`" in found["data_leaks"][0] and place in found["data_leaks"][0]
    )


def test_a_code_word_that_stands_for_a_class_is_found():
    codes = dict(zip(WARDS, ["zz81", "zz82", "zz83"], strict=True))
    (leak,) = describe_leaks(notes(lambda text, ward: f"{text} {codes[ward]} seen"), LABELLED)["data_leaks"]
    assert "3 of the 3 classes" in leak and "zz81" in leak and "last tenth" in leak


def test_a_name_in_every_text_says_nothing():
    every = " ".join(WARDS)
    assert "data_leaks" not in describe_leaks(notes(lambda text, ward: f"{text} {every}"), LABELLED)


def test_a_word_that_tells_one_of_many_classes_is_none():
    rows = Dataset.from_list(
        [{"note": f"{'zz81 ' * (n % 10 == 0)}word{n % 7} word{n % 11}", "ward": f"ward {n % 10}"} for n in range(300)]
    )
    assert "data_leaks" not in describe_leaks(rows, LABELLED)


def test_a_column_that_the_recipe_keeps_is_looked_at_and_named():
    rows = notes(lambda text, ward: text)
    rows = rows.add_column("place", [f"in {ward}" for ward in rows["ward"]])
    found = describe_leaks(rows, Columns("note", target="ward", label="ward", kept=("place",)))
    assert found["data_input_has_target"] == 0.0 and "`place`" in found["data_leaks"][0]


def test_an_answer_in_its_question_is_a_leak_and_in_its_context_none():
    rows = Dataset.from_list([row | {"context": f"Known: {row['answer']} Indeed."} for row in toy_rows()])
    found = describe_leaks(rows, Columns("question", target="answer", optional=("context",)))
    assert found == {"data_input_has_target": 0.0, "data_context_has_target": 1.0}
    (leak,) = describe_leaks(rows, Columns("context", target="answer"))["data_leaks"]
    assert "`answer` stands in `context` in 100%" in leak


def test_the_right_option_in_the_question_is_a_leak():
    options = [[f"choice {n} a", f"choice {n} b"] for n in range(40)]
    rows = [{"q": f"Is it choice {n} {'ab'[n % 2]}?", "o": own, "i": n % 2} for n, own in enumerate(options)]
    columns = Columns("q", lists=("o",), index="i")
    assert "data_leaks" in describe_leaks(Dataset.from_list(rows), columns)


def test_notes_that_share_the_words_of_their_ward_are_no_leak():
    rows = Dataset.from_list(toy_notes())
    assert "data_leaks" not in describe_leaks(rows, Columns("note", target="ward", label="ward"))


def test_what_is_stripped_gives_nothing_away(tiny_bert, tmp_path):
    rows = [row | {"note": f"{row['note']} Keywords: {row['ward']}."} for row in toy_notes()]
    values = {
        "model_name_or_path": tiny_bert, "train_file": write_rows(tmp_path / "notes.jsonl", rows), "use_cpu": True,
        "text_column": "note", "label_column": "ward", "max_steps": 1, "report_to": "none", "save_strategy": "no",
        "bf16": False, "dtype": "float32",
    }  # fmt: skip
    for name, more in (("leaky", {}), ("stripped", {"strip_pattern": "Keywords:.*"})):
        argv = flags(output_dir=tmp_path / name, **values, **more)
        done = run_here(run_classification.main, run_classification.ARGUMENTS, argv)
        assert done.code == 0, done.stderr
        is_leaky = name == "leaky"
        for file in ("report.md", "README.md"):
            assert ("strip_pattern" in (done.folder / file).read_text().split("## ")[0]) == is_leaky, file
        assert ("data_leaks" in done.results) == is_leaky
        assert done.results["data_input_has_target"] == float(is_leaky)
        assert (done.results["baseline_one_word_test_accuracy"] == 1.0) == is_leaky
    assert done.results["data_rows_stripped"] == len(rows) - done.results["data_dropped_duplicate"]


def test_one_word_per_class_finds_what_one_word_tells():
    texts, labels = ["heart beat", "heart rate", "hand pain", "hand wound", "cough"], np.array([0, 0, 1, 1, 1])
    assert [word.text for word in best_words(texts, labels, 2)] == ["heart", "hand"]
    assert best_words(texts, labels, 3)[2] is None and best_words(["", "1"], np.array([0, 1]), 2) == [None, None]
    new = ["A HEART", "the hand", "heart in hand", "nothing"]
    assert one_word_predictions(texts, labels, new, 2).tolist() == [0, 1, 0, 1]
