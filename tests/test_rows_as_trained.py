"""A row as written gives the same answer from `predict.py` as in the evaluation of the run, whatever its cleaning."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PARENT, Run, flags, read_jsonl, run_here, toy_dialogues, toy_exam, toy_notes, write_rows
from hypothesis import given
from hypothesis import strategies as st

import predict
import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.arguments import DataArguments, UserError
from utils.data.columns import Columns
from utils.data.rows import clean_rows, read_row
from utils.evaluation.outputs import load_outputs
from utils.inference import Predictor


def as_written(text: str, seed: int) -> str:
    """A text as people have it: capitals, stray symbols, other spaces, runs of marks, decomposed accents."""
    rng = random.Random(seed)
    words = [rng.choice([str.upper, str.title, str])(word) for word in text.split(" ")]
    text = rng.choice([" ", "  ", "\u00a0", "\t"]).join(words)
    return (
        rng.choice(["", " ", "\u200b", "\ufeff"])
        + text
        + rng.choice(["", "......", " caf\u0065\u0301", "\x07", "\r\n"])
    )


# ----- One reader, without a model

CELLS = st.one_of(
    st.text(max_size=12), st.sampled_from([None, "", "Mg  and mg", "\u200bCO", "None", " NA ", 7, 0, 2.5, True])
)
SETTINGS = st.fixed_dictionaries(
    {
        "optional": st.sampled_from([(), ("context",)]),
        "lists": st.sampled_from([(), ("choices",), ("opa", "opb", "opc")]),
        "kept": st.sampled_from([(), ("ward", "age")]),
        "strip_pattern": st.sampled_from([None, "(?i)m.", r"\w+$"]),
        "lowercase": st.booleans(),
    }
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["q", "a", "context", "opa", "opb", "opc", "ward", "age", "x"]), CELLS)),
    st.lists(st.one_of(st.none(), st.lists(CELLS, min_size=2, max_size=4)), min_size=1),
    SETTINGS,
)
def test_training_and_serving_read_the_same_from_a_raw_row(rows, choices, settings):
    columns = Columns(input="q", target=None if settings["lists"] else "a", index=None, **settings)
    args = DataArguments(min_input_words=0, min_target_words=0, drop_ambiguous=False)
    rows = [row | {"choices": choices[i % len(choices)]} for i, row in enumerate(rows)]
    numbered = [("a.jsonl", number, row) for number, row in enumerate(rows)]
    for made in clean_rows(numbered, "train", columns, args, Counter()):
        raw = rows[int(made["id"].split("-")[1])]
        stored = Columns.from_dict(json.loads(json.dumps(columns.to_dict())))
        assert read_row(raw, stored, "row") == {name: made[name] for name in columns.read}


# ----- Every script


def train(script: Any, **values: Any) -> Run:
    done = run_here(script.main, script.ARGUMENTS, flags(**values))
    assert done.code == 0, done.stderr
    return done


def ask(run: Run, path: Path, **values: Any) -> list[dict[str, Any]]:
    """What `predict.py` writes for the rows of a file."""
    output = path.with_name("answers.jsonl")
    argv = flags(model=run.folder, input_file=path, output_file=output, overwrite=True, top_k=100, **values)
    done = run_here(lambda args, given: predict.main(args), (predict.PredictArguments,), argv)
    assert done.code == 0, done.stderr
    return read_jsonl(output)


def test_rows(run: Run, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as written of the test split."""
    by_id = {row["id"]: row for row in rows}
    return [by_id[row["id"]] for row in run.predictions]


test_rows.__test__ = False  # type: ignore[attr-defined]
COMMON = {
    "use_cpu": True, "bf16": False, "dtype": "float32", "save_strategy": "no", "report_to": "none", "max_steps": 2,
    "learning_rate": 1e-2, "near_duplicate_threshold": 1.0, "lowercase": True,
    "strip_pattern": "(?i)the ",
}  # fmt: skip


def notes() -> list[dict[str, Any]]:
    return [
        row | {"note": as_written(row["note"], i), "age": [40 + i, "", None][i % 3], "group": PARENT[row["ward"]]}
        for i, row in enumerate(toy_notes()[:70])
    ]


@pytest.mark.parametrize("script", [run_classification, run_hierarchical], ids=["classification", "hierarchical"])
def test_a_classifier_gives_the_classes_and_confidences_of_its_evaluation(script, tiny_bert, tmp_path):
    rows = notes()
    data = write_rows(tmp_path / "notes.jsonl", rows)
    tree = {"parent_column": "group", "child_column": "ward"}
    run = train(
        script, **COMMON, model_name_or_path=tiny_bert, output_dir=tmp_path / "run", train_file=data,
        text_column="note", keep_columns="age", text_template="{age} years: {text}", max_length=16,
        long_texts="chunks", max_chunks=3, ensemble="linear",
        **tree if script is run_hierarchical else {"label_column": "ward"},
    )  # fmt: skip
    raw = test_rows(run, rows)
    answers = ask(run, write_rows(tmp_path / "raw.csv", raw), batch_size=3)
    assert [answer["id"] for answer in answers] == [row["id"] for row in run.predictions]
    for answer, row in zip(answers, run.predictions, strict=True):
        assert answer["prediction"] == row["prediction"]
        confidence = answer["confidence"] if script is run_classification else answer["confidence"][-1]
        assert confidence == pytest.approx(row["confidence"], abs=1e-4)
    with pytest.raises(UserError, match=r"inputs\[0\] is a text alone.*`age`"):
        Predictor.from_pretrained(str(run.folder))(["a text"])


def test_a_summarizer_writes_the_summaries_of_its_evaluation(tiny_t5, tmp_path):
    rows = [row | {"dialogue": as_written(row["dialogue"], i)} for i, row in enumerate(toy_dialogues()[:30])]
    run = train(
        run_summarization, **COMMON, model_name_or_path=tiny_t5, output_dir=tmp_path / "run",
        train_file=write_rows(tmp_path / "visits.jsonl", rows), text_column="dialogue", summary_column="note",
        max_source_length=64, long_texts="chunks", max_new_tokens=8,
    )  # fmt: skip
    raw = test_rows(run, rows)
    assert all(row["dialogue"] != read["source"] for row, read in zip(raw, run.predictions, strict=True))
    answers = ask(run, write_rows(tmp_path / "raw.csv", raw), batch_size=2)
    for answer, row in zip(answers, run.predictions, strict=True):
        assert {key: answer[key] for key in ("id", "prediction", "finished", "cut")} == {
            key: row[key] for key in ("id", "prediction", "finished", "cut")
        }


def questions(n: int = 60) -> list[dict[str, Any]]:
    """Exam questions as rows with a context that some lack."""
    return [
        {
            "id": row["id"],
            "question": as_written(row["question"], i),
            "answer": row["options"][0],
            "note": None if i % 3 else as_written("seen in spring", i),
        }
        for i, row in enumerate(toy_exam()[:n])
    ]


def test_questions_get_the_answers_of_the_evaluation_with_and_without_a_context(tiny_llama, tmp_path):
    rows = questions()
    written = [{key: value for key, value in row.items() if value is not None} for row in rows]  # keys are left out
    run = train(
        run_qa_sft, **{**COMMON, "max_new_tokens": 6, "max_length": 256}, model_name_or_path=tiny_llama,
        output_dir=tmp_path / "run", train_file=write_rows(tmp_path / "qa.jsonl", written), question_column="question",
        answer_column="answer", context_column="note",
    )  # fmt: skip
    raw = test_rows(run, written)
    for name in ("raw.jsonl", "raw.csv"):
        table = [{key: row.get(key, "") for key in rows[0]} for row in raw] if name == "raw.csv" else raw
        for answer, row in zip(
            ask(run, write_rows(tmp_path / name, table), batch_size=3), run.predictions, strict=True
        ):
            assert (answer["id"], answer["prediction"], answer["finished"]) == tuple(
                row[key] for key in ("id", "prediction", "finished")
            )
            assert answer["confidence"] == pytest.approx(row["confidence"], abs=1e-4)


@pytest.mark.parametrize("form", ["columns", "json"])
def test_options_of_columns_and_of_json_are_chosen_among_as_in_the_evaluation(form, tiny_llama, tmp_path):
    names = ["opa", "opb", "opc", "opd"]
    rows = []
    for i, row in enumerate(toy_exam()):
        options = [as_written(text, i + n) for n, text in enumerate(row["options"])]
        options[3] = "" if i % 4 == 0 else options[3]  # some questions have three options
        split = dict(zip(names, options, strict=True)) if form == "columns" else {"options": json.dumps(options)}
        rows.append({"id": row["id"], "question": as_written(row["question"], i), **split, "cop": i % 3})
    run = train(
        run_qa_sft, **{**COMMON, "max_new_tokens": 3, "max_length": 256}, model_name_or_path=tiny_llama,
        output_dir=tmp_path / "run", train_file=write_rows(tmp_path / "exam.csv", rows), question_column="question",
        options_column=names if form == "columns" else "options", answer_index_column="cop",
    )  # fmt: skip
    raw = test_rows(run, rows)
    answers = ask(run, write_rows(tmp_path / "raw.csv", raw), batch_size=3)
    scores = load_outputs(run.folder)["outputs"]["test"]["option_scores"][:, :, 0]
    for answer, own, row in zip(answers, scores, raw, strict=True):
        assert answer["option"] == own.argmax() and len(answer["probabilities"]) == 3 + (int(row["id"][1:]) % 4 > 0)
        likely = np.exp(own - own.max())[: len(answer["probabilities"])]
        assert answer["probabilities"] == pytest.approx(likely / likely.sum(), abs=1e-4)

    # A row without options is answered in words, and the others keep theirs
    mixed = [raw[0], {"id": "free", "question": "What is gout?"}, *raw[1:]]
    found = ask(run, write_rows(tmp_path / "mixed.jsonl", mixed), batch_size=3)
    assert [answer["id"] for answer in found] == [row["id"] for row in mixed] and "option" not in found[1]
    for answer, before in zip([found[0], *found[2:]], answers, strict=True):
        assert answer["option"] == before["option"]
        assert answer["probabilities"] == pytest.approx(before["probabilities"], abs=1e-4)
