"""The model outputs of a run, saved so that its results can be recomputed without the models.

A run writes three files to `_private/`, which is never pushed: `outputs.safetensors` (logits, likelihoods),
`outputs.json` (texts and row ids) and, for people to read, `predictions_test.jsonl`.
"""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from utils.arguments import UserError
from utils.evaluation.licenses import stated_licenses
from utils.json_files import finite, write_json, write_text

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
        output_dir: folder of the run.
        rows, outputs: arguments of the task's `evaluate`: nested dicts of numpy arrays and JSON values, without
            slashes in their keys.
        measured: results that only the run itself can measure, such as its training time.
        repo_id: Hub id of the model, for the card.
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
    """Return the `rows`, `outputs`, `measured` and `repo_id` that `save_outputs` wrote.

    Raises:
        UserError: the files are missing or cannot be read.
    """
    private = Path(output_dir) / "_private"
    try:
        values = json.loads((private / REST).read_text(encoding="utf-8"))
        for path, array in load_file(private / ARRAYS).items():
            *parents, name = path.split("/")
            place = values
            for key in parents:
                place = place[key]
            place[name] = array
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:  # missing, incomplete, or of two runs
        raise UserError(
            f"`output_dir` {output_dir} has no readable `_private/{REST}` and `_private/{ARRAYS}`: give the folder of "
            "a finished run."
        ) from error
    return values


def write_results(
    output_dir: Path, task: Mapping[str, Any], results: Mapping[str, Any], files: Mapping[str, str]
) -> None:
    """Write `task.json`, with the `licenses` for the card, `all_results.json` and `files` (path in `output_dir` ->
    text).

    Every user of the machine who may read these files may then read the weights, too.
    """
    output_dir = Path(output_dir)
    for name, text in files.items():
        (output_dir / name).parent.mkdir(exist_ok=True)
        write_text(output_dir / name, text)
    licenses = {} if "licenses" in task else {"licenses": stated_licenses(task)}  # asks the Hub, so once
    write_json(output_dir / "task.json", licenses | dict(task))
    write_json(output_dir / "all_results.json", results)
    make_readable(output_dir)


def prediction_files(columns: Mapping[str, Sequence[Any]], patterns: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return the two files that contain texts of rows: all predictions as JSON Lines, and those with errors as CSV.

    Args:
        columns: name of a column -> its value for each test row.
        patterns: name of an error pattern -> indices of the rows that show it.
    """
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    shown: dict[int, list[str]] = {}
    for name, indices in patterns.items():
        for i in indices:
            shown.setdefault(i, []).append(name)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ["patterns", *columns])
    writer.writeheader()
    for i, names in sorted(shown.items()):
        # a model may generate NUL, which Python 3.10 cannot write to a CSV file
        cells = {name: str(value).replace("\0", "") for name, value in rows[i].items()}
        writer.writerow({"patterns": " ".join(names), **cells})
    return {
        "_private/predictions_test.jsonl": "".join(
            json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows
        ),
        "_private/error_examples.csv": stream.getvalue(),
    }


def _take_arrays(values: Mapping[str, Any], path: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return a copy of nested dicts without their arrays, and put these into `arrays` under their paths."""
    rest: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, np.ndarray):
            arrays[f"{path}{key}"] = np.asarray(value, order="C")
        else:
            rest[key] = _take_arrays(value, f"{path}{key}/", arrays) if isinstance(value, Mapping) else value
    return rest


def make_readable(folder: Path) -> None:
    """Give weights the default permissions: safetensors makes them readable by the owner only, not by other users
    of the disk or a container."""
    mask = os.umask(0)
    os.umask(mask)
    for path in Path(folder).glob("*.safetensors"):
        path.chmod(0o666 & ~mask)
