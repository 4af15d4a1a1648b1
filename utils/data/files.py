"""Read rows one by one from files and Hub data sets. Errors name the file and the row."""

import csv
import difflib
import gzip
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from utils.arguments import DataArguments, UserError

# Keys of `DataArguments` for each split: file, Hub split, fraction, maximum rows
KEYS = {
    "train": ("train_file", "train_split_name", "", "max_train_samples"),
    "validation": ("validation_file", "validation_split_name", "validation_fraction", "max_eval_samples"),
    "test": ("test_file", "test_split_name", "test_fraction", "max_predict_samples"),
}
FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
HEAD_ROWS = 1000


def read_rows(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a csv, tsv, jsonl, json (a list, or {"data": a list}) or parquet file, also gzipped (.gz).

    Values of csv and tsv stay strings: "None" and "NA" can be answers.

    Args:
        path: the file; text must be UTF-8.
        columns: read only these, if the format supports it (parquet).

    Yields:
        row number and values. For csv, tsv and jsonl the number is the row's first line (from 1; a header is line 1),
        for json and parquet the index (from 0).

    Raises:
        UserError: the file is missing, empty, damaged, not UTF-8 or of another format; names the row.
    """
    path = Path(path)
    kind = Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()
    if path.is_dir() or not path.exists():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"`{path}` {found}: give the path to a {', '.join(FORMATS)} file, optionally with .gz.")
    if kind not in FORMATS:
        raise UserError(f"`{path}` ends in `{kind}`: use {', '.join(FORMATS)}, optionally with .gz.")
    number = None
    try:
        if kind == ".parquet":
            rows = _read_parquet(path, columns)
        elif kind in (".csv", ".tsv"):
            rows = _read_csv(path, "\t" if kind == ".tsv" else ",")
        else:
            rows = _read_jsonl(path) if kind == ".jsonl" else _read_json(path)
        for number, row in rows:
            yield number, row
    except (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowException) as error:
        raise UserError(f"`{path}` is damaged ({error}): copy or export it again.") from error
    except OSError as error:
        raise UserError(f"`{path}` cannot be read ({error.strerror or error}): check the file.") from error
    if number is None:
        raise UserError(f"`{path}` has no rows: give a file with at least one row.")


def read_split(
    args: DataArguments,
    split: str,
    columns: Sequence[str],
    index_column: str | None,
    cache_dir: str,
    class_names: dict[str, list[str]],
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Read the rows of a split from its file or from the Hub, after checking that the columns exist.

    Args:
        args: source of the rows.
        split: train, validation or test; must be set in `args`.
        columns: columns to read besides `id`. Class labels become names; -1 counts as missing.
        index_column: column whose class labels stay numbers.
        cache_dir: cache for data sets in local folders, so that no copy stays in the shared cache.
        class_names: filled with the names of each class label column, in the data set's order.

    Yields:
        file or data set, row number and values of each row.
    """
    file_key, name_key, *_ = KEYS[split]
    if args.train_file:
        name = getattr(args, file_key)
        # Objects in a jsonl may omit empty columns: a column exists if one of the first rows has it.
        first = itertools.islice(read_rows(name), HEAD_ROWS)
        known = list(dict.fromkeys(column for _, row in first for column in row))
        rows = read_rows(name, [*columns, "id"])
    else:
        name = f"{args.dataset_name}[{getattr(args, name_key)}]"
        dataset = _load_hub(args, name_key, cache_dir)
        known = dataset.column_names or list(next(iter(dataset), {}))
        rows = enumerate(dataset.select_columns([column for column in known if column in (*columns, "id")]))
        # only ClassLabel features have `int2str`
        classes = {k: f for k, f in (dataset.features or {}).items() if k in columns and hasattr(f, "int2str")}
        classes.pop(index_column, None)
        class_names |= {column: feature.names for column, feature in classes.items()}
        rows = ((n, row | {k: _class_name(f, row[k]) for k, f in classes.items()}) for n, row in rows)
    for column in columns:
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1, cutoff=0.6)
            advice = f"did you mean `{near[0]}`?" if near else "choose one of these."
            has = ", ".join(f"`{name}`" for name in known)
            raise UserError(f"column `{column}` is not in `{name}`, which has {has}: {advice}")
    return ((name, number, row) for number, row in rows)


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _lines(path: Path) -> Iterator[str]:
    offset = 0
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                where = f"byte {offset + error.start}, line {number}"
                raise UserError(f"`{path}` is not UTF-8 ({where}): save it as UTF-8.") from error
            yield text.removeprefix("\ufeff") if number == 1 else text
            offset += len(line)


def _read_csv(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # process-wide; long case reports exceed the default of 131,072
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    header: list[str] = []
    begin = 1
    try:
        for values in reader:
            if values and not header:
                header = values
                if twice := [name for name, count in Counter(header).items() if count > 1]:
                    raise UserError(f"`{path}` has the column `{twice[0]}` twice in its header: rename one.")
            elif values and len(values) != len(header):
                found = f"has {len(values)} fields, the header has {len(header)}"
                raise UserError(f"`{path}`, row {begin} {found}: quote fields that contain the separator.")
            elif values:
                yield begin, dict(zip(header, values, strict=True))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"`{path}`, row {begin} is malformed ({error}): check its quotes.") from error


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"`{path}`, row {number} is not JSON ({error}): write one object per line.") from error
            yield number, _check_object(row, path, number)


def _read_json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = "".join(_lines(path))
    try:
        rows = json.loads(text or "[]")
    except ValueError as error:
        raise UserError(f"`{path}` is not JSON ({error}): use .jsonl for one object per line.") from error
    rows = rows.get("data") if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise UserError(f"`{path}` does not contain a list: write a list of objects, or {{'data': [...]}}.")
    for number, row in enumerate(rows):
        yield number, _check_object(row, path, number)


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open(path) as stream:
        table = pyarrow.parquet.ParquetFile(stream)
        wanted = [name for name in table.schema_arrow.names if columns is None or name in columns]
        batches = table.iter_batches(batch_size=HEAD_ROWS, columns=wanted)
        yield from enumerate(row for batch in batches for row in batch.to_pylist())


def _check_object(row: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"`{path}`, row {number} is a {type(row).__name__}: write an object, {{'column': value}}.")
    return row


def _load_hub(args: DataArguments, name_key: str, cache_dir: str) -> Any:
    import datasets  # imported here: predict.py reads files without it

    split, is_folder = getattr(args, name_key), Path(str(args.dataset_name)).is_dir()
    try:
        return datasets.load_dataset(
            args.dataset_name,
            args.dataset_config_name,
            revision=args.dataset_revision,
            split=split,
            streaming=args.streaming,
            cache_dir=cache_dir if is_folder else None,
        )
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        key, advice = "dataset_name", "check the name, the connection and `hf auth login`, or use `train_file`"
        if re.search("(unknown|bad) split", str(error), re.IGNORECASE):
            key, advice = name_key, "choose one of these"
        found = f"`{key}` is `{getattr(args, key)}`"
        raise UserError(f"{found}, which fails to load from `{args.dataset_name}`: {error}: {advice}.") from error


def _class_name(feature: Any, value: int | None) -> str | None:
    return None if value is None or value < 0 else feature.int2str(value)
