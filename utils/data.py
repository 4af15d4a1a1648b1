"""Data files or Hub data sets -> clean, de-duplicated splits that share no cluster, and a report of every step.

    python -m utils.data --train_file notes.csv --text_column note --label_column ward --output_dir clean

writes train.jsonl, validation.jsonl and test.jsonl and prints the report as JSON.
"""

import atexit
import csv
import datetime
import decimal
import difflib
import gzip
import hashlib
import itertools
import json
import math
import re
import shutil
import sys
import tempfile
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from datasets.arrow_writer import ArrowWriter
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from utils.arguments import DataArguments, UserError, parse_recipe, user_errors
from utils.splits import fingerprint, join_clusters, near_duplicate_clusters, normalise, split_by_cluster

# The keys of `DataArguments` that belong to each split: file, Hub split, fraction, largest number of rows.
KEYS = {
    "train": ("train_file", "train_split_name", None, "max_train_samples"),
    "validation": ("validation_file", "validation_split_name", "validation_fraction", "max_eval_samples"),
    "test": ("test_file", "test_split_name", "test_fraction", "max_predict_samples"),
}
FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
REASONS = ("missing", "short", "ambiguous", "duplicate", "unlabelled", "leaks")
# Control, zero-width and direction characters, half surrogates, private use (icons of PDF fonts), U+FFFD. Line breaks
# of any kind stay for the white space step.
STRAY = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd"
    "\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e007f\U000f0000-\U0010ffff]"
)
# Without "+": "++++" is a grade of protein in urine.
PUNCTUATION_RUN = re.compile(r"([-.,;:!?*#_~=|/\\'\"()&\u2022\u2026\u2013\u2014])\1{3,}")
FUNCTION_WORDS = ENGLISH_STOP_WORDS | {"does", "did"}
HEAD_ROWS = 1000


# ----- Files -> rows


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


# ----- A row -> a clean row


def clean_text(text: str) -> str:
    """Remove what is no text: stray symbols (`clean_symbols`), then white space (`clean_whitespace`).

    Cleaning twice changes nothing more. Units, signs and figures stay as they are.
    """
    return clean_whitespace(clean_symbols(text))


def clean_symbols(text: str) -> str:
    """Drop control, zero-width, private use and U+FFFD characters; compose accents; cut runs of four or more of the
    same punctuation mark to one ("..." stays)."""
    # NFC, not NFKC, which would turn ten squared (superscript 2) into 102.
    return PUNCTUATION_RUN.sub(r"\1", unicodedata.normalize("NFC", STRAY.sub("", text)))


def clean_whitespace(text: str) -> str:
    """One space for spaces, tabs and their like; lines stripped, empty lines dropped, line breaks (turns of a
    dialogue) kept."""
    lines = (" ".join(line.split()) for line in re.split("\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]", text))
    return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class Columns:
    """The part that each column plays. `lists` is one column of lists, or one column for each option."""

    input: str
    target: str | None
    optional: tuple[str, ...]
    lists: tuple[str, ...]
    index: str | None
    kept: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        return [self.input, *([self.target] if self.target else []), *self.optional]

    @property
    def options(self) -> str | None:
        return "options" if len(self.lists) > 1 else self.lists[0] if self.lists else None


def clean_row(
    row: dict[str, Any], where: str, columns: Columns, args: DataArguments, lowercase: Sequence[str], counts: Counter
) -> dict[str, Any] | None:
    """One row with its columns cleaned, or None and the reason counted in `counts`.

    Raises:
        UserError: a value of the wrong type, or an answer index outside the options; begins with `where`.
    """
    values = {name: _as_text(row.get(name), name, where) for name in columns.texts}
    options = []
    if len(columns.lists) == 1:
        options = _as_list(row.get(columns.lists[0]), columns.lists[0], where)
    elif columns.lists:
        options = [_as_text(row.get(name), name, where) for name in columns.lists]
    raw = [*values.values(), *options]
    symbols = [clean_symbols(text) for text in raw]
    clean = [clean_whitespace(text) for text in symbols]
    values = dict(zip(values, clean, strict=False))
    options = clean[len(values) :]
    # Off by default: it makes Mg (magnesium) of mg, PH of pH, and loses brand names.
    values = {name: text.lower() if name in lowercase else text for name, text in values.items()}
    options = [text.lower() for text in options] if args.lowercase else options

    index = _as_text(row.get(columns.index), columns.index, where).strip() if columns.index else ""
    required = [columns.input, *([columns.target] if columns.target else [])]
    reason = None
    if index == "-1":  # how MedMCQA and others mark rows whose answer is held back
        reason = "unlabelled"
    elif not all(values[name] for name in required) or (columns.index and not index):
        reason = "missing"
    elif columns.lists and not (options and all(options)):
        reason = "missing"
    elif len(values[columns.input].split()) < args.min_input_words:
        reason = "short"
    elif columns.target and len(values[columns.target].split()) < args.min_target_words:
        reason = "short"
    elif args.drop_ambiguous and not options and not any(values[name] for name in columns.optional):
        reason = "ambiguous" if _is_ambiguous(values[columns.input]) else None
    if reason:
        counts[reason] += 1
        return None

    if columns.options:
        values[columns.options] = options
    if columns.index:
        if not index.removesuffix(".0").isdecimal() or int(float(index)) >= len(options):
            allowed = f"allowed are 0 to {len(options) - 1}, the place of the right option counted from 0"
            raise UserError(f"{where}: `{columns.index}` is `{index}`: {allowed}.")
        values[columns.index] = int(float(index))
    counts["symbols"] += symbols != raw
    counts["whitespace"] += clean != symbols
    return values | {name: _as_kept(row.get(name), name, where) for name in columns.kept}


def _as_text(value: Any, column: str, where: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # parquet writes NaN
        return ""
    if not isinstance(value, (str, bool, int, float, decimal.Decimal, datetime.date)):
        raise UserError(f"{where}: `{column}` is a {type(value).__name__}: text or a number is allowed.")
    return str(value)


def _as_list(value: Any, column: str, where: str) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):  # csv has no lists
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if not isinstance(value, list) or len(value) < 2:
        found = f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
        raise UserError(f"{where}: `{column}` is {found}: a list of two or more texts is allowed (JSON in a csv).")
    return [_as_text(option, column, where) for option in value]


def _as_kept(value: Any, column: str, where: str) -> str:
    text = json.dumps(value, default=str) if isinstance(value, (list, dict)) else _as_text(value, column, where)
    return text.encode(errors="ignore").decode()  # Arrow refuses half surrogates


def _is_ambiguous(text: str) -> bool:
    words = re.findall(r"\w+", re.sub(r"['\u2019]\w+", "", text))
    # CO, US or IT in capitals is no function word.
    return all(word.lower() in FUNCTION_WORDS and (len(word) == 1 or not word.isupper()) for word in words)


# ----- Rows -> splits


def load_splits(
    args: DataArguments,
    *,
    input_column: str,
    target_column: str | None,
    optional_columns: Sequence[str] = (),
    list_columns: Sequence[str] = (),
    index_column: str | None = None,
    cluster_columns: Sequence[str],
    stratify_column: str | None = None,
    seed: int,
) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """Read, clean, de-duplicate and split; the splits `train`, `validation` and `test` share no cluster.

    A split that is given is kept; rows of train (and of validation) with a twin in a later given split are dropped
    from it. A split that is not given is cut from train in whole clusters. Clusters are near-duplicates of the
    `cluster_columns`, joined with equal input (and optional columns) and with `group_column`. The rows lie in a
    temporary folder that goes when the process ends, not in a cache: nothing stale is read, no patient's text stays.

    Args:
        args: where the rows are and how to clean and split them.
        input_column, target_column: the text that goes in and the text or label that comes out; both required in
            a row, or it is dropped as missing.
        optional_columns: further text, may be empty in a row.
        list_columns: one column of lists of options, or two or more columns with an option each.
        index_column: place of the right option, from 0; -1 drops the row as unlabelled.
        cluster_columns: which of the columns above are compared for near-duplicates.
        stratify_column: labels whose shares the cut splits keep; not lower-cased.
        seed: of the split, the samples and the MinHash.

    Returns:
        the splits, with the columns `id` (the file's, or "<split>-<row number>"), the columns named above (text,
        stripped), the options as a list under their column's name or `options` for several, the index as int,
        `group_column` and `keep_columns` as text, and `cluster` (int); and the report for all_results.json: counts
        over all splits as `data_*`, `<split>_rows` and `<split>_sha256` (of the rows without `id` and `cluster`).

    Raises:
        UserError: for every mistake in arguments, files, columns and rows, and for a split without rows.
    """
    given = _check(args)
    names = [input_column, target_column, *optional_columns, *list_columns, index_column]
    names = [name for name in names if name]
    if twice := [name for name, count in Counter(names).items() if count > 1 or name in ("id", "cluster")]:
        raise UserError(
            f"column `{twice[0]}` cannot be used here: give each column one part, and none to id, cluster."
        )
    extra = [args.group_column, *(args.keep_columns or ()), stratify_column, *cluster_columns]
    made = ["options"] if len(list_columns) > 1 else []
    kept = dict.fromkeys(name for name in extra if name and name not in (*names, *made, "id"))
    columns = Columns(
        input_column, target_column, tuple(optional_columns), tuple(list_columns), index_column, tuple(kept)
    )
    needed = list(dict.fromkeys([*names, *(name for name in extra if name and name not in made)]))

    folder = tempfile.mkdtemp(prefix="rows-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    counts = {split: Counter() for split in KEYS}
    tables, input_keys, targets = {}, [], defaultdict(Counter)
    for split in given:
        rows = _source(args, split, folder, needed, index_column)
        limit = getattr(args, KEYS[split][3]) if args.streaming else None
        rows = _clean_rows(rows, split, columns, args, stratify_column, counts[split])
        tables[split] = _write(itertools.islice(rows, limit), columns, f"{folder}/{split}.arrow", input_keys, targets)
        if not len(tables[split]):
            raise UserError(_empty_message(split, counts[split]))

    texts = (
        " ".join(" ".join(text) if isinstance(text, list) else text for text in row.values())
        for table in tables.values()
        for row in table.select_columns(list(cluster_columns))
    )
    near = near_duplicate_clusters(texts, args.near_duplicate_threshold, seed)
    groups = [None] * len(near)
    if args.group_column:
        groups = [value.strip() or None for table in tables.values() for value in table[args.group_column]]
    clusters = join_clusters(near, input_keys, groups)
    pieces = _split(tables, clusters, args, stratify_column, seed, counts)

    total = sum(counts.values(), Counter())
    near_sizes = Counter(near)
    conflicts = [found for found in targets.values() if len(found) > 1]
    report = {"data_rows_read": total["read"]}
    report |= {f"data_dropped_{reason}": total[reason] for reason in REASONS}
    report |= {
        "data_changed_symbols": total["symbols"],
        "data_changed_whitespace": total["whitespace"],
        "data_clusters": len(set(clusters)),
        "data_near_duplicate_rows": sum(size for size in near_sizes.values() if size > 1),
        "data_conflicting_inputs": len(conflicts),
        "data_conflicting_rows": sum(found.total() for found in conflicts),
    }
    for number, (split, piece) in enumerate(pieces.items()):
        if not len(piece):
            raise UserError(_empty_message(split, counts["train"] if split not in given else counts[split]))
        limit = getattr(args, KEYS[split][3])
        if limit and limit < len(piece):
            rows = np.random.default_rng([seed, number]).choice(len(piece), limit, replace=False)
            pieces[split] = piece = piece.select(np.sort(rows))
        report[f"{split}_rows"] = len(piece)
        report[f"{split}_sha256"] = fingerprint(piece.remove_columns(["id", "cluster"]))
    return datasets.DatasetDict(pieces), report


def _check(args: DataArguments) -> list[str]:
    """The splits that the user gives. UserError for arguments that cannot be."""
    if bool(args.dataset_name) == bool(args.train_file):
        found = "both are" if args.train_file else "neither is"
        raise UserError(f"`dataset_name` and `train_file`: {found} given: give one of them.")
    given = ["train"]
    for split in ("validation", "test"):
        file_key, name_key, fraction_key, _ = KEYS[split]
        right, wrong = (name_key, file_key) if args.dataset_name else (file_key, name_key)
        if getattr(args, wrong):
            source = "dataset_name" if args.dataset_name else "train_file"
            raise UserError(f"`{wrong}` does not go with `{source}`: use `{right}`.")
        fraction = getattr(args, fraction_key)
        if getattr(args, right):
            given.append(split)
        elif not 0 < fraction < 1:
            raise UserError(f"`{fraction_key}` is {fraction}: give one between 0 and 1, or give `{right}`.")
    if len(given) == 1 and args.validation_fraction + args.test_fraction >= 1:
        found = f"{args.validation_fraction} + {args.test_fraction}"
        raise UserError(
            f"`validation_fraction` + `test_fraction` is {found}: below 1 is allowed, train gets the rest."
        )
    for *_, key in KEYS.values():
        if getattr(args, key) is not None and getattr(args, key) < 1:
            raise UserError(f"`{key}` is {getattr(args, key)}: give 1 or more, or leave it out for all rows.")
    if args.streaming and args.max_train_samples is None:
        raise UserError("`streaming` is on without `max_train_samples`: say how many rows to read.")
    if not 0 < args.near_duplicate_threshold <= 1:
        found = args.near_duplicate_threshold
        raise UserError(f"`near_duplicate_threshold` is {found}: above 0 up to 1 is allowed (1 turns it off).")
    return given


def _source(
    args: DataArguments, split: str, folder: str, needed: list[str], index_column: str | None
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """File or data set, row number and values of each row of a split, once `needed` columns are known to exist."""
    file_key, name_key, *_ = KEYS[split]
    if args.train_file:
        name = getattr(args, file_key)
        # An object of a jsonl may leave out an empty column: a column exists if one of the first rows has it.
        head = itertools.islice(read_rows(name), HEAD_ROWS)
        known = dict.fromkeys(column for _, row in head for column in row)
        rows = read_rows(name, [*needed, "id"])
    else:
        name = f"{args.dataset_name}[{getattr(args, name_key)}]"
        dataset = _load_hub(args, name_key, folder)
        known = dataset.column_names or list(next(iter(dataset), {}))
        rows = enumerate(dataset.select_columns([column for column in known if column in (*needed, "id")]))
        # Integers of a ClassLabel become their names, -1 a missing label; an answer index stays a number.
        features = {k: v for k, v in (dataset.features or {}).items() if isinstance(v, datasets.ClassLabel)}
        features = {k: v for k, v in features.items() if k in needed and k != index_column}
        rows = ((n, row | {k: _label(v, row[k]) for k, v in features.items()}) for n, row in rows)
    for column in needed:
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1, cutoff=0.6)
            advice = f"did you mean `{near[0]}`?" if near else "name one of these."
            columns = ", ".join(f"`{name}`" for name in known)
            raise UserError(f"column `{column}` is not in `{name}`, which has {columns}: {advice}")
    return ((name, number, row) for number, row in rows)


def _load_hub(args: DataArguments, name_key: str, folder: str) -> datasets.Dataset | datasets.IterableDataset:
    # A local folder is not the Hub: no copy of it stays in the cache.
    cache = folder if Path(args.dataset_name).is_dir() else None
    split = getattr(args, name_key)
    try:
        return datasets.load_dataset(
            args.dataset_name,
            args.dataset_config_name,
            revision=args.dataset_revision,
            split=split,
            streaming=args.streaming,
            cache_dir=cache,
        )
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        is_split = re.search("(unknown|bad) split", str(error), re.IGNORECASE)
        key = name_key if is_split else "dataset_name"
        advice = (
            "choose one of these" if is_split else "check name, connection and `hf auth login`, or use `train_file`"
        )
        found = f"`{key}` is `{getattr(args, key)}`"
        raise UserError(f"{found}, which does not load from `{args.dataset_name}`: {error}: {advice}.") from error


def _label(feature: datasets.ClassLabel, value: int | None) -> str | None:
    return None if value is None or value < 0 else feature.int2str(value)


def _clean_rows(
    source: Iterable[tuple[str, int, dict[str, Any]]],
    split: str,
    columns: Columns,
    args: DataArguments,
    stratify_column: str | None,
    counts: Counter,
) -> Iterator[dict[str, Any]]:
    """The usable rows of a split, without exact duplicates."""
    lowercase = [name for name in columns.texts if args.lowercase and name != stratify_column]
    seen = set()
    for name, number, row in source:
        counts["read"] += 1
        where = f"`{name}`, row {number}"
        values = clean_row(row, where, columns, args, lowercase, counts)
        if values is None:
            continue
        digest = _digest([values[name] for name in values if name not in columns.kept])
        if digest in seen:
            counts["duplicate"] += 1
            continue
        seen.add(digest)
        yield {"id": _as_kept(row.get("id"), "id", where) or f"{split}-{number}"} | values


def _digest(values: list[Any]) -> bytes:
    """Equal for rows that differ in case and white space only. Punctuation counts: < 7 is not > 7."""
    text = "\0".join(map(str, values)).casefold()
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def _write(
    rows: Iterable[dict[str, Any]],
    columns: Columns,
    path: str,
    input_keys: list[bytes],
    targets: dict[bytes, Counter],
) -> datasets.Dataset:
    """Stream rows into an Arrow file, memory-mapped on return. Appends one input key a row to `input_keys`, and
    counts the targets of each question (input, optional columns and options) in `targets`."""
    features = {name: datasets.Value("string") for name in ("id", *columns.texts)}
    if columns.options:
        features[columns.options] = datasets.List(datasets.Value("string"))
    if columns.index:
        features[columns.index] = datasets.Value("int64")
    features |= {name: datasets.Value("string") for name in columns.kept}
    with ArrowWriter(path=path, features=datasets.Features(features)) as writer:
        for row in rows:
            writer.write(row)
            question = [row[name] for name in (columns.input, *columns.optional)]
            input_keys.append(_digest([normalise(text) for text in question]))
            answer = _digest([row[name] for name in (columns.target, columns.index) if name])
            targets[_digest([*question, row.get(columns.options)])][answer] += 1
        writer.finalize()
    return datasets.Dataset.from_file(path)


def _split(
    tables: dict[str, datasets.Dataset],
    clusters: list[int],
    args: DataArguments,
    stratify_column: str | None,
    seed: int,
    counts: dict[str, Counter],
) -> dict[str, datasets.Dataset]:
    """Drop the rows that leak into a later given split, then cut the missing splits from train."""
    numbers = iter(clusters)
    tables = {
        split: table.add_column("cluster", list(itertools.islice(numbers, len(table))))
        for split, table in tables.items()
    }
    taken: set[int] = set()
    for split in reversed(tables):
        own = tables[split]["cluster"][:]
        rows = [row for row, cluster in enumerate(own) if cluster not in taken]
        counts[split]["leaks"] = len(own) - len(rows)
        tables[split] = tables[split].select(rows)
        taken.update(own)
    missing = [split for split in KEYS if split not in tables]
    if missing:
        train = tables["train"]
        shares = {split: getattr(args, KEYS[split][2]) for split in missing}
        shares = {"train": 1 - sum(shares.values())} | shares
        labels = train[stratify_column][:] if stratify_column else None
        places = split_by_cluster(train["cluster"][:], shares, seed, labels)
        for split in shares:
            tables[split] = train.select([row for row, place in enumerate(places) if place == split])
    return {split: tables[split] for split in KEYS}


def _empty_message(split: str, counts: Counter) -> str:
    dropped = ", ".join(f"{counts[reason]} {reason}" for reason in REASONS if counts[reason]) or "none"
    return (
        f"`{split}` has no rows: {counts['read']} were read, dropped {dropped}, and the rest went to other splits. "
        "Check the columns, `min_input_words`, `min_target_words` and `drop_ambiguous`, whether `group_column` has "
        "several groups, or give more rows."
    )


# ----- Command line


@dataclass
class ColumnArguments:
    """The columns of one task, and where the clean splits go."""

    output_dir: str = field(metadata={"help": "Folder for train.jsonl, validation.jsonl and test.jsonl."})
    text_column: str | None = field(default=None, metadata={"help": "Input, with a label or summary column."})
    label_column: str | None = field(default=None, metadata={"help": "Label; the splits keep its shares."})
    summary_column: str | None = field(default=None, metadata={"help": "Summary of the text."})
    question_column: str | None = field(default=None, metadata={"help": "Input, with an answer column or options."})
    answer_column: str | None = field(default=None, metadata={"help": "Answer to the question."})
    context_column: str | None = field(default=None, metadata={"help": "Text that the question is about."})
    options_column: list[str] | None = field(default=None, metadata={"help": "A list, or a column for each option."})
    answer_index_column: str | None = field(default=None, metadata={"help": "Place of the right option, from 0."})
    seed: int = field(default=42, metadata={"help": "Of the split and the samples."})


def main(data_args: DataArguments, args: ColumnArguments) -> None:
    """Clean and split, write the splits to `output_dir`, print the report."""
    if bool(args.text_column) == bool(args.question_column):
        raise UserError("`text_column` or `question_column` is the input: give one of them.")
    targets = [c for c in (args.label_column, args.summary_column, args.answer_column) if c]
    if len(targets) > 1 or not (targets or args.answer_index_column):
        raise UserError(
            f"{len(targets)} target columns are given: give one of `label_column`, `summary_column`, `answer_column`, "
            "or `options_column` and `answer_index_column`."
        )
    if bool(args.options_column) != bool(args.answer_index_column):
        raise UserError("`options_column` and `answer_index_column` go together: give both.")
    files = [Path(args.output_dir, f"{split}.jsonl") for split in KEYS]
    if there := [path for path in files if path.exists()]:
        raise UserError(f"`output_dir` holds `{there[0]}` already: choose another folder.")
    input_column = args.text_column or args.question_column
    splits, report = load_splits(
        data_args,
        input_column=input_column,
        target_column=targets[0] if targets else None,
        optional_columns=[args.context_column] if args.context_column else [],
        list_columns=args.options_column or [],
        index_column=args.answer_index_column,
        cluster_columns=[input_column],
        stratify_column=args.label_column,
        seed=args.seed,
    )
    try:
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        for path, rows in zip(files, splits.values(), strict=True):
            with path.open("w", encoding="utf-8") as stream:
                for row in rows.remove_columns("cluster"):
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"`output_dir` `{args.output_dir}` cannot be written ({error}): choose another.") from error
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((DataArguments, ColumnArguments), description=__doc__)[:2])
