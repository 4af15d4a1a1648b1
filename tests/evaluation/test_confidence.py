"""Confidence is the model's own probability of its answer, and the words about it are what validation answers gave."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import qa_flags, run_here
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer

from run_qa_sft import ARGUMENTS, main
from utils.evaluation.confidence import (
    PARTS,
    answer_confidence,
    auroc,
    by_confidence,
    confidence_quality,
    confidence_words,
    fit_confidence,
    in_turns,
    lower_repeated,
)
from utils.inference import Predictor
from utils.json_files import json_text
from utils.metrics.intervals import evaluate_statistics
from utils.metrics.statistics import accuracy_statistics, text_statistics
from utils.prompts import build_prompt
from utils.serving.answering import Question, answer_here, state_confidence

TABLE = {
    "metric": "rougeL", "rows": 200, "all": 0.34, "edges": [0.4, 0.6], "agreement": [0.23, 0.33, 0.5],
    "ci95": [[0.2, 0.26], [0.29, 0.37], [0.45, 0.54]],
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny_llama, data, tmp_path_factory):
    """Of 120 rows 36 validate and 36 test, one document each way, so that thirds can be learnt."""
    argv = qa_flags(
        tiny_llama, tmp_path_factory.mktemp("sure") / "run", train_file=data.qa, answer_column="answer",
        group_column="document", near_duplicate_threshold=1.0, validation_fraction=0.3, test_fraction=0.3,
    )  # fmt: skip
    done = run_here(main, ARGUMENTS, argv)
    assert done.code == 0, done.stderr
    return done


def test_confidence_is_the_mean_probability_of_the_tokens_and_the_last_counts_where_it_ended(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    task = {
        "chat": True, "system_prompt": None, "prompt_template": "{question}", "max_length": 200,
        "columns": {"question": "question", "context": None, "options": None},
    }  # fmt: skip
    prompts = [build_prompt(tokenizer, task, {"question": text}) for text in ("What is otalgia?", "What?")]
    answers = ["A disease of the ear.", "A disease of the ear caused by a virus."]
    found = answer_confidence(model, tokenizer, task, prompts, answers, [True, False], 2, None)
    for prompt, answer, finished, value in zip(prompts, answers, (True, False), found, strict=True):
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": answer}]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        tail = whole[whole.index(answer) :]
        text = prompt + answer + (tail[len(answer) :].split("\n")[0] if finished else "")
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        n = ids.shape[1] - len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        log_p = model(ids).logits[0, -n - 1 : -1].log_softmax(-1).gather(1, ids[0, -n:, None])
        assert value == pytest.approx(log_p.mean().exp().item(), rel=1e-3)


def test_thirds_take_every_row_once_and_their_metric_is_the_mean_of_their_rows():
    confidence, rouge = np.random.default_rng(1).random((2, 50))
    confidence[:2] = TABLE["edges"]  # a row on an edge is of the part above
    parts = by_confidence({"rougeL": accuracy_statistics(rouge)["accuracy"]}, confidence, TABLE)
    assert list(parts) == [f"rougeL_{name}" for name in PARTS]
    assert sum(parts.values())[:, 1].tolist() == [1.0] * 50
    found = evaluate_statistics(parts, np.arange(50))
    inside = [confidence < 0.4, (confidence >= 0.4) & (confidence < 0.6), confidence >= 0.6]
    assert [found[name] for name in parts] == pytest.approx([rouge[rows].mean() for rows in inside])


def test_a_run_learns_the_thirds_on_validation_and_measures_them_on_test(run):
    table, rows = run.task["confidence"], run.predictions
    assert table["metric"] == "rougeL" and table["rows"] == run.results["validation_rows"] >= 30
    assert 0 < table["edges"][0] < table["edges"][1] < 1
    rouge = text_statistics([r["prediction"] for r in rows], [r["reference"] for r in rows])["rougeL"][:, 0]
    part = np.digitize([row["confidence"] for row in rows], table["edges"])
    for i, name in enumerate(PARTS):
        assert run.results[f"eval_rougeL_{name}"] == table["agreement"][i]
        if table["ci95"][i]:  # None where a third has fewer than ten clusters
            low, high = table["ci95"][i]
            assert low <= table["agreement"][i] <= high
        value = run.results[f"test_rougeL_{name}"]
        assert value == pytest.approx(rouge[part == i].mean()) if (part == i).any() else math.isnan(value or math.nan)
    text = (run.folder / "report.md").read_text()
    assert "## Confidence" in text and f"{table['agreement'][1]:.3f}" in text
    assert "least_confident" not in text and "least confident" not in text.split("## Confidence")[0]


def test_serving_gives_the_confidence_of_the_evaluation_and_says_what_it_is_worth(run):
    predictor, rows = Predictor.from_pretrained(str(run.folder)), run.predictions[:5]
    answers = predictor([row["source"] for row in rows])
    expected = pytest.approx([row["confidence"] for row in rows], rel=1e-3)
    assert [answer["confidence"] for answer in answers] == expected
    answers: dict[int, dict] = {}
    answer_here(predictor, [Question(row["source"]) for row in rows], 4, answers.__setitem__)
    asked = [answers[i] for i in range(len(rows))]
    assert [answer["confidence"] for answer in asked] == expected
    for answer in asked:
        assert answer["confidence_note"] == confidence_words(answer["confidence"], run.task["confidence"])


def test_multiple_choice_counts_right_letters(tiny_llama, data, tmp_path):
    argv = qa_flags(
        tiny_llama, tmp_path / "run", train_file=data.exam, options_column="options",
        answer_index_column="answer_index", near_duplicate_threshold=1.0, validation_fraction=0.5, test_fraction=0.2,
    )  # fmt: skip
    done = run_here(main, ARGUMENTS, argv)
    assert done.code == 0, done.stderr
    table = done.task["confidence"]
    assert table["metric"] == "generated_accuracy" and table["rows"] == 30
    assert table["all"] == pytest.approx(np.mean(table["agreement"]), abs=1e-6)  # thirds of ten rows each
    assert done.results["eval_generated_accuracy_most_confident"] == table["agreement"][2]


def test_few_rows_teach_nothing(qa_run):
    assert qa_run.results["validation_rows"] < 30 and qa_run.task["confidence"] is None
    assert not any("confident" in key for key in qa_run.results)
    statistics = accuracy_statistics(np.zeros(29), "rougeL")
    assert fit_confidence(statistics, np.linspace(0, 1, 29), "rougeL", list(range(29)), range(29)) is None


def test_the_table_holds_the_mean_of_each_third_between_its_edges():
    confidence = np.random.default_rng(2).permutation(np.linspace(0, 1, 30))
    statistics = accuracy_statistics(confidence**2, "rougeL")
    table = fit_confidence(statistics, confidence, "rougeL", list(range(30)), range(30))
    assert (table["metric"], table["rows"]) == ("rougeL", 30)
    assert table["all"] == pytest.approx((confidence**2).mean())
    thirds = np.sort(confidence).reshape(3, 10)
    assert all(a[-1] < edge < b[0] for a, edge, b in zip(thirds, table["edges"], thirds[1:], strict=False))
    assert table["agreement"] == pytest.approx((thirds**2).mean(axis=1))
    assert all(low < mean < high for (low, high), mean in zip(table["ci95"], table["agreement"], strict=True))
    assert json.loads(json.dumps(table)) == table
    assert fit_confidence(statistics, confidence, "rougeL", list(range(30)), range(30)) == table
    wider = fit_confidence(statistics, confidence, "rougeL", np.argsort(np.argsort(confidence)) // 5, range(30))
    assert wider["agreement"] == pytest.approx(table["agreement"])  # clusters are about the intervals alone
    assert wider["ci95"] != table["ci95"]


def test_the_first_rows_are_a_sample_of_all_clusters_whatever_their_order():
    rows = {"cluster": [0] * 500 + [1] * 20 + list(range(2, 60)), "id": list(range(578))}
    first = in_turns(rows, 1)
    assert sorted(first["id"]) == rows["id"] and set(first["cluster"][:60]) == set(range(60))
    assert first["cluster"] == [rows["cluster"][i] for i in first["id"]]
    assert [first["cluster"][60:98].count(i) for i in (0, 1)] == [19, 19]
    assert in_turns(rows, 1) == first != in_turns(rows, 2)


def test_a_loop_lowers_the_confidence_and_an_answer_without_one_keeps_it():
    loop, plain = "It is a pain in the knee. " * 9, "It is a pain in the knee, with a swelling."
    assert lower_repeated(0.9, plain) == 0.9 and lower_repeated(0.9, "Yes.") == 0.9
    assert lower_repeated(0.83, loop) < 0.15 and lower_repeated(0.83, "!" * 60) < 0.05


def test_auroc_is_scikit_learns_with_ties():
    rng = np.random.default_rng(0)
    scores, right = rng.integers(6, size=80), rng.random(80) < 0.4
    assert auroc(scores, right) == pytest.approx(roc_auc_score(right, scores))
    assert math.isnan(auroc(scores, np.ones(80, bool)))


def test_the_quality_of_confidence_is_what_it_adds_to_length():
    rng = np.random.default_rng(1)
    score = rng.random(200)
    words = np.round(40 - 20 * score + rng.normal(0, 10, 200))  # longer answers are worse
    table = fit_confidence(accuracy_statistics(score, "rougeL"), score, "rougeL", range(200), words)
    assert table["longer_is_better"] is False
    good = confidence_quality(accuracy_statistics(score, "rougeL"), score, words, table, range(200))
    assert good["confidence_auroc"] == 1 > good["length_auroc"] > 0.5 and good["confidence_gain_ci95"][0] > 0
    none = confidence_quality(accuracy_statistics(score, "rougeL"), -words, words, table, range(200))
    assert none["confidence_gain"] == 0 and none["confidence_auroc"] == none["length_auroc"]
    few = confidence_quality(accuracy_statistics(score, "rougeL"), score, words, table, np.arange(200) % 9)
    assert few["confidence_auroc"] == 1 and few["confidence_auroc_ci95"] is None
    assert confidence_quality(accuracy_statistics(np.ones(9), "rougeL"), score[:9], words[:9], table, range(9)) == {}


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        (0.2, ["0.20", "lowest third of 200", "less than the average", "0.23 [0.20, 0.26]", "average 0.34"]),
        (0.5, ["middle third", "about as much as the average", "0.33 [0.29, 0.37]"]),
        (0.9, ["highest third", "more than the average", "0.50 [0.45, 0.54]"]),
    ],
)
def test_the_words_say_what_was_measured_and_no_more(confidence, expected):
    sentence = confidence_words(confidence, TABLE)
    assert all(text in sentence for text in expected) and "factually wrong" in sentence


def test_of_exam_questions_the_words_say_how_many_were_right():
    sentence = confidence_words(0.9, TABLE | {"metric": "generated_accuracy"})
    assert "highest third of 200" in sentence and "about 50% of" in sentence and "(45% to 54%)" in sentence
    assert "all answers in 34%" in sentence


def test_words_without_a_measurement_are_the_number_and_promise_nothing():
    sentence = confidence_words(0.987, None)
    assert "0.99" in sentence and "wrong" in sentence and "third" not in sentence


def test_a_third_without_validation_answers_promises_nothing():
    statistics = accuracy_statistics(np.ones(40), "rougeL")
    table = json.loads(json_text(fit_confidence(statistics, np.ones(40), "rougeL", list(range(40)), range(40))))
    assert "highest third" in confidence_words(1.0, table)
    assert confidence_words(0.5, table) == confidence_words(0.5, None)


@pytest.mark.parametrize(
    ("settings", "measured"),
    [
        ({}, True), ({"temperature": 0.0}, True), ({"num_beams": 1, "max_length": 96}, True),
        ({"temperature": 0.7}, False), ({"num_beams": 4}, False), ({"max_length": 20}, False),
        ({"num_beams": 4, "length_penalty": -1.0}, False),
    ],
)  # fmt: skip
def test_what_was_measured_is_claimed_only_of_answers_made_alike(settings, measured):
    task = {"confidence": TABLE, "generation": {"max_new_tokens": 96, "do_sample": False, "repetition_penalty": 1.0}}
    note = state_confidence(0.5, task, Question("What?", **settings))["confidence_note"]
    assert ("third" in note) == measured
    assert state_confidence(None, task, Question("What?")) == {"confidence": None, "confidence_note": None}
