"""What the models of a run said of each row, kept so that its numbers can be made again without them.

A run writes three files to `_private/`, which is never pushed: `outputs.safetensors` (logits, likelihoods),
`outputs.json` (texts and row ids) and `predictions_test.jsonl`, to read.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from utils.arguments import UserError
from utils.json_files import finite, write_json, write_text
from utils.run import make_readable

ARRAYS, REST = "outputs.safetensors", "outputs.json"


def save_outputs(
    output_dir: Path,
    rows: Mapping[str, Any],
    outputs: Mapping[str, Any],
    measured: Mapping[str, Any],
    repo_id: str | None,
) -> None:
    """Write what `python -m utils.evaluation` needs to `_private/`.

    Args:
        output_dir: the run's folder.
        rows, outputs: what the task's `evaluate` takes: nested dicts of numpy arrays and JSON, no key with a slash.
        measured: results that only the run itself can know, such as its time.
        repo_id: the model's name on the Hub, for the card.
    """
    arrays: dict[str, np.ndarray] = {}
    rest = _take_arrays({"rows": rows, "outputs": outputs, "measured": measured, "repo_id": repo_id}, "", arrays)
    private = Path(output_dir) / "_private"
    private.mkdir(exist_ok=True)
    temporary = private / f".{ARRAYS}.tmp"
    save_file(arrays, temporary)
    temporary.replace(private / ARRAYS)
    write_text(private / REST, json.dumps(finite(rest), ensure_ascii=False, allow_nan=False) + "\n")


def load_outputs(output_dir: Path) -> dict[str, Any]:
    """Return what `save_outputs` wrote: `rows`, `outputs`, `measured` and `repo_id`.

    Raises:
        UserError: the folder holds no outputs, or they cannot be read.
    """
    private = Path(output_dir) / "_private"
    try:
        values = json.loads((private / REST).read_text(encoding="utf-8"))
        arrays = load_file(private / ARRAYS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"`output_dir` {output_dir} has no readable `_private/{REST}` and `_private/{ARRAYS}`: give the folder of "
            "a finished run."
        ) from error
    for path, array in arrays.items():
        *above, name = path.split("/")
        place = values
        for key in above:
            place = place[key]
        place[name] = array
    return values


def write_results(
    output_dir: Path, task: Mapping[str, Any], results: Mapping[str, Any], files: Mapping[str, str]
) -> None:
    """Write `task.json`, `all_results.json` and the texts of `files` under their paths in `output_dir`, and let every
    user of the machine who may read these read the weights, too."""
    output_dir = Path(output_dir)
    for name, text in files.items():
        (output_dir / name).parent.mkdir(exist_ok=True)
        write_text(output_dir / name, text)
    write_json(output_dir / "task.json", task)
    write_json(output_dir / "all_results.json", results)
    make_readable(output_dir)


def prediction_files(rows: Sequence[dict[str, Any]], patterns: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """The two files that hold text of data rows: `predictions_test.jsonl`, and the rows with an error in a csv.

    Args:
        rows: one dict a test row, with `id`.
        patterns: name of an error pattern -> the rows that show it.
    """
    of_row: list[list[str]] = [[] for _ in rows]
    for name, found in patterns.items():
        for i in found:
            of_row[i].append(name)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ["patterns", *rows[0]])
    writer.writeheader()
    for row, names in zip(rows, of_row, strict=True):
        if names:  # a model may generate NUL, which Python 3.10 cannot write to a csv
            cells = {name: str(value).replace("\0", "") for name, value in row.items()}
            writer.writerow({"patterns": " ".join(names), **cells})
    return {
        "_private/predictions_test.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "_private/error_examples.csv": stream.getvalue(),
    }


def _take_arrays(values: Mapping[str, Any], path: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A copy of nested dicts without their arrays, which go to `arrays` under their path."""
    rest: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, np.ndarray):
            arrays[f"{path}{key}"] = np.ascontiguousarray(value)
        else:
            rest[key] = _take_arrays(value, f"{path}{key}/", arrays) if isinstance(value, Mapping) else value
    return rest
