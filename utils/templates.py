"""Fill the templates of a recipe with a row, the same for training, evaluation and serving."""

from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from datasets import Dataset

from utils.arguments import UserError
from utils.control_tokens import plain_text
from utils.data.columns import Columns

TARGETS = ("answer", "answer_index", "parent", "label", "summary")  # roles that the model has to predict


def format_options(options: Sequence[str]) -> str:
    """Format options as lines `A. ...`, `B. ...`, as lm-evaluation-harness does for multiple choice."""
    return "\n".join(option_answers(options))


def option_answers(options: Sequence[str]) -> list[str]:
    """Return the answer for each option: its letter and its text."""
    return [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]


def fill_template(
    template: str, columns: Mapping[str, str | None], row: Mapping[str, Any], key: str = "prompt_template"
) -> str:
    """Fill a prompt or text template with a row.

    Args:
        template: text with names in braces: roles of `columns`, or other columns of the row.
        columns: the row's column for each role, e.g. `{"question": "input", "context": None}`.
        row: one row; a missing context becomes an empty string.
        key: the template's key in the recipe, for error messages.

    Raises:
        UserError: a name in braces is neither a role nor a column, or braces are unbalanced.
    """
    hidden = {columns.get(role) for role in TARGETS}  # a prompt must not reveal the answer
    fields = {name: v for name, v in row.items() if isinstance(v, str | int | float) and name not in hidden}
    for role in columns.keys() - set(TARGETS):
        column = columns[role]
        value = row.get(column) if column else None
        fields[role] = format_options(value) if isinstance(value, list | tuple) else value or ""
    fields = {name: plain_text(value) if isinstance(value, str) else value for name, value in fields.items()}
    try:
        return template.format_map(fields).strip()
    except KeyError as error:
        raise UserError(
            f"`{key}` names {{{error.args[0]}}}, which is not a column: use {', '.join(sorted(fields))}, or add "
            "the column to `keep_columns`."
        ) from error
    except (ValueError, IndexError) as error:
        raise UserError(f"`{key}` is not a valid template ({error}): double each literal brace.") from error


def check_adapted(
    write: Callable[[Mapping[str, Any]], Any],
    task: Mapping[str, Any],
    rows: Dataset,
    key: str = "prompt_template",
    read: Callable[[Mapping[str, Any], Mapping[str, Any]], Any] | None = None,
) -> None:
    """Check on the first 100 rows that a script's function under ADAPT HERE writes what `task.json` stores.

    Args:
        write: the function, from a row to what the model reads.
        task: `columns`, `raw_columns`, and the template under `key`.
        rows: training rows.
        key: the template's key in the recipe.
        read: what `predict.py` makes of a row and the task; None is the filled template.

    Raises:
        UserError: the two differ: `predict.py` knows only `task.json`.
    """
    served = Columns.from_dict(task["raw_columns"]).read
    for row in rows.select(range(min(100, len(rows)))):
        own = {name: row[name] for name in served}  # a group or a parent class is not there when the model is used
        known = read(own, task) if read else fill_template(task[key], task["columns"], own, key)
        if write(row) != known:
            raise UserError(
                f"the function under ADAPT HERE does not match `{key}`, the only template that predict.py knows: move "
                f"the change to `{key}`, and list the columns it needs in `keep_columns`."
            )
