"""A dialogue, and a question with blank options, get the same answer from `predict.py` as in the evaluation."""

import numpy as np
import pytest
import torch
from conftest import toy_exam, toy_rows, write_rows
from safetensors.torch import load_file
from test_rows_as_trained import COMMON, as_written, ask, test_rows, train

import run_qa_sft
from utils.evaluation.outputs import load_outputs
from utils.inference import Predictor


def dialogues():
    """Dialogues of one to three questions, some with a system turn of their own, written as people do."""
    rows = toy_rows()[:60]
    found = []
    for i, row in enumerate(rows):
        said = [row, *(rows[(i + 20 * n) % 60] for n in range(1, i % 3 + 1))][::-1]
        turns = [text for own in said for text in (own["question"], own["answer"])]
        turns = [as_written(text, i + n) for n, text in enumerate(turns)]
        found.append({"id": row["id"], "turns": turns, "system": as_written("Be brief.", i) if i % 2 == 0 else ""})
    return found


def as_messages(row, answered=True):
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(row["turns"])]
    system = [{"role": "system", "content": row["system"]}] if row["system"] else []
    return {"id": row["id"], "messages": system + (turns if answered else turns[:-1])}


def as_alpaca(row):
    *earlier, question, answer = row["turns"]
    pairs = [earlier[n : n + 2] for n in range(0, len(earlier), 2)]
    return {"id": row["id"], "instruction": question, "output": answer, "history": pairs, "system": row["system"]}


def run_chat(model, folder, rows):
    return train(
        run_qa_sft, **{**COMMON, "max_new_tokens": 6, "max_length": 300, "lora_dropout": 0.0, "use_peft": True},
        lora_target_modules=["q_proj", "v_proj"], model_name_or_path=model, output_dir=folder / "run",
        train_file=write_rows(folder / "chat.jsonl", rows), system_prompt="Answer.", max_predict_samples=8,
        max_eval_samples=8, test_fraction=0.2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def chat_run(tiny_llama, tmp_path_factory):
    return run_chat(tiny_llama, tmp_path_factory.mktemp("chat"), [as_messages(row) for row in dialogues()])


def test_a_dialogue_gets_the_answer_of_the_evaluation_with_and_without_the_reference(chat_run, tmp_path):
    raw = test_rows(chat_run, dialogues())
    assert len({len(row["turns"]) for row in raw}) > 1 and len({bool(row["system"]) for row in raw}) == 2
    written = [as_messages(row) for row in raw]
    for rows in (written, [as_messages(row, answered=False) for row in raw]):
        answers = ask(chat_run, write_rows(tmp_path / "raw.jsonl", rows), batch_size=3)
        for answer, row in zip(answers, chat_run.predictions, strict=True):
            assert [answer[key] for key in ("id", "prediction")] == [row[key] for key in ("id", "prediction")]
            assert answer["confidence"] == pytest.approx(row["confidence"], abs=1e-4)
    # Its turns count: the last question alone gets another answer
    predictor = Predictor.from_pretrained(str(chat_run.folder))
    alone = predictor([row["turns"][-2] for row in raw])
    confidences = np.array(
        [[a["confidence"], row["confidence"]] for a, row in zip(alone, chat_run.predictions, strict=True)]
    )
    several = np.array([len(row["turns"]) > 2 or bool(row["system"]) for row in raw])
    assert ((np.abs(np.diff(confidences)[:, 0]) > 1e-5) == several).all()


def test_the_same_dialogues_in_another_shape_give_the_same_weights_and_answers(chat_run, tiny_llama, tmp_path):
    results = chat_run.results
    assert results["data_rows_with_system_turn"] == 30 and results["data_rows_with_several_turns"] == 40
    other = run_chat(tiny_llama, tmp_path, [as_alpaca(row) for row in dialogues()])
    weights, found = (load_file(run.folder / "adapter_model.safetensors") for run in (chat_run, other))
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert other.results["test_loss"] == pytest.approx(results["test_loss"])
    raw = [as_alpaca(row) for row in test_rows(other, dialogues())]
    answers = ask(other, write_rows(tmp_path / "raw.jsonl", raw), batch_size=3)
    assert [answer["prediction"] for answer in answers] == [row["prediction"] for row in chat_run.predictions]


def test_blank_options_keep_the_places_of_the_file(tiny_llama, tmp_path):
    rows = []
    for i, row in enumerate(toy_exam()):
        options = list(row["options"])
        options[i % 4] = ""  # another column is blank in each row
        answer = (i + 1 + i % 3) % 4
        cells = {f"op{letter}": text for letter, text in zip("abcd", options, strict=True)}
        rows.append({"id": row["id"], "question": row["question"], **cells, "cop": "ABCD"[answer]})
    run = train(
        run_qa_sft, **{**COMMON, "max_new_tokens": 3, "max_length": 256}, model_name_or_path=tiny_llama,
        output_dir=tmp_path / "run", train_file=write_rows(tmp_path / "exam.csv", rows), question_column="question",
        options_column=["opa", "opb", "opc", "opd"], answer_index_column="cop",
    )  # fmt: skip
    assert run.results["data_answers_by_letter"] == run.results["data_rows_with_blank_options"] == 60
    raw = test_rows(run, rows)
    scores = load_outputs(run.folder)["outputs"]["test"]["option_scores"][:, :, 0]
    answers = ask(run, write_rows(tmp_path / "raw.csv", raw), batch_size=3)
    for answer, own, row, evaluated in zip(answers, scores, raw, run.predictions, strict=True):
        cells = [row[f"op{letter}"] for letter in "abcd"]
        kept = [text for text in cells if text]
        assert cells[answer["option"]] == kept[own.argmax()]
        assert [p == 0 for p in answer["probabilities"]] == [not text for text in cells]
        assert evaluated["reference"][3:] == cells["ABCD".index(row["cop"])].lower()
