"""Turn a row as written into the row that the model's input is made of: one way for training, evaluation,
`predict.py`, `Predictor`, the app and `python -m utils.data`.

`read_row` is that way. It takes a row as a file or the Hub gives it, and `Columns`, which `task.json` stores as
`raw_columns`. Its steps, in this order, are in `_read_inputs` and `_lower`:

1. shape: a dialogue or an object of the field becomes columns (`utils.data.shapes`),
2. cells: a list of paragraphs becomes text; type, stray symbols, white space (`utils.data.cleaning`),
3. options: a list or a column per option becomes one list (`utils.data.options`),
4. kept columns, unchanged,
5. lowercase.

`clean_rows`, for training and evaluation, takes the same steps. Before the last one it decides whether to drop a row,
and reads what only these rows have: the target and the answer index.
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from utils.arguments import DataArguments, UserError
from utils.data.cleaning import clean_symbols, clean_whitespace, read_kept, read_label, read_text
from utils.words import count_words, split_words

FUNCTION_WORDS = ENGLISH_STOP_WORDS | {"does", "did"}


@dataclass(frozen=True)
class Columns:
    """The columns of a data set, and how their values are read. `task.json` stores it as `raw_columns`.

    input, target: input text, and target text or label. Training drops rows that lack either.
    optional: further texts, which may be empty.
    lists: one column of option lists, or two or more columns with one option each.
    index: index of the correct option, from 0; -1 drops the row as unlabelled.
    label: the target if it is a label, which keeps its spelling.
    kept: further columns for templates and code, which stay as they are.
    lowercase: whether texts and options are lowercased.
    """

    input: str
    target: str | None = None
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    index: str | None = None
    label: str | None = None
    kept: tuple[str, ...] = ()
    lowercase: bool = False

    @property
    def inputs(self) -> list[str]:
        return [self.input, *self.optional]

    @property
    def texts(self) -> list[str]:
        return [self.input, *([self.target] if self.target else []), *self.optional]

    @property
    def options(self) -> str | None:
        return "options" if len(self.lists) > 1 else self.lists[0] if self.lists else None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Columns":
        """Return the columns that `task.json` stores."""
        made: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**made)

    def to_dict(self) -> dict[str, Any]:
        """Return the columns for `task.json`."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


# ----- The one way from a raw row to the model's input row


def read_row(row: Mapping[str, Any], columns: Columns, where: str) -> dict[str, Any]:
    """Return a raw row as the model's input row: its texts, its options as a list, and its kept columns.

    Args:
        row: as the file or data set gives it. A missing column is an empty one; others are ignored.
        columns: the columns of the data set.
        where: file and row, for error messages.

    Raises:
        UserError: a value has the wrong type; names row and column.
    """
    return _lower(_read_inputs(row, columns, where, Counter()), columns)


def _read_inputs(row: Mapping[str, Any], columns: Columns, where: str, found: Counter[str]) -> dict[str, Any]:
    """Take all steps of `read_row` but the last, and note whether `symbols` and `whitespace` changed."""
    texts = {name: _clean_cell(row.get(name), name, where, found) for name in columns.inputs}
    options = [
        _clean_cell(value, str(columns.options), where, found) for value in _written_options(row, columns, where)
    ]
    kept = {name: read_kept(row.get(name), name, where) for name in columns.kept}
    return texts | ({columns.options: options} if columns.options else {}) | kept


def _clean_cell(value: Any, column: str, where: str, found: Counter[str]) -> str:
    text = read_text(value, column, where)
    symbols = clean_symbols(text)
    clean = clean_whitespace(symbols)
    found["symbols"] |= symbols != text
    found["whitespace"] |= clean != symbols
    return clean


def _written_options(row: Mapping[str, Any], columns: Columns, where: str) -> list[Any]:
    """Return the options as written. A row without any of several option columns may have the list `options`."""
    if len(columns.lists) > 1 and any(name in row for name in columns.lists):
        return [row.get(name) for name in columns.lists]
    value = row.get(columns.options) if columns.options else None
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):  # csv stores lists as JSON
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if not isinstance(value, list) or len(value) < 2:
        found = f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
        raise UserError(f"{where}: `{columns.options}` is {found}: give a list of two or more texts (JSON in csv).")
    return value


def _lower(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    if not columns.lowercase:  # the default: Mg (magnesium) becomes mg, and brand names get lost
        return row
    names = {*columns.texts, columns.options} - {columns.label}
    return {
        name: value if name not in names else [v.lower() for v in value] if isinstance(value, list) else value.lower()
        for name, value in row.items()
    }


# ----- Rows for training and evaluation


def clean_rows(
    rows: Iterable[tuple[str, int, dict[str, Any]]], split: str, columns: Columns, args: DataArguments, counts: Counter
) -> Iterator[dict[str, Any]]:
    """Clean the rows of a split, and drop unusable rows and exact duplicates.

    Args:
        rows: file or data set, row number and values of each row.
        split: prefix of the `id` of rows without one.
        columns: the columns of the data set.
        args: minimum lengths and `drop_ambiguous`.
        counts: incremented by the rows read, dropped for each reason, and changed in symbols or white space.

    Yields:
        the row's columns and its `id`.

    Raises:
        UserError: a value has the wrong type, or an answer index is out of range; names file, row and column.
    """
    seen = set()
    for name, number, row in rows:
        counts["read"] += 1
        where = f"`{name}`, row {number}"
        values = _clean_row(row, where, columns, args, counts)
        if values is None:
            continue
        digest = content_key(value for column, value in values.items() if column not in columns.kept)
        if digest in seen:
            counts["duplicate"] += 1
            continue
        seen.add(digest)
        yield {"id": read_kept(row.get("id"), "id", where) or f"{split}-{number}"} | values


def content_key(values: Iterable[Any]) -> bytes:
    """Return a hash that ignores case and white space only. Punctuation counts: < 7 differs from > 7."""
    text = "\0".join(map(str, values)).casefold()
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def _clean_row(
    row: dict[str, Any], where: str, columns: Columns, args: DataArguments, counts: Counter
) -> dict[str, Any] | None:
    """Return the inputs of a row, its target and its answer index, or None after counting the reason."""
    found: Counter[str] = Counter()
    values = _read_inputs(row, columns, where, found)
    if columns.target:
        values[columns.target] = _clean_cell(row.get(columns.target), columns.target, where, found)
    index = read_text(row.get(columns.index), columns.index, where).strip() if columns.index else None
    if reason := _reason_to_drop(values, index, columns, args):
        counts[reason] += 1
        return None

    counts.update(found)
    values = _lower(values, columns)
    if columns.label:  # as written: `utils.data.labels` compares the spellings
        values[columns.label] = read_label(row.get(columns.label), columns.label, where)
    if columns.index and index is not None:
        options = values[str(columns.options)]
        if not index.removesuffix(".0").isdecimal() or int(float(index)) >= len(options):
            allowed = f"give the index of the correct option, 0 to {len(options) - 1}"
            raise UserError(f"{where}: `{columns.index}` is `{index}`: {allowed}.")
        values[columns.index] = int(float(index))
    return values


def _reason_to_drop(values: dict[str, Any], index: str | None, columns: Columns, args: DataArguments) -> str | None:
    if index == "-1":  # MedMCQA and others mark withheld answers like this
        return "unlabelled"
    source, target = values[columns.input], values[columns.target] if columns.target else None
    options = values[columns.options] if columns.options else []
    if not source or target == "" or index == "" or not all(options) or (columns.lists and not options):
        return "missing"
    if count_words(source) < args.min_input_words:
        return "short"
    if target is not None and count_words(target) < args.min_target_words:
        return "short"
    has_context = options or any(values[name] for name in columns.optional)
    return "ambiguous" if args.drop_ambiguous and not has_context and _is_ambiguous(source) else None


def _is_ambiguous(text: str) -> bool:
    words = split_words(re.sub(r"['\u2019]\w+", "", text))
    # CO, US or IT in capitals is an abbreviation
    return all(word.lower() in FUNCTION_WORDS and (len(word) == 1 or not word.isupper()) for word in words)
