"""A run on texts that are not English: its numbers mean something, and its report says what they are."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from utils.evaluation import qa, summarization
from utils.evaluation.outputs import write_results
from utils.reporting import report, summary_report
from utils.reporting.card import write_card

DRUGS = ["阿司匹林", "华法林", "二甲双胍", "胰岛素", "氨氯地平", "辛伐他汀", "奥美拉唑", "布洛芬"]
ANSWERS = [f"{drug}需要每天服用{dose}次，饭后服用。如有不适请及时就医。" for drug in DRUGS for dose in "一二三四"]
QUESTIONS = [f"{drug}应该怎么服用？每天{dose}次可以吗？" for drug in DRUGS for dose in "一二三四"]
N = len(ANSWERS)
TASK: dict[str, Any] = {
    "evaluation": {"seed": 0, "use_stemmer": True, "bertscore_model": None}, "base_model": "lab/base", "columns": {},
}  # fmt: skip
LOSS = {"nll": np.full(N, 20.0), "tokens": np.full(N, 10)}


def written(prediction: list[str]) -> dict[str, Any]:
    finished = [True] * N
    return LOSS | {"prediction": prediction, "finished": finished, "confidence": np.linspace(0.1, 0.9, N)}


@pytest.fixture(scope="module")
def answers() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Rows, outputs and task of a question answering run: half of its answers are the experts'."""
    columns = {"id": [str(i) for i in range(N)], "cluster": list(range(N)), "source": QUESTIONS, "reference": ANSWERS}
    half = [text if i % 2 else ANSWERS[i - 1] for i, text in enumerate(ANSWERS)]
    outputs = {name: written(half) for name in ("validation", "test")}
    outputs |= {"base_test": written(["是"] * N), "baseline_nearest_question_test": {"prediction": ANSWERS[::-1]}}
    task = copy.deepcopy(TASK) | {"task": "qa"}
    return {"validation": columns, "test": columns}, outputs, task | qa.calibrate(outputs["test"], columns)


@pytest.fixture(scope="module")
def summaries() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Rows, outputs and task of a summarizer: every summary names a drug that its source does not."""
    test = {"id": [str(i) for i in range(N)], "cluster": list(range(N)), "reference": ANSWERS, "cut": [False] * N}
    test["text"] = [f"患者：{question}\n医生：{answer}" for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    outputs = {"validation": LOSS, "test": written(ANSWERS[4:] + ANSWERS[:4]), "base_test": written([""] * N)}
    return {"validation": {"cluster": list(range(N))}, "test": test}, outputs, TASK | {"task": "summarization"}


def test_an_evaluation_in_chinese_tells_systems_apart(answers):
    results, _ = qa.evaluate(*answers)
    assert results["language"] == ["zh"]
    assert (results["rouge_tokenizer"], results["bleu_tokenizer"]) == ("unicode", "zh")
    assert 0.8 < results["test_rougeL"] < 1 and results["base_test_rougeL"] < 0.1
    assert results["delta_base_test_rougeL_ci95"][0] > 0.5 and 0.5 < results["test_bleu"] < 1
    assert results["errors_low_overlap"] == results["errors_verbose"] == results["errors_empty"] == 0
    assert results["test_length_ratio"] == pytest.approx(1, abs=0.02) and results["base_test_length_ratio"] < 0.1
    thirds = [results[f"test_rougeL_{part}_confident"] for part in ("least", "middle", "most")]
    assert min(thirds) > 0.7 and answers[2]["confidence"]["all"] == pytest.approx(results["test_rougeL"])


def test_equal_answers_score_one_in_all_systems_and_thirds(answers):
    rows, outputs, task = answers
    same = {name: output | {"prediction": ANSWERS} for name, output in outputs.items()}
    results, _ = qa.evaluate(rows, same, task)
    scores = ("rouge1", "rouge2", "rougeL", "rougeLsum", "bleu")
    for prefix in ("test", "base_test", "baseline_nearest_question_test"):
        assert [results[f"{prefix}_{name}"] for name in scores] == pytest.approx([1.0] * 5)
    assert [results[f"delta_base_test_{name}"] for name in scores] == pytest.approx([0.0] * 5)


def test_one_choice_holds_for_all_systems_whatever_they_write(answers):
    rows, outputs, task = answers
    english = outputs | {"base_test": written(["Please see a doctor."] * N)}
    assert qa.evaluate(rows, english, task)[0]["base_test_rougeL"] == 0
    given = task | {"data": {"language": "yue"}}
    assert qa.evaluate(rows, english, given)[0]["language"] == ["yue"]


def test_what_reads_english_is_left_out_of_a_summarizer_in_chinese(summaries, caplog):
    results, files = summarization.evaluate(*summaries)
    assert not any("hallucin" in key or "omi" in key or "negation" in key for key in results)
    assert results["use_stemmer"] is False and "`use_stemmer`" in caplog.text
    assert "hallucinations" not in files["_private/predictions_test.jsonl"]
    assert 0.5 < results["test_rouge1"] < 1 and results["base_test_rouge1"] == 0 and results["errors_empty"] == 0
    assert results["test_compression"] > 1.2 and results["errors_too_short"] == 0


@pytest.mark.parametrize("task", ["answers", "summaries"])
def test_report_and_card_name_the_language_and_the_tokenizers(task, request, tmp_path: Path):
    rows, outputs, settings = request.getfixturevalue(task)
    evaluate, write = (qa.evaluate, report.write_report) if task == "answers" else (
        summarization.evaluate, summary_report.write_report,
    )  # fmt: skip
    results, files = evaluate(rows, outputs, settings)
    write_results(tmp_path, settings, results, files)
    (tmp_path / "recipe.yaml").write_text("{}\n")
    text, card = write(tmp_path).read_text(), write_card(tmp_path, "lab/model").read_text()
    for page in (text, card):
        assert "`zh`" in page and "Han" in page and "hallucinations" in page
    header = yaml.safe_load(card.split("---")[1])
    assert header["language"] == ["zh"] and "**Language(s) (NLP):** zh" in card
    assert "were found" not in text or task == "answers"
    assert "a hallucination" not in text and "| hallucination" not in text
