import random

import pytest
from conftest import toy_exam, toy_rows
from datasets import Dataset

from utils.data.columns import Columns
from utils.data.questions import augment, paraphrase, shuffle_options

QUESTIONS = Dataset.from_list(toy_rows()[:10])
EXAM = Dataset.from_list(toy_exam()[:10])


def augment_exam(rows, factor, seed):
    return augment(rows, Columns("question", lists=("options",), index="answer_index"), factor, seed)


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("What is ataxia?", "Define ataxia."),
        ("What is (are) Down syndrome ?", "Define Down syndrome."),
        ("What are the symptoms of lead poisoning?", "How does lead poisoning show itself?"),
        ("What causes HIV/AIDS (late)?", "What leads to HIV/AIDS (late)?"),
        ("How to diagnose B12 deficiency ?", "How is B12 deficiency diagnosed?"),
        ("What are the treatments for type 1 diabetes?", "How is type 1 diabetes treated?"),
        ("How to prevent falls?", "How can falls be prevented?"),
        ("May I take ibuprofen 400 mg?", "May I take ibuprofen 400 mg? Please answer."),
    ],
)
def test_a_paraphrase_keeps_the_subject_as_it_stood(question, first):
    assert paraphrase(question)[0] == first


@pytest.mark.parametrize("question", ["What is \\1 and \\g<0>?", "What causes {braces} and {}?"])
def test_text_that_looks_like_a_pattern_stays_text(question):
    subject = question.removeprefix("What is ").removeprefix("What causes ").rstrip("?")
    assert all(subject in wording for wording in paraphrase(question))


def test_wordings_differ_from_the_question_and_from_each_other():
    for question in ("What is ataxia?", "Is it so?"):
        wordings = paraphrase(question)
        assert len({question, *wordings}) == len(wordings) + 1


def test_a_factor_of_one_returns_the_rows():
    assert augment(QUESTIONS, Columns("question"), 1, 0) is QUESTIONS


def test_questions_are_paraphrased_beside_the_rows_themselves_and_answers_stay():
    made = augment(QUESTIONS, Columns("question"), 3, 0)
    assert len(made) == 30 and made.features == QUESTIONS.features
    assert made.select(range(0, 30, 3)).to_list() == QUESTIONS.to_list()
    for number, row in enumerate(made):
        original = QUESTIONS[number // 3]
        assert {k: v for k, v in row.items() if k != "question"} == {
            k: v for k, v in original.items() if k != "question"
        }
    assert len(set(made["question"])) == 30


def test_options_are_shuffled_and_the_right_one_stays_right():
    made = augment_exam(EXAM, 4, 0)
    assert len(made) == 40
    for number, row in enumerate(made):
        original = EXAM[number // 4]
        assert sorted(row["options"]) == sorted(original["options"]) and row["question"] == original["question"]
        assert row["options"][row["answer_index"]] == original["options"][original["answer_index"]]
    assert sum(row["options"] != EXAM[n // 4]["options"] for n, row in enumerate(made)) > 20


def test_variants_hang_on_the_seed_and_not_on_the_rows_beside_them():
    whole = augment_exam(EXAM, 2, 5).to_list()
    assert augment_exam(EXAM, 2, 5).to_list() == whole != augment_exam(EXAM, 2, 6).to_list()
    assert augment_exam(EXAM.select(range(4)), 2, 5).to_list() == whole[:8]


def test_equal_options_keep_the_index_of_the_right_one():
    options, answer = shuffle_options(["a", "a", "b"], 2, random.Random(0))
    assert options[answer] == "b"
