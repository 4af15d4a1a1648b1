"""Files and Hub data sets -> rows, one at a time. A mistake is named with the file and the row."""

import csv
import difflib
import gzip
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from utils.arguments import DataArguments, UserError

# The keys of `DataArguments` that belong to each split: file, Hub split, fraction, largest number of rows.
KEYS = {
    "train": ("train_file", "train_split_name", None, "max_train_samples"),
    "validation": ("validation_file", "validation_split_name", "validation_fraction", "max_eval_samples"),
    "test": ("test_file", "test_split_name", "test_fraction", "max_predict_samples"),
}
FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
HEAD_ROWS = 1000


def read_rows(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a csv, tsv, jsonl, json (a list, or {"data": a list}) or parquet file, or one of these ending in .gz.

    Values of csv and tsv stay text: "None" and "NA" are answers too.

    Args:
        path: the file, UTF-8 where it is text.
        columns: read no others, where the format allows it (parquet).

    Yields:
        the row's number and its values. The number is the line where the row begins for csv, tsv and jsonl (from 1,
        the header is line 1), the index (from 0) for json and parquet.

    Raises:
        UserError: the file is missing, empty, of another format, not UTF-8 or broken; names the row.
    """
    path = Path(path)
    kind = Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()
    if path.is_dir() or not path.exists():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"`{path}` {found}: give the path of a {', '.join(FORMATS)} file (.gz too).")
    if kind not in FORMATS:
        raise UserError(f"`{path}` ends in `{kind}`: allowed are {', '.join(FORMATS)}, each also with .gz.")
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
        raise UserError(f"`{path}` has no rows: give a file with at least one.")


def read_split(
    args: DataArguments,
    split: str,
    columns: Sequence[str],
    index_column: str | None,
    cache_dir: str,
    class_names: dict[str, list[str]],
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Read the rows of a split from its file or from the Hub, once the columns are known to exist.

    Args:
        args: where the rows are.
        split: train, validation or test; one that `args` gives.
        columns: what to read, beside `id`. Class labels become their names, -1 a missing one.
        index_column: the one whose class labels stay numbers.
        cache_dir: where a data set that is a local folder is converted, so that no copy stays in the cache.
        class_names: gets the names of each column of class labels, in the data set's order.

    Yields:
        file or data set, row number and values of each row.
    """
    file_key, name_key, *_ = KEYS[split]
    if args.train_file:
        name = getattr(args, file_key)
        # An object of a jsonl may leave out an empty column: a column exists if one of the first rows has it.
        known = dict.fromkeys(column for _, row in itertools.islice(read_rows(name), HEAD_ROWS) for column in row)
        rows = read_rows(name, [*columns, "id"])
    else:
        name = f"{args.dataset_name}[{getattr(args, name_key)}]"
        dataset = _load_hub(args, name_key, cache_dir)
        known = dataset.column_names or list(next(iter(dataset), {}))
        rows = enumerate(dataset.select_columns([column for column in known if column in (*columns, "id")]))
        # a ClassLabel is the one feature that has `int2str`
        classes = {k: f for k, f in (dataset.features or {}).items() if k in columns and hasattr(f, "int2str")}
        classes.pop(index_column, None)
        class_names |= {column: feature.names for column, feature in classes.items()}
        rows = ((n, row | {k: _class_name(f, row[k]) for k, f in classes.items()}) for n, row in rows)
    for column in columns:
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1, cutoff=0.6)
            advice = f"did you mean `{near[0]}`?" if near else "name one of these."
            has = ", ".join(f"`{name}`" for name in known)
            raise UserError(f"column `{column}` is not in `{name}`, which has {has}: {advice}")
    return ((name, number, row) for number, row in rows)


def _open(path: Path) -> IO[bytes]:
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
    csv.field_size_limit(2**31 - 1)  # of the whole process; the default of 131,072 is less than a long case report
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    header, begin = [], 1
    try:
        for values in reader:
            if values and not header:
                header = values
                if twice := [name for name, count in Counter(header).items() if count > 1]:
                    raise UserError(f"`{path}` has the column `{twice[0]}` twice in its header: rename one.")
            elif values and len(values) != len(header):
                found = f"has {len(values)} fields, the header has {len(header)}"
                raise UserError(f"`{path}`, row {begin} {found}: put quotes around a field that holds the separator.")
            elif values:
                yield begin, dict(zip(header, values, strict=True))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"`{path}`, row {begin} is broken ({error}): check its quotes.") from error


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"`{path}`, row {number} is not JSON ({error}): write one object a line.") from error
            yield number, _check_object(row, path, number)


def _read_json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = "".join(_lines(path))
    try:
        rows = json.loads(text or "[]")
    except ValueError as error:
        raise UserError(f"`{path}` is not JSON ({error}): one object a line goes in a .jsonl file.") from error
    rows = rows.get("data") if isinstance(rows, dict) else rows
    if not isinstance(rows, list):
        raise UserError(f"`{path}` holds no list: write a list of objects, or {{'data': [...]}}.")
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
    import datasets  # here, since predict.py reads files without it

    split, is_folder = getattr(args, name_key), Path(args.dataset_name).is_dir()
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
        key, advice = "dataset_name", "check name, connection and `hf auth login`, or use `train_file`"
        if re.search("(unknown|bad) split", str(error), re.IGNORECASE):
            key, advice = name_key, "choose one of these"
        found = f"`{key}` is `{getattr(args, key)}`"
        raise UserError(f"{found}, which does not load from `{args.dataset_name}`: {error}: {advice}.") from error


def _class_name(feature: Any, value: int | None) -> str | None:
    return None if value is None or value < 0 else feature.int2str(value)
