"""Read rows one by one from files. Errors name the file and the row."""

import gzip
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from utils.arguments import UserError
from utils.data.delimited import read_delimited
from utils.data.encodings import find_encoding, open_bytes, read_lines

FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
HEAD_ROWS = 1000


def read_rows(
    path: str | Path, columns: Sequence[str] | None = None, counts: Counter[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a csv, tsv, jsonl, json (a list, or {"data": a list}) or parquet file, also gzipped (.gz).

    Values of csv and tsv stay strings: "None" and "NA" can be answers.

    Args:
        path: the file.
        columns: the columns that are used; None for all. Parquet reads no others.
        counts: incremented by what was guessed about a text file, see `read_delimited`.

    Yields:
        row number and values. For csv, tsv and jsonl the number is the row's first line (from 1; a header is line 1),
        for json and parquet the index (from 0).

    Raises:
        UserError: the file is missing, empty, damaged, or of another encoding or format; names the row.
    """
    path, counts = Path(path), Counter() if counts is None else counts
    kind = file_format(path)
    if path.is_dir() or not path.exists():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"`{path}` {found}: give the path to a {', '.join(FORMATS)} file, optionally with .gz.")
    if kind not in FORMATS:
        found = f"ends in `{kind}`" if kind else "has no ending"
        raise UserError(f"`{path}` {found}: use {', '.join(FORMATS)}, optionally with .gz.")
    number = None
    try:
        rows: Iterator[tuple[int, dict[str, Any]]]
        if kind == ".parquet":
            rows = _read_parquet(path, columns)
        elif kind in (".csv", ".tsv"):
            rows = read_delimited(path, "\t" if kind == ".tsv" else ",", columns, counts)
        else:
            rows = _read_jsonl(path, counts) if kind == ".jsonl" else _read_json(path, counts)
        for number, row in rows:
            yield number, row
    except (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowException) as error:
        raise UserError(f"`{path}` is damaged ({error}): copy or export it again.") from error
    except OSError as error:
        raise UserError(f"`{path}` cannot be read ({error.strerror or error}): check the file.") from error
    if number is None:
        raise UserError(f"`{path}` has no rows: give a file with at least one row.")


def file_format(path: str | Path) -> str:
    """Return the ending that says how to read a file, without `.gz`, in lower case."""
    return Path(re.sub(r"\.gz$", "", Path(path).name)).suffix.lower()


def read_table(
    path: str, columns: Sequence[str], counts: Counter[str]
) -> tuple[list[str], Iterator[tuple[int, dict[str, Any]]]]:
    """Return the names of all columns of a file, and its rows as from `read_rows`."""
    rows = read_rows(path, columns, counts)
    # Objects in a jsonl may omit empty columns: a column exists if one of the first rows has it.
    first = list(itertools.islice(rows, HEAD_ROWS))
    known = list(dict.fromkeys(column for _, row in first for column in row))
    if file_format(path) == ".parquet":  # its rows have only the columns that are used
        with open_bytes(Path(path)) as stream:
            known = pyarrow.parquet.ParquetFile(stream).schema_arrow.names
    return known, itertools.chain(first, rows)


def _read_jsonl(path: Path, counts: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path, find_encoding(path, counts)), 1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except ValueError as error:
                advice = "write one object per line, or let the name of a list end in .json"
                raise UserError(f"`{path}`, row {number} is not JSON ({error}): {advice}.") from error
            yield number, _check_object(row, path, number)


def _read_json(path: Path, counts: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    text = "".join(read_lines(path, find_encoding(path, counts)))
    try:
        rows = json.loads(text or "[]", object_pairs_hook=_object)
    except ValueError as error:
        advice = "correct it, or let the name of a file with one object per line end in .jsonl"
        raise UserError(f"`{path}` is not JSON ({error}): {advice}.") from error
    rows = rows.get("data") if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise UserError(f"`{path}` does not contain a list: write a list of objects, or {{'data': [...]}}.")
    for number, row in enumerate(rows):
        yield number, _check_object(row, path, number)


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_bytes(path) as stream:
        table = pyarrow.parquet.ParquetFile(stream)
        wanted = [name for name in table.schema_arrow.names if columns is None or name in columns]
        batches = table.iter_batches(batch_size=HEAD_ROWS, columns=wanted)
        yield from enumerate(row for batch in batches for row in batch.to_pylist())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, in which each key may stand once."""
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"`{twice[0]}` is in an object twice")
    return dict(pairs)


def _check_object(row: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"`{path}`, row {number} is a {type(row).__name__}: write an object, {{'column': value}}.")
    return row
