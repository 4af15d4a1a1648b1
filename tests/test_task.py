"""What `task.json` says about reading a row: of this version, of earlier ones and of later ones."""

import json

import pytest
from conftest import word_tokenizer

from utils.arguments import UserError
from utils.data.columns import Columns
from utils.json_files import TASK_VERSION
from utils.serving.answering import Question, answer_as_read
from utils.task import load_task, read_input, template_names, upgrade_task

ROLES = {"question": "q", "context": "c", "options": "options", "answer": None, "answer_index": "i"}
EXAM = Columns("q", optional=("c",), lists=("A", "B", "D"), index="i", kept=("ward", "unused"), lowercase=True)
TASK = {"task": "qa", "columns": ROLES, "raw_columns": EXAM.to_dict(), "prompt_template": "{ward!s}: {question}{{x}}"}


def test_a_row_and_a_text_become_the_models_row():
    row = {"q": "Is  Mg\u200b low?", "A": "Yes", "D": " No ", "i": 1, "ward": "ICU", "x": object()}
    found = {"q": "is mg low?", "c": "", "options": ["yes", "no"], "ward": "ICU", "unused": "", "_places": [0, 2]}
    assert read_input(row, TASK, "row 1") == found
    plain = TASK | {"prompt_template": "{question}"}
    assert read_input("Is it LOW?", plain, "row 1") == {
        "q": "is it low?",
        "c": "",
        "options": [],
        "ward": "",
        "unused": "",
        "_places": [],
    }


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a text", ["row 7 is a text alone", "`ward`"]),
        ({"q": "a b"}, ["row 7 has only q", "`ward`"]),
        ({"Q": "a b", "ward": ""}, ["row 7: `q` is no column", "Q, ward"]),
        ({"q": " \u200b ", "ward": ""}, ["row 7: `q` is empty"]),
        ({"q": "a b", "ward": "", "A": "yes", "B": None}, ["row 7: `options` has one option"]),
        ({"q": "a b", "ward": "", "options": 5}, ["row 7: `options`"]),
        ({"q": "a b", "ward": "", "c": {"secret": 1}}, ["row 7: `c` is a dict"]),
    ],
)
def test_a_row_that_cannot_be_read_is_named_without_its_values(row, words):
    with pytest.raises(UserError) as error:
        read_input(row, TASK, "row 7")
    assert all(word in str(error.value) for word in words) and "secret" not in str(error.value)


def test_the_recipe_of_an_earlier_run_says_how_its_rows_were_read():
    earlier = {key: value for key, value in TASK.items() if key != "raw_columns"}
    recipe = {"lowercase": True, "keep_columns": ["ward", "unused"], "options_column": ["A", "B", "D"]}
    columns = Columns.from_dict(upgrade_task(earlier, recipe)["raw_columns"])
    assert columns == Columns("q", optional=("c",), lists=("A", "B", "D"), kept=("ward", "unused"), lowercase=True)
    alone = Columns.from_dict(upgrade_task(earlier, {})["raw_columns"])  # a pulled adapter without its recipe
    assert alone == Columns("q", optional=("c",), lists=("options",), kept=("ward",))
    assert template_names(earlier) == {"ward", "question"}


def test_the_task_of_a_newer_version_is_refused(tmp_path):
    (tmp_path / "task.json").write_text(json.dumps(TASK | {"version": TASK_VERSION}))
    assert load_task(tmp_path)["raw_columns"] == EXAM.to_dict()
    (tmp_path / "task.json").write_text(json.dumps(TASK | {"version": TASK_VERSION + 1}))
    with pytest.raises(UserError, match="version"):
        load_task(tmp_path)


def test_the_app_reads_a_question_as_training_did():
    task, asked = TASK | {"prompt_template": "{question}"}, list[Question]()
    questions = [Question("Is  Mg\x07 LOW?", 0.5)]
    answer_as_read(
        lambda questions, deliver: asked.extend(questions), task, word_tokenizer([]), None, questions, print
    )
    assert asked == [Question("is mg low?", 0.5)]
    with pytest.raises(UserError, match="empty"):
        answer_as_read(lambda *_: None, task, word_tokenizer([]), None, [Question("\x00 \u202e")], print)
