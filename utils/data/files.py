"""Read rows one by one from files, in any encoding that is certain and with any line end. Errors name the file and
the row."""

import codecs
import gzip
import itertools
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from utils.arguments import UserError
from utils.data.delimited import read_delimited
from utils.data.shapes import squad_questions

logger = logging.getLogger(__name__)

FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
HEAD_ROWS = 1000

# How a file begins that is no text
SIGNATURES = {
    b"PK\x03\x04": "an Excel workbook or a zip archive: export it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: export it as CSV UTF-8",
    b"\x1f\x8b": "a gzipped file: let its name end in .gz",
    b"PAR1": "a parquet file: let its name end in .parquet",
}
# UTF-32 first: its mark begins with that of UTF-16
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

# Windows-1252, the encoding of American and western European Windows, is taken only on evidence and without a doubt:
# charset-normalizer named a wrong encoding, and no doubt, for 6 of 23 short medical texts.
EVIDENCE = re.compile(  # an accent in a word, patient's, a temperature, micrograms, a dash, a quotation
    rb"[A-Za-z][\xc0-\xff]|[\xc0-\xff][A-Za-z]|[a-z]\x92(?:s|t|re|ll|ve|d|m)\b|\xb0 ?[CF]\b|\xb5[gmlLM]|[\d ]\x96[\d ]"
    rb"|\x93\w"
)
DOUBT = re.compile(
    rb"[\x81\x83\x86-\x8a\x8d-\x90\x98\x9a\x9d-\x9f\xd0\xdd\xde\xf0\xfd\xfe]"  # letters on a Mac, in DOS, in Turkish
    rb"|[\x80-\x9f\xa1-\xff]{3}"  # words in another script
    rb"|[\xc2\xc3][\x80-\xbf]"  # UTF-8 in a part of the file
    rb"|[a-z][\xc0-\xde]|\xf8 ?[CF]\b"  # a capital inside a word: a Mac's quotation marks; a temperature in DOS
    rb"|[A-Za-z\xc0-\xff](?:[\x82\x84]"  # a low quotation mark at the end of a word, or a symbol inside it
    rb"|[\x80\x85\x8b\x91\x93-\x95\x99\x9b\xa1-\xa9\xab\xac\xae-\xb4\xb6\xb8\xb9\xbb-\xbf][A-Za-z\xc0-\xff])"
)


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
        else:
            lines = partial(read_lines, path, find_encoding(path, counts))
            if kind in (".csv", ".tsv"):
                rows = read_delimited(path, lines, "\t" if kind == ".tsv" else ",", columns, counts)
            else:
                rows = _read_jsonl(path, lines()) if kind == ".jsonl" else _read_json(path, lines())
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
    return Path(re.sub(r"\.gz$", "", Path(path).name.lower())).suffix


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


def _read_jsonl(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        text = line.strip("\ufeff \t\r\n")  # files that are put together have byte order marks inside
        if text:
            try:
                row = json.loads(text, object_pairs_hook=_object)
            except ValueError as error:
                advice = "write one object per line, or let the name of a list end in .json"
                raise UserError(f"`{path}`, row {number} is not JSON ({error}): {advice}.") from error
            yield number, _check_object(row, path, number)


def _read_json(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows = json.loads("".join(lines) or "[]", object_pairs_hook=_object)
    except ValueError as error:
        advice = "correct it, or let the name of a file with one object per line end in .jsonl"
        raise UserError(f"`{path}` is not JSON ({error}): {advice}.") from error
    rows = rows.get("data") if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise UserError(f"`{path}` does not contain a list: write a list of objects, or {{'data': [...]}}.")
    for number, row in enumerate(squad_questions(rows)):
        yield number, _check_object(row, path, number)


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_bytes(path) as stream:
        table = pyarrow.parquet.ParquetFile(stream)
        wanted = [name for name in table.schema_arrow.names if columns is None or name in columns]
        if twice := [name for name, count in Counter(wanted).items() if count > 1]:
            raise UserError(f"`{path}` has the column `{twice[0]}` twice: rename one.")
        batches = table.iter_batches(batch_size=HEAD_ROWS, columns=wanted)
        try:
            yield from enumerate(row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))
        except KeyError as error:
            raise UserError(f"`{path}` has a map with the same key twice: delete one in each row.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, in which each key may stand once."""
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"`{twice[0]}` is in an object twice")
    return dict(pairs)


def _check_object(row: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"`{path}`, row {number} is a {type(row).__name__}: write an object, {{'column': value}}.")
    return row


# ----- Encodings


def open_bytes(path: Path) -> gzip.GzipFile | BufferedReader:
    """Open a file, also a gzipped one."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def find_encoding(path: Path, counts: Counter[str]) -> str:
    """Return the encoding of a text file: UTF-8, UTF-16, UTF-32, or Windows-1252 where nothing speaks against it.

    Increments `guessed_encodings` where neither a byte order mark nor UTF-8 decides. UserError for any other encoding.
    """
    with open_bytes(path) as stream:
        start = stream.read(4)
    for mark, what in SIGNATURES.items():
        if start.startswith(mark):
            raise UserError(f"`{path}` is {what}.")
    for mark, name in MARKS.items():
        if start.startswith(mark):
            return name
    # The first two characters of a table or of JSON are ASCII (RFC 4627, section 3)
    zeros = "".join("0" if byte == 0 else "x" for byte in start)
    guess = {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros)
    if not guess:
        if not (where := _first_error(path)):
            return "utf-8-sig"
        if not _is_windows_1252(path):
            raise UserError(f"`{path}` is not UTF-8 ({where}): save it as UTF-8 (in Excel: CSV UTF-8).")
        guess = "cp1252"
    counts["guessed_encodings"] += 1
    logger.warning("`%s` is not UTF-8 and is read as %s: save it as UTF-8 to be sure of all letters", path, guess)
    return guess


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a text file with their ends: LF, CR LF, or CR as old Macs write."""
    # Not `splitlines`: a text may hold U+2028 and other characters that end a line there
    with open_bytes(path) as stream, TextIOWrapper(stream, encoding, newline="") as text:  # type: ignore[type-var]
        try:
            for number, line in enumerate(text):
                yield line if number else line.lstrip("\ufeff")  # one mark is removed with the encoding
        except UnicodeError as error:
            raise UserError(f"`{path}` begins as {encoding} and goes on otherwise: save it as UTF-8.") from error


def _first_error(path: Path) -> str:
    """Return where a file is not UTF-8, or ''."""
    offset = 0
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"byte {offset + error.start}, line {number}"
            offset += len(line)
    return ""


def _is_windows_1252(path: Path) -> bool:
    evidence = False
    with open_bytes(path) as stream:
        for line in stream:
            if DOUBT.search(line):
                return False
            evidence = evidence or bool(EVIDENCE.search(line))
    return evidence
