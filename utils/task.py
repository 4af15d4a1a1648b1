"""`task.json` for serving: its names in earlier versions, and the row that a model reads for an input."""

import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from utils.arguments import UserError
from utils.data.cleaning import clean_text, read_text
from utils.data.columns import Columns
from utils.data.rows import read_row, written_options
from utils.hub import why_not_loaded
from utils.json_files import TASK_VERSION, read_yaml


def find_run(model: str, revision: str | None = None) -> Path:
    """Return the folder of a run, with all its files but the plots.

    Args:
        model: folder or Hub id.
        revision: commit, tag or branch on the Hub.

    Raises:
        UserError: `model` is neither a folder nor a repository of a finished run.
    """
    try:
        folder = Path(model)
        if not folder.is_dir():
            folder = Path(snapshot_download(model, revision=revision, ignore_patterns=["plots/*"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = why_not_loaded(error)
        raise UserError(f"`model` {model} is neither a folder nor a repository that can be read: {reason}") from error
    if not (folder / "task.json").exists():
        raise UserError(f"`model` {model} has no task.json: give the `output_dir` of a finished run.")
    return folder


def load_task(folder: Path) -> dict[str, Any]:
    """Return the `task.json` of a run with the names of this version, and with the calibration that is left to do.

    Raises:
        UserError: a newer version has written it.
    """
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    if (version := task.get("version", 1)) > TASK_VERSION:
        raise UserError(
            f"{folder}/task.json has version {version}, and this code reads up to {TASK_VERSION}: update it."
        )
    task = upgrade_task(task, read_yaml(folder / "recipe.yaml"))
    if task.get("beyond_weights") == []:  # the last layer is divided by the temperature
        task |= {"temperature": 1.0, "head_temperature": task["temperature"]}
    return task


def upgrade_task(task: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `task.json` of an earlier version with the current names.

    Args:
        task: the content of the file.
        recipe: `recipe.yaml` of the run, which knows how its rows were read; {} without one.
    """
    task = {{"blend": "ensemble", "max_windows": "max_chunks"}.get(key, key): value for key, value in task.items()}
    if task.get("long_texts") == "windows":
        task["long_texts"] = "chunks"
    if "columns" in task and "raw_columns" not in task:
        roles = task["columns"]
        columns = Columns(
            input=roles.get("question") or roles["text"],
            optional=(roles["context"],) if roles.get("context") else (),
            lists=tuple(recipe.get("options_column") or ([roles["options"]] if roles.get("options") else [])),
            kept=tuple(recipe.get("keep_columns") or sorted(template_names(task) - roles.keys())),
            lowercase=bool(recipe.get("lowercase", False)),
        )
        task["raw_columns"] = columns.to_dict()
    return task


def template_names(task: Mapping[str, Any]) -> set[str]:
    """Return the names in braces of the template of a task."""
    template = task.get("prompt_template") or task.get("text_template") or ""
    return {re.split(r"[.\[]", name)[0] for _, name, _, _ in string.Formatter().parse(template) if name}


def read_input(row: str | Mapping[str, Any], task: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a text or a raw row as the row that the model reads, as training read it, and with options their places
    as written, as `_places`.

    A missing optional column (a context, options) is an empty one. For a model that reads several columns, a text
    alone is their joined texts.

    Args:
        row: a text (a question), or a row as a file gives it.
        task: the content of `task.json`.
        where: file and row, for error messages.

    Raises:
        UserError: the text is missing or empty, a column that the template names is missing, or a value has the wrong
            type; names the row and the column.
    """
    columns = Columns.from_dict(task["raw_columns"])
    raw = {columns.input: row} if isinstance(row, str) else row
    named = [name for name in columns.kept if name in template_names(task)]
    missing = [name for name in (*(() if columns.input in raw else columns.parts), *named) if name not in raw]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        found = "is a text alone" if isinstance(row, str) else f"has only {', '.join(raw)}"
        raise UserError(f"{where} {found}, and this model reads the columns {names}, too: give a row with them.")
    values = read_row(raw, columns, where)
    if not values[columns.input]:
        if columns.input not in raw:
            raise UserError(f"{where}: `{columns.input}` is no column, it has {', '.join(raw) or 'none'}: rename one.")
        raise UserError(f"{where}: `{columns.input}` is empty: fill or delete the row.")
    if columns.options:
        if len(values[columns.options]) == 1:
            raise UserError(f"{where}: `{columns.options}` has one option: give two or more, or none.")
        values["_places"] = option_places(raw, columns, where)
    return values


def option_places(row: Mapping[str, Any], columns: Columns, where: str) -> list[int]:
    """Return the place among all options as written of each option of `read_row`, which has no blank ones."""
    written = written_options(row, columns, where).values()
    return [place for place, value in enumerate(written) if clean_text(read_text(value, str(columns.options), where))]
