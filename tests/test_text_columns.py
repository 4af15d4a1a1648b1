"""A text of several columns, such as a pair: joined in the same way for training, predict.py and the app."""

import json
from collections import Counter

import pytest
from conftest import flags, read_jsonl, run_here, toy_notes, write_rows
from hypothesis import given
from hypothesis import strategies as st

import predict
import run_classification
from tests.serving.test_app import make_client, post
from utils.arguments import DataArguments, UserError, parse_recipe
from utils.data.cleaning import clean_text
from utils.data.columns import Columns
from utils.data.rows import clean_rows, read_row
from utils.encoding import EncoderArguments, text_columns
from utils.task import read_input

COLUMNS = Columns(input="joined_text", target="label", parts=("premise", "claim"), delimiter=" | ")
CELLS = st.one_of(st.text(max_size=8), st.sampled_from([None, "", "Mg  and mg", "\u200bCO", 7, "a | b"]))


@given(CELLS, CELLS)
def test_the_texts_are_cleaned_and_joined_the_same_for_training_and_serving(premise, claim):
    row, counts = {"premise": premise, "claim": claim, "label": "yes"}, Counter()
    args = DataArguments(min_input_words=0, drop_ambiguous=False)
    trained = list(clean_rows([("f.csv", 1, row)], "train", COLUMNS, args, counts))
    parts = [clean_text("" if value is None else str(value)) for value in (premise, claim)]
    served = read_row(row, COLUMNS, "row")["joined_text"]
    assert served == (" | ".join(parts) if any(parts) else "")
    assert [found["joined_text"] for found in trained] == ([served] if any(parts) else [])
    assert counts["rows_with_empty_parts"] == (any(parts) and not all(parts))
    assert counts["missing"] == (not any(parts))


def test_a_row_to_predict_has_all_columns_or_is_a_text_that_is_joined_already():
    task = {"raw_columns": COLUMNS.to_dict(), "text_template": "{text}"}
    assert read_input({"premise": "a", "claim": "b"}, task, "row 1")["joined_text"] == "a | b"
    assert read_input("a | b", task, "row 1")["joined_text"] == "a | b"
    with pytest.raises(UserError, match="row 1 has only premise.*`claim`"):
        read_input({"premise": "a"}, task, "row 1")


def test_one_column_is_read_as_it_is_and_needs_no_delimiter():
    one = text_columns(EncoderArguments(), DataArguments(), "label")
    assert (one.input, one.parts, one.given) == ("text", (), ["text", "label"])
    pair = text_columns(EncoderArguments(text_column=["a", "b"]), DataArguments(), "label")
    assert (pair.input, pair.parts, pair.given) == ("joined_text", ("a", "b"), ["a", "b", "label"])
    with pytest.raises(UserError, match="`text_column_delimiter`"):
        EncoderArguments(text_column=["a"], text_column_delimiter=";")


@pytest.mark.parametrize("line", ["text_column_names: note,history", "text_column: [note, history]"])
def test_a_recipe_names_several_columns_as_a_list_or_as_the_example_script_does(line, tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"{line}\nuse_cpu: true\n")
    encoder = parse_recipe(run_classification.ARGUMENTS, [str(tmp_path / "recipe.yaml")])[2]
    assert encoder.text_column == ["note", "history"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The notes in two columns; a note of its own is the same in many rows."""
    return [{"id": row["id"], "note": f"Case {n % 40}.", "history": row["note"], "ward": row["ward"]}
            for n, row in enumerate(toy_notes())]  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny_bert, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    argv = flags(
        model_name_or_path=tiny_bert, output_dir=folder / "run", train_file=write_rows(folder / "notes.jsonl", rows),
        text_column_names="note,history", text_column_delimiter="\n", label_column_name="ward", max_seq_length=32,
        use_cpu=True, max_steps=2, learning_rate=1e-3, near_duplicate_threshold=1.0, save_strategy="no",
        report_to="none",
    )  # fmt: skip
    done = run_here(run_classification.main, run_classification.ARGUMENTS, argv)
    assert done.code == 0, done.stderr
    return done


def test_a_run_on_two_columns_keeps_every_row_and_reads_both(run, rows):
    assert sum(run.results[f"{split}_rows"] for split in ("train", "validation", "test")) == len(rows)
    written = {row["id"]: f"{row['note']}\n{row['history']}" for row in rows}
    assert all(row["source"] == written[row["id"]] for row in run.predictions)


def test_predict_and_the_app_answer_as_the_evaluation_did(run, rows, tmp_path):
    expected = {row["id"]: row["prediction"] for row in run.predictions}
    asked = [{key: row[key] for key in ("id", "note", "history")} for row in rows if row["id"] in expected]
    source, target = write_rows(tmp_path / "in.csv", asked), tmp_path / "out.jsonl"
    args = predict.PredictArguments(model=str(run.folder), input_file=str(source), output_file=str(target))
    predict.main(args)
    answers = read_jsonl(target)
    assert {row["id"]: row["prediction"] for row in answers} == expected
    pairs = [{"note": row["note"], "history": row["history"]} for row in asked[:5]]
    joined = [f"{row['note']}\n{row['history']}" for row in asked[:5]]
    with make_client([str(run.folder)]) as client:
        found = [post(client, "/classify", texts=texts).json()["results"] for texts in (pairs, joined)]
        assert [row["prediction"] for row in found[0]] == [expected[row["id"]] for row in asked[:5]]
        assert found[0] == found[1]
        refused = post(client, "/classify", text={"note": "Case 1."})
        assert refused.status_code == 422 and "history" in json.dumps(refused.json())
