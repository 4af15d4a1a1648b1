"""Read the rows of a file for a finished model, one by one, and put them into batches."""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from utils.arguments import UserError
from utils.data.cleaning import read_kept
from utils.data.columns import Columns
from utils.data.files import read_table
from utils.data.shapes import FORMATS, OPTIONAL
from utils.data.sources import check_columns
from utils.task import read_input, template_names

logger = logging.getLogger(__name__)
WINDOW = 4  # batches whose rows are sorted by length, which saves padding


class Input(NamedTuple):
    """A row: where it stands, for errors; what the output repeats; what the model reads."""

    where: str
    repeated: dict[str, Any]
    row: dict[str, Any]


def read_raw(path: str, task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each row of a file stands, and its values as written."""
    columns = Columns.from_dict(task["raw_columns"])
    named = [name for name in columns.kept if name in template_names(task)]
    used = [
        *columns.parts,
        *columns.inputs,
        *columns.lists,
        *([columns.options] if columns.options else []),
        *named,
        "id",
    ]
    if columns.has_turns:
        used += [*FORMATS[columns.dataset_format], *OPTIONAL.get(columns.dataset_format, ())]
    known, rows = read_table(path, used, Counter())
    texts = [] if columns.has_turns else columns.parts or [columns.input]
    check_columns([*texts, *named], known, path)
    # Objects of a jsonl may leave out what is empty
    empty = dict.fromkeys([*columns.parts, *named])
    return ((f"`{path}`, row {number}", empty | row) for number, row in rows)


def check_inputs(path: str, task: dict[str, Any]) -> int:
    """Read all rows and return their number. So nothing is computed for a file with a row that cannot be answered.

    Raises:
        UserError: a column is missing, or a row lacks its text or cannot be read; names the first such row.
    """
    columns = Columns.from_dict(task["raw_columns"])
    absent = set() if columns.has_turns else {*columns.optional, *columns.lists}
    fault, faults, rows = "", 0, 0
    for where, row in read_raw(path, task):
        rows += 1
        absent -= {*row, *(columns.lists if columns.options in row else ())}
        try:
            repeat_id(row, where)
            read_input(row, task, where)
        except UserError as error:
            fault, faults = fault or str(error), faults + 1
    if fault:
        raise UserError(fault + (f" {faults} rows have such faults." if faults > 1 else ""))
    if absent:
        names = ", ".join(f"`{name}`" for name in sorted(absent))
        logger.warning("`%s` has no column %s, which training had: it is read as empty", path, names)
    return rows


def repeat_id(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the id of a row, if it has one, as JSON has it: dates and decimals of parquet files as text."""
    if "id" not in row:
        return {}
    value = row["id"]
    return {"id": value if value is None or isinstance(value, str | int | float) else read_kept(value, "id", where)}


def make_batches(
    path: str, task: dict[str, Any], batch_size: int, rank: int, processes: int
) -> Iterator[dict[int, Input]]:
    """Yield the batches of a process, each as number -> row; a process numbers its rows from 0.

    Windows of a few batches go to the processes in turn. The rows of a window are sorted by length, longest first.
    """
    size = batch_size * WINDOW
    inputs = (
        Input(where, repeat_id(row, where), read_input(row, task, where))
        for place, (where, row) in enumerate(read_raw(path, task))
        if place // size % processes == rank
    )
    numbered = enumerate(inputs)
    while window := list(itertools.islice(numbered, size)):
        window.sort(key=lambda pair: -len(str(pair[1].row)))
        yield from (dict(window[start : start + batch_size]) for start in range(0, len(window), batch_size))


def own_rows(rows: int, batch_size: int, rank: int, processes: int) -> int:
    """Return how many of the rows are those of a process."""
    size = batch_size * WINDOW
    full, rest = divmod(rows, size * processes)
    return full * size + min(max(rest - rank * size, 0), size)
