import numpy as np
import pytest
import torch
from conftest import toy_exam
from transformers import AutoModelForCausalLM, AutoTokenizer

from utils.chat import tokenize_pairs
from utils.evaluation.multiple_choice import (
    _letter,
    choice_statistics,
    letter_statistics,
    score_options,
    shuffled_orders,
    shuffled_rows,
)
from utils.generation import score_answers
from utils.prompts import build_prompt
from utils.templates import option_answers

TASK = {
    "chat": True, "system_prompt": None, "prompt_template": "{question}\n{options}", "max_length": 400,
    "columns": {"question": "question", "context": None, "options": "options", "answer": None,
                "answer_index": "answer_index"},
}  # fmt: skip
ROWS = toy_exam()[:8]


@pytest.fixture(scope="module")
def loaded(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval(), tokenizer


def scores_of(loaded, rows, batch_size=4):
    model, tokenizer = loaded
    prompts = [build_prompt(tokenizer, TASK, row) for row in rows]
    return score_options(model, tokenizer, prompts, [row["options"] for row in rows], TASK, batch_size, None)


def test_an_options_score_is_the_likelihood_of_its_line_and_the_same_by_character(loaded):
    model, tokenizer = loaded
    scores = scores_of(loaded, ROWS[:2])
    for row, found in zip(ROWS[:2], scores, strict=True):
        lines = option_answers(row["options"])
        ids, answers = tokenize_pairs(tokenizer, [build_prompt(tokenizer, TASK, row)] * 4, lines, True)
        nll, _ = score_answers(model, ids, answers, 0, 1, None)
        assert found[:, 0] == pytest.approx(-nll, abs=1e-4)
        assert found[:, 1] == pytest.approx(-nll / np.array([len(line) for line in lines]), abs=1e-5)


def test_rows_may_have_different_numbers_of_options(loaded):
    rows = [ROWS[0], {**ROWS[1], "options": ROWS[1]["options"][:2]}, ROWS[2]]
    together = scores_of(loaded, rows)
    assert together.shape == (3, 4, 2) and (together[1, 2:] == -np.inf).all()
    assert np.isfinite(together).sum(axis=1).tolist() == [[4, 4], [2, 2], [4, 4]]
    for row, scores in zip(rows, together, strict=True):
        (alone,) = scores_of(loaded, [row])
        assert len(alone) == len(row["options"])
        assert scores[: len(alone)] == pytest.approx(alone, abs=1e-4)


def test_shuffled_rows_hold_the_same_options_and_know_where_they_came_from():
    moved, orders = shuffled_rows(ROWS, "options", 3), shuffled_orders([4] * 8, 3)
    for row, new, order in zip(ROWS, moved, orders, strict=True):
        assert sorted(order) == [0, 1, 2, 3]
        assert [row["options"][old] for old in order] == new["options"]
        assert {**new, "options": row["options"]} == row  # nothing else has changed
    assert any(order != [0, 1, 2, 3] for order in orders)
    assert shuffled_rows(ROWS, "options", 3) == moved and shuffled_orders([4] * 8, 3) == orders
    assert shuffled_orders([4] * 8, 4) != orders
    assert [sorted(order) for order in shuffled_orders([2, 5, 1], 3)] == [[0, 1], [0, 1, 2, 3, 4], [0]]


def statistics(loaded, rows, generated):
    outputs = {
        "option_scores": scores_of(loaded, rows), "prediction": generated,
        "shuffled_option_scores": scores_of(loaded, shuffled_rows(rows, "options", 0)),
    }  # fmt: skip
    return choice_statistics(outputs, [row["options"] for row in rows], [row["answer_index"] for row in rows], 0)


def test_accuracy_is_one_where_the_likeliest_option_is_right_and_zero_where_another_is(loaded):
    best = [int(scores[:, 0].argmax()) for scores in scores_of(loaded, ROWS)]
    right = [{**row, "answer_index": b} for row, b in zip(ROWS, best, strict=True)]
    wrong = [{**row, "answer_index": (b + 1) % 4} for row, b in zip(ROWS, best, strict=True)]
    answers = ["A"] * 8
    assert statistics(loaded, right, answers)["accuracy"][:, 0].tolist() == [1] * 8
    assert statistics(loaded, wrong, answers)["accuracy"][:, 0].tolist() == [0] * 8


def test_the_generated_letter_is_scored_and_what_has_none_is_a_parse_failure(loaded):
    rows = [{**row, "answer_index": 1} for row in ROWS]
    answers = ["B. fever", "(B)", "A", "B", "E. no such option", "because", "", "**B** it is"]
    found = statistics(loaded, rows, answers)
    assert found["generated_accuracy"][:, 0].tolist() == [1, 1, 0, 1, 0, 0, 0, 1]
    assert found["parse_failure"][:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 0]
    alone = letter_statistics([row["options"] for row in rows], [1] * 8, answers)
    assert set(alone) == {"generated_accuracy", "parse_failure"}
    assert all(np.array_equal(alone[name], found[name]) for name in alone)


def test_a_flip_is_another_option_chosen_after_shuffling_and_not_another_letter(loaded):
    same = [{**row, "options": [row["options"][0]] * 4} for row in ROWS]
    found = statistics(loaded, same, ["A"] * 8)
    assert set(found["flip_rate"][:, 0]) <= {0, 1}
    moved, orders = shuffled_rows(ROWS, "options", 0), shuffled_orders([4] * 8, 0)
    before = [int(s[:, 0].argmax()) for s in scores_of(loaded, ROWS)]
    after = [order[int(s[:, 0].argmax())] for s, order in zip(scores_of(loaded, moved), orders, strict=True)]
    flips = statistics(loaded, ROWS, ["A"] * 8)["flip_rate"][:, 0].tolist()
    assert flips == [float(a != b) for a, b in zip(after, before, strict=True)]


def test_statistics_by_hand_of_rows_with_different_numbers_of_options():
    options = [["a", "b", "c"], ["a", "b"], ["a", "b", "c"]]
    orders = shuffled_orders([3, 2, 3], 7)
    scores = np.full((3, 3, 2), -np.inf)
    scores[0], scores[1, :2] = [[-1, -9], [-2, -1], [-3, -8]], [[-5, -5], [-4, -4]]  # the best, and by character
    scores[2] = [[-3, -3], [-2, -2], [-1, -1]]
    moved = np.full((3, 3, 2), -np.inf)
    for row, order in enumerate(orders):
        moved[row, : len(order)] = scores[row, order]
    moved[2, :, 0] = [-1 if old == 0 else -2 for old in orders[2]]  # another is the best once they are moved
    outputs = {"option_scores": scores, "shuffled_option_scores": moved, "prediction": ["A", "C", "c"]}
    found = choice_statistics(outputs, options, [0, 1, 1], 7)
    assert found["accuracy"].tolist() == [[1, 1], [1, 1], [0, 1]]
    assert found["accuracy_norm"].tolist() == [[0, 1], [1, 1], [0, 1]]
    assert found["flip_rate"].tolist() == [[0, 1], [0, 1], [1, 1]]
    assert found["generated_accuracy"].tolist() == [[1, 1], [0, 1], [0, 1]]
    assert found["parse_failure"].tolist() == [[0, 1], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("text", "index"), [("A", 0), ("Answer", -1), ("(C) x", 2), ("E", -1), ("d) x", -1), ("", -1)]
)
def test_a_letter_is_read_from_the_beginning_of_an_answer(text, index):
    assert _letter(text, 4) == index
