"""What the models said is kept whole and read back the same, and a run's files are written whole and readable."""

import csv
import io
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from utils.arguments import UserError
from utils.evaluation.outputs import ARRAYS, REST, load_outputs, prediction_files, save_outputs, write_results

DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64")
KEYS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda values: st.lists(values, max_size=3),
    max_leaves=6,
)  # fmt: skip
ANY_ARRAY = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NESTED = st.dictionaries(
    KEYS, st.recursive(ANY_ARRAY | JSON, lambda values: st.dictionaries(KEYS, values, max_size=3), max_leaves=8),
    max_size=4,
)  # fmt: skip


def save(folder: Path, **values: Any) -> None:
    (folder / "_private").mkdir(exist_ok=True)
    save_outputs(folder, **{"rows": {}, "outputs": {}, "measured": {}, "repo_id": None} | values)


def assert_same(found: Any, expected: Any) -> None:
    """Equal in every key, type, shape and value."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray) and found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
    else:
        assert type(found) is type(expected) and found == expected


# ----- Round trip


@settings(max_examples=100, deadline=None)
@given(rows=NESTED, outputs=NESTED, measured=NESTED, repo_id=st.none() | st.just("lab/model"))
def test_what_is_saved_is_loaded_the_same(rows, outputs, measured, repo_id):
    values = {"rows": rows, "outputs": outputs, "measured": measured, "repo_id": repo_id}
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), **values)
        assert_same(load_outputs(Path(folder)), values)


def test_outputs_of_a_run_come_back_with_their_types_and_in_their_order(tmp_path):
    outputs = {
        "validation": {"logits": np.eye(3, dtype=np.float32), "finished": [True, False, True]},
        "test": {"option_scores": np.array([[[-1.5, -np.inf], [np.nan, 0.0]]]), "prediction": ["Fieber \u2028", ""]},
        "baseline_b_test": {"prediction": np.array([2, 0, 1])},
        "baseline_a_test": {"prediction": np.array([1, 1, 1])},
    }
    rows = {"train": {"class_counts": np.array([5, 0, 7])}, "test": {"id": ["a", "b"], "cut": [False, True]}}
    save(tmp_path, rows=rows, outputs=outputs, measured={"train_runtime": 1.5, "none": None}, repo_id="lab/model")
    found = load_outputs(tmp_path)
    assert_same(found, {"rows": rows, "outputs": outputs, "measured": {"train_runtime": 1.5, "none": None},
                        "repo_id": "lab/model"})  # fmt: skip
    assert list(found["outputs"]) == list(outputs)  # a results file has the baselines in this order


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T, lambda a: a[:, ::2], lambda a: a[::-1], lambda a: np.asfortranarray(a), lambda a: a[1],
        lambda a: np.broadcast_to(a[0], (4, 6)), lambda a: a[:0], lambda a: a.sum(),
    ],
    ids=["transposed", "strided", "reversed", "fortran", "row", "broadcast", "empty", "a number"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_an_array_that_is_not_contiguous_keeps_its_values_and_shape(tmp_path, view, dtype):
    array = np.asarray(view(np.arange(24, dtype=dtype).reshape(4, 6)))
    save(tmp_path, outputs={"test": {"logits": array}})
    assert_same(load_outputs(tmp_path)["outputs"]["test"]["logits"], array)


def test_numbers_that_json_does_not_have_are_none_in_lists_and_kept_in_arrays(tmp_path):
    numbers = [1.0, math.nan, math.inf, -math.inf]
    save(
        tmp_path, measured={"list": numbers, "nan": math.nan, "nested": [[math.nan]]}, outputs={"a": np.array(numbers)}
    )
    found = load_outputs(tmp_path)
    assert found["measured"] == {"list": [1.0, None, None, None], "nan": None, "nested": [[None]]}
    np.testing.assert_array_equal(found["outputs"]["a"], numbers)
    json.loads((tmp_path / "_private" / REST).read_text(), parse_constant=pytest.fail)


def test_saving_again_replaces_everything_and_leaves_nothing_beside(tmp_path):
    save(tmp_path, outputs={"test": {"logits": np.zeros(3)}}, rows={"test": {"text": ["Jane Doe"]}})
    save(tmp_path, outputs={"validation": {"logits": np.ones(2)}})
    assert_same(load_outputs(tmp_path)["outputs"], {"validation": {"logits": np.ones(2)}})
    assert {path.name for path in (tmp_path / "_private").iterdir()} == {ARRAYS, REST}
    assert [path.name for path in tmp_path.iterdir()] == ["_private"]  # rows are nowhere else


def test_the_folder_for_what_is_private_is_made(tmp_path):
    save_outputs(tmp_path, {}, {}, {}, None)
    assert load_outputs(tmp_path) == {"rows": {}, "outputs": {}, "measured": {}, "repo_id": None}


# ----- What cannot be read


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


BREAKS = {
    "no folder": lambda private: [path.unlink() for path in private.iterdir()] and private.rmdir(),
    "no texts": lambda private: (private / REST).unlink(),
    "no arrays": lambda private: (private / ARRAYS).unlink(),
    "texts are a folder": lambda private: ((private / REST).unlink(), (private / REST).mkdir()),
    "texts are cut": lambda private: cut(private / REST),
    "texts are not UTF-8": lambda private: (private / REST).write_bytes(b'{"rows": "\xff"}'),
    "texts are of another kind": lambda private: (private / REST).write_text("[1]"),
    "texts are of another run": lambda private: (private / REST).write_text('{"rows": {}, "outputs": {}}'),
    "texts stand where arrays belong": lambda private: (private / REST).write_text('{"outputs": {"test": "Jane"}}'),
    "arrays are cut": lambda private: cut(private / ARRAYS),
    "arrays are empty": lambda private: (private / ARRAYS).write_bytes(b""),
    "arrays are something else": lambda private: (private / ARRAYS).write_bytes(b"not a tensor in sight"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_outputs_that_cannot_be_read_are_the_users_to_mend(tmp_path, kind):
    save(tmp_path, outputs={"test": {"logits": np.zeros((2, 3))}})
    BREAKS[kind](tmp_path / "_private")
    with pytest.raises(UserError) as caught:
        load_outputs(tmp_path)
    message = str(caught.value)
    assert f"`output_dir` {tmp_path}" in message and f"_private/{REST}" in message and f"_private/{ARRAYS}" in message
    assert "\n" not in message and "Jane" not in message


# ----- Files


def test_private_files_hold_every_prediction_and_each_error_with_its_patterns():
    columns = {"id": ["a", "b", "c"], "prediction": ["x\ny\0", "z", ""]}
    files = prediction_files(columns, {"empty": [2], "cut_off": [0, 2], "verbose": []})
    assert set(files) == {"_private/predictions_test.jsonl", "_private/error_examples.csv"}
    lines = files["_private/predictions_test.jsonl"].splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "a", "prediction": "x\ny\0"}, {"id": "b", "prediction": "z"}, {"id": "c", "prediction": ""}
    ]  # fmt: skip
    examples = list(csv.DictReader(io.StringIO(files["_private/error_examples.csv"], newline="")))
    assert [(row["patterns"], row["id"]) for row in examples] == [("cut_off", "a"), ("empty cut_off", "c")]
    assert examples[0]["prediction"] == "x\ny"


def test_without_rows_the_private_files_are_empty():
    files = prediction_files({"id": [], "prediction": []}, {"empty": []})
    assert list(files.values()) == ["", "patterns,id,prediction\r\n"]


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        prediction_files({"id": ["a", "b"], "prediction": ["x"]}, {})


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5), data=st.data())
def test_any_text_is_read_back_from_the_written_files_and_each_row_has_its_patterns(texts, data):
    rows = [{"id": str(i), "prediction": text} for i, text in enumerate(texts)]
    places = st.sets(st.sampled_from(range(len(rows))))
    patterns = {name: sorted(data.draw(places)) for name in ("empty", "other")}
    with tempfile.TemporaryDirectory() as folder:
        columns = {"id": [row["id"] for row in rows], "prediction": texts}
        write_results(Path(folder), {}, {}, prediction_files(columns, patterns))
        lines = (Path(folder) / "_private/predictions_test.jsonl").read_text(encoding="utf-8").split("\n")
        with (Path(folder) / "_private/error_examples.csv").open(encoding="utf-8", newline="") as stream:
            examples = list(csv.DictReader(stream))
    assert [json.loads(line) for line in lines[:-1]] == rows and lines[-1] == ""
    shown = {row["id"]: (row["patterns"].split(), row["prediction"]) for row in examples}
    assert shown == {
        row["id"]: (own, row["prediction"].replace("\0", ""))
        for i, row in enumerate(rows)
        if (own := [name for name, found in patterns.items() if i in found])
    }


def test_files_are_written_under_their_paths_to_the_byte_and_weights_can_be_read_by_all_who_read_them(
    tmp_path, monkeypatch
):
    (tmp_path / "adapter_model.safetensors").touch(mode=0o600)
    write_results(tmp_path, {"task": "qa"}, {"b": math.nan, "a": 1 / 3}, {"x.csv": "1\r\n", "_private/y.txt": "2\n"})
    assert json.loads((tmp_path / "task.json").read_text()) == {
        "task": "qa", "licenses": {"base_model": None, "data": None},
    }  # fmt: skip
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"b": None, "a": 1 / 3}
    monkeypatch.setattr("utils.evaluation.outputs.stated_licenses", lambda _: pytest.fail("asks the Hub again"))
    known = {"task": "qa", "licenses": {"base_model": "mit", "data": None}}
    write_results(tmp_path, known, {"b": math.nan, "a": 1 / 3}, {})
    assert json.loads((tmp_path / "task.json").read_text()) == known
    assert (tmp_path / "x.csv").read_bytes() == b"1\r\n" and (tmp_path / "_private" / "y.txt").read_bytes() == b"2\n"
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
