"""Clean rows, and drop those that are unusable or duplicates."""

import datetime
import decimal
import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from utils.arguments import DataArguments, UserError
from utils.words import count_words, split_words

# Control, zero-width and direction characters, lone surrogates, private use (icons of PDF fonts), U+FFFD. Line breaks
# of all kinds are left to `clean_whitespace`.
STRAY = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd"
    "\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e007f\U000f0000-\U0010ffff]"
)
# Without "+": "++++" grades protein in urine.
PUNCTUATION_RUN = re.compile(r"([-.,;:!?*#_~=|/\\'\"()&\u2022\u2026\u2013\u2014])\1{3,}")
FUNCTION_WORDS = ENGLISH_STOP_WORDS | {"does", "did"}


def clean_text(text: str) -> str:
    """Remove stray symbols (`clean_symbols`), then normalize white space (`clean_whitespace`).

    Idempotent. Units, signs and digits are unchanged.
    """
    return clean_whitespace(clean_symbols(text))


def clean_symbols(text: str) -> str:
    """Drop control, zero-width, private-use and U+FFFD characters, compose accents, and reduce runs of four or more
    equal punctuation marks to one ("..." is kept)."""
    # NFC, because NFKC would turn ten squared (superscript 2) into 102
    return PUNCTUATION_RUN.sub(r"\1", unicodedata.normalize("NFC", STRAY.sub("", text)))


def clean_whitespace(text: str) -> str:
    """Replace runs of white space with one space, strip lines and drop empty ones. Line breaks, such as those between
    the turns of a dialogue, are kept."""
    lines = (" ".join(line.split()) for line in re.split("\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]", text))
    return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class Columns:
    """Roles of the columns. `lists` is one column of lists, or one column per option; `label` keeps its spelling;
    `kept` columns are not cleaned."""

    input: str
    target: str | None
    optional: tuple[str, ...]
    lists: tuple[str, ...]
    index: str | None
    label: str | None
    kept: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        return [self.input, *([self.target] if self.target else []), *self.optional]

    @property
    def options(self) -> str | None:
        return "options" if len(self.lists) > 1 else self.lists[0] if self.lists else None


def clean_rows(
    rows: Iterable[tuple[str, int, dict[str, Any]]], split: str, columns: Columns, args: DataArguments, counts: Counter
) -> Iterator[dict[str, Any]]:
    """Clean the rows of a split, and drop unusable rows and exact duplicates.

    Args:
        rows: file or data set, row number and values of each row.
        split: prefix of the `id` of rows without one.
        columns: roles of the columns.
        args: minimum lengths and cleaning options.
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
        digest = content_key(values.values())
        if digest in seen:
            counts["duplicate"] += 1
            continue
        seen.add(digest)
        made = {"id": _as_kept(row.get("id"), "id", where) or f"{split}-{number}"}
        yield made | values | {name: _as_kept(row.get(name), name, where) for name in columns.kept}


def content_key(values: Iterable[Any]) -> bytes:
    """Return a hash that ignores case and white space only. Punctuation counts: < 7 differs from > 7."""
    text = "\0".join(map(str, values)).casefold()
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def _clean_row(
    row: dict[str, Any], where: str, columns: Columns, args: DataArguments, counts: Counter
) -> dict[str, Any] | None:
    """Return the cleaned texts, options and answer index of a row, or None after counting the reason."""
    texts = {name: _as_text(row.get(name), name, where) for name in columns.texts}
    label = {name: _as_label(row.get(name), name, where) for name in texts if name == columns.label}
    if len(columns.lists) == 1:
        options = _as_list(row.get(columns.lists[0]), columns.lists[0], where)
    else:
        options = [_as_text(row.get(name), name, where) for name in columns.lists]
    index = _as_text(row.get(columns.index), columns.index, where).strip() if columns.index else None
    raw = [*texts.values(), *options]
    symbols = [clean_symbols(text) for text in raw]
    clean = [clean_whitespace(text) for text in symbols]
    texts, options = dict(zip(texts, clean, strict=False)), clean[len(texts) :]
    if reason := _reason_to_drop(texts, options, index, columns, args):
        counts[reason] += 1
        return None

    counts["symbols"] += symbols != raw
    counts["whitespace"] += clean != symbols
    if args.lowercase:  # off by default: Mg (magnesium) becomes mg, and brand names get lost
        texts = {name: text.lower() for name, text in texts.items()}
        options = [text.lower() for text in options]
    values: dict[str, Any] = texts | label
    if columns.options:
        values[columns.options] = options
    if columns.index and index is not None:
        if not index.removesuffix(".0").isdecimal() or int(float(index)) >= len(options):
            allowed = f"give the index of the correct option, 0 to {len(options) - 1}"
            raise UserError(f"{where}: `{columns.index}` is `{index}`: {allowed}.")
        values[columns.index] = int(float(index))
    return values


def _reason_to_drop(
    texts: dict[str, str], options: list[str], index: str | None, columns: Columns, args: DataArguments
) -> str | None:
    if index == "-1":  # MedMCQA and others mark withheld answers like this
        return "unlabelled"
    source, target = texts[columns.input], texts[columns.target] if columns.target else None
    if not source or target == "" or index == "" or not all(options) or (columns.lists and not options):
        return "missing"
    if count_words(source) < args.min_input_words:
        return "short"
    if target is not None and count_words(target) < args.min_target_words:
        return "short"
    has_context = options or any(texts[name] for name in columns.optional)
    return "ambiguous" if args.drop_ambiguous and not has_context and _is_ambiguous(source) else None


def _as_text(value: Any, column: str, where: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # parquet stores missing values as NaN
        return ""
    if not isinstance(value, (str, bool, int, float, decimal.Decimal, datetime.date)):
        raise UserError(f"{where}: `{column}` is a {type(value).__name__}: give text or a number.")
    return str(value)


def _as_label(value: Any, column: str, where: str) -> str:
    """Return the label as written, but 1.0 as 1: an integer column with a missing value becomes float."""
    whole = isinstance(value, float) and value.is_integer()
    return _as_kept(int(value) if whole else _as_text(value, column, where), column, where)


def _as_list(value: Any, column: str, where: str) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):  # csv stores lists as JSON
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if not isinstance(value, list) or len(value) < 2:
        found = f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
        raise UserError(f"{where}: `{column}` is {found}: give a list of two or more texts (JSON in csv).")
    return [_as_text(option, column, where) for option in value]


def _as_kept(value: Any, column: str, where: str) -> str:
    text = json.dumps(value, default=str) if isinstance(value, (list, dict)) else _as_text(value, column, where)
    return text.encode(errors="ignore").decode()  # Arrow rejects lone surrogates


def _is_ambiguous(text: str) -> bool:
    words = split_words(re.sub(r"['\u2019]\w+", "", text))
    # CO, US or IT in capitals is an abbreviation
    return all(word.lower() in FUNCTION_WORDS and (len(word) == 1 or not word.isupper()) for word in words)
