"""Rows of one batch: each gets what it would get alone, and ends, streams and returns by itself."""

import time

import pytest
from conftest import qa_flags, run_here

import run_qa_sft
from utils.inference import Predictor
from utils.serving.answering import Question, answer_here
from utils.serving.decoding import Client

QUESTIONS = ["What is cardiitis?", "What is hepatosis and how does it begin?", "What is otalgia?", "Why?"]


@pytest.fixture(scope="module")
def predictor(tiny_llama, data, tmp_path_factory):
    argv = qa_flags(tiny_llama, tmp_path_factory.mktemp("decoding"), train_file=data.qa, evaluate_test="false")
    return Predictor.from_pretrained(str(run_here(run_qa_sft.main, run_qa_sft.ARGUMENTS, argv).folder))


def ask(predictor, questions: list[Question], batch_size: int = 8) -> list[dict]:
    answers: dict[int, dict] = {}
    answer_here(predictor, questions, batch_size, answers.__setitem__)
    assert answers.keys() == set(range(len(questions)))
    return [answers[i] for i in range(len(questions))]


def without_rounding(answer: dict) -> dict:
    return answer | {"confidence": pytest.approx(answer["confidence"], abs=1e-5)}


def test_greedy_rows_of_all_lengths_beside_sampled_ones_and_beams_are_as_alone(predictor):
    questions = [Question(text, max_length=n) for text in QUESTIONS for n in (1, 7, 20)]
    alone = [ask(predictor, [question])[0] for question in questions]
    others = [Question(QUESTIONS[0], temperature=1.5), Question(QUESTIONS[1], num_beams=2, max_length=5)]
    for batch_size in (1, 3, 32):
        together = ask(predictor, [*questions, *others], batch_size)
        assert together[: len(questions)] == [without_rounding(answer) for answer in alone]
        assert together[-1] == without_rounding(ask(predictor, [others[1]])[0])


def test_a_row_returns_before_longer_ones_and_every_row_streams(predictor):
    order, pieces = [], {n: [] for n in (2, 30)}
    questions = [Question(QUESTIONS[0], max_length=n, on_text=pieces[n].append) for n in (30, 2)]
    answers = {}
    answer_here(predictor, questions, 8, lambda i, found: (order.append(i), answers.update({i: found})))
    assert order == [1, 0]
    for n, i in ((30, 0), (2, 1)):
        assert pieces[n][-1] == answers[i]["response"]
        assert all(answers[i]["response"].startswith(piece) for piece in pieces[n][:-1])
    assert len(pieces[30]) > len(pieces[2])


@pytest.mark.parametrize("beams", [1, 3])
def test_rows_of_clients_that_left_or_waited_too_long_end_and_others_go_on(predictor, beams):
    asked = []

    def leaves() -> bool:
        asked.append(1)
        return len(asked) > 5

    late = Question(QUESTIONS[2], num_beams=beams, max_length=40, client=Client(time.monotonic() - 1, lambda: False))
    left = Question(QUESTIONS[1], num_beams=beams, max_length=40, client=Client(time.monotonic() + 60, leaves))
    stays = Question(QUESTIONS[0], num_beams=beams, max_length=40)
    answers: dict[int, dict] = {}
    answer_here(predictor, [late, left, stays], 8 * beams, answers.__setitem__)
    assert answers.keys() == {1, 2}  # nobody waits for the first: it is not even begun
    assert answers[2] == without_rounding(ask(predictor, [stays])[0])
    assert not answers[1]["finished"] and len(predictor.tokenizer(answers[1]["response"])["input_ids"]) <= 12


def test_sampling_filters_of_a_run_keep_their_meaning(predictor):
    """After top-p the temperature would act on another set of tokens, so such questions run apart."""
    predictor.task["generation"]["top_p"] = 1e-6  # leaves one token at any temperature
    try:
        questions = [Question(QUESTIONS[0], temperature=t, max_length=12) for t in (0.5, 2.0)]
        assert (
            len({answer["response"] for answer in ask(predictor, [*questions, Question(QUESTIONS[0], max_length=12)])})
            == 1
        )
    finally:
        del predictor.task["generation"]["top_p"]
