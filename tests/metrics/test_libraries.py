"""Our values are those of the libraries where the definition is the same, and the command shows both."""

import json
import random

import pytest

from utils.metrics.__main__ import main

WORDS = ["pain", "fever", "the", "of", "5", "0.5 mg", "no", "drug-induced"]


def scored(tmp_path, capsys, task: str, rows: list[tuple[str, str]]) -> dict:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prediction": p, "reference": r}) + "\n" for p, r in rows))
    main(["--task", task, "--input_file", str(path), "--compare_libraries"])
    return json.loads(capsys.readouterr().out)


def test_classes_have_the_values_of_scikit_learn(tmp_path, capsys):
    rng = random.Random(1)
    result = scored(tmp_path, capsys, "classification", [tuple(rng.choices("abcd", k=2)) for _ in range(60)])
    theirs = {key: value for key, value in result.items() if key.startswith("sklearn_")}
    assert len(theirs) == 7
    for key, value in theirs.items():
        assert result[key.removeprefix("sklearn_")] == pytest.approx(value, abs=1e-9)


def test_a_prediction_that_no_reference_has_is_a_class_as_in_the_report_of_a_run(tmp_path, capsys):
    result = scored(tmp_path, capsys, "classification", [("a", "a"), ("rare", "a"), ("b", "b"), ("rare", "b")])
    for name in ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall", "matthews"):
        assert result[name] == pytest.approx(result[f"sklearn_{name}"], abs=1e-9)
    assert result["macro_f1"] == pytest.approx(4 / 9)


@pytest.mark.parametrize("task", ["qa", "summarization"])
def test_texts_have_the_values_of_rouge_score_and_sacrebleu(tmp_path, capsys, task):
    rng = random.Random(2)
    texts = [tuple(" ".join(rng.choices(WORDS, k=rng.randint(4, 20))) for _ in range(2)) for _ in range(30)]
    result = scored(tmp_path, capsys, task, texts)
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        assert result[name] == pytest.approx(result[f"rouge_score_{name}"], abs=1e-9)
    for name in ("bleu", *(["chrf"] if task == "summarization" else [])):
        assert 100 * result[name] == pytest.approx(result[f"sacrebleu_{name}"], abs=1e-7)


def test_other_scripts_score_only_with_our_tokenizers(tmp_path, capsys):
    result = scored(tmp_path, capsys, "qa", [("患者发烧三天，没有咳嗽。", "患者发烧三天，没有咳嗽。")] * 3)
    assert result["rouge1"] == 1 and result["rouge_score_rouge1"] == 0
