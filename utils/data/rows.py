"""Turn a row as written into the row that the model's input is made of: one way for training, evaluation,
`predict.py`, `Predictor`, the app and `python -m utils.data`.

`read_row` is that way. It takes a row as a file or the Hub gives it, and `Columns`, which `task.json` stores as
`raw_columns`. Its steps, in this order, are in `_read_inputs` and `_lower`:

1. shape: a dialogue becomes columns (`utils.data.shapes`),
2. cells: a list of paragraphs becomes text; type, stray symbols, white space (`utils.data.cleaning`); what matches
   `strip_pattern` is removed; the texts of several columns are joined,
3. options: a list, an object or a column per option becomes one list without blanks (`utils.data.options`),
4. kept columns, unchanged,
5. lowercase.

`clean_rows`, for training and evaluation, takes the same steps. Before the last one it decides whether to drop a row,
and reads what only these rows have: the target and the answer index.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from utils.arguments import DataArguments, UserError
from utils.data.cleaning import (
    clean_symbols,
    clean_text,
    clean_whitespace,
    read_kept,
    read_key,
    read_labels,
    read_text,
)
from utils.data.columns import Columns
from utils.data.options import column_labels, drop_blanks, find_answer, read_options, strip_labels
from utils.data.shapes import first_answer, join_paragraphs, to_columns
from utils.words import count_words, split_words

FUNCTION_WORDS = ENGLISH_STOP_WORDS | {"does", "did"}


# ----- The one way from a raw row to the model's input row


def read_row(row: Mapping[str, Any], columns: Columns, where: str) -> dict[str, Any]:
    """Return a raw row as the model's input row: its texts, its earlier turns and options as lists, and its kept
    columns.

    Args:
        row: as the file or data set gives it. A missing column is an empty one; others are ignored.
        columns: the columns of the data set.
        where: file and row, for error messages.

    Raises:
        UserError: a value has the wrong type, or turns do not alternate; names row and column.
    """
    shaped = to_columns(row, columns.dataset_format, where)
    if shaped is None:
        raise UserError(f"{where}: the turns do not alternate between user and assistant: mend or delete the row.")
    values = _read_inputs(shaped, columns, where, Counter())
    if columns.options:
        values[columns.options], _ = drop_blanks(list(values[columns.options].values()))
    return _lower(values, columns)


def _read_inputs(row: Mapping[str, Any], columns: Columns, where: str, found: Counter[str]) -> dict[str, Any]:
    """Take all steps of `read_row` between the first and the last, except that options are label -> text with blank
    ones, and note whether `symbols` and `whitespace` changed."""
    values: dict[str, Any] = {}
    for name in columns.inputs:
        if name == columns.input and any(part in row for part in columns.parts):
            values[name] = _join_parts(row, columns, where, found)
        else:
            values[name] = _clean_text(row, name, columns, where, found)
    if columns.has_turns:
        turns = [_clean_cell(text, "history", where, found) for text in row.get("history") or ()]
        values["history"] = [_strip(text, columns, found) for text in turns]
    if columns.options:
        written = written_options(row, columns, where)
        bare = strip_labels(written, columns.options, where)
        found["rows_with_lettered_options"] |= bare != written
        values[columns.options] = {key: _clean_cell(v, columns.options, where, found) for key, v in bare.items()}
    return values | {name: read_kept(row.get(name), name, where) for name in columns.kept}


def _join_parts(row: Mapping[str, Any], columns: Columns, where: str, found: Counter[str]) -> str:
    """Return the texts of several columns as one, as transformers' run_classification.py joins them; "" if all are
    empty."""
    texts = [_clean_text(row, part, columns, where, found) for part in columns.parts]
    found["rows_with_empty_parts"] |= any(texts) and not all(texts)
    return columns.delimiter.join(texts) if any(texts) else ""


def _clean_text(row: Mapping[str, Any], name: str, columns: Columns, where: str, found: Counter[str]) -> str:
    text = join_paragraphs(row.get(name))
    found["rows_with_joined_paragraphs"] |= text is not row.get(name)
    return _strip(_clean_cell(text, name, where, found), columns, found)


def _strip(text: str, columns: Columns, found: Counter[str]) -> str:
    if not columns.strip_pattern:
        return text
    stripped = re.sub(columns.strip_pattern, " ", text)
    found["rows_stripped"] |= stripped != text
    return text if stripped == text else clean_whitespace(stripped)


def _clean_cell(value: Any, column: str, where: str, found: Counter[str]) -> str:
    text = read_text(value, column, where)
    symbols = clean_symbols(text)
    clean = clean_whitespace(symbols)
    found["symbols"] |= symbols != text
    found["whitespace"] |= clean != symbols
    return clean


def written_options(row: Mapping[str, Any], columns: Columns, where: str) -> dict[str, Any]:
    """Return label -> option as written. A row without any of several option columns may have the list `options`."""
    if len(columns.lists) > 1 and any(name in row for name in columns.lists):
        return dict(zip(column_labels(columns.lists), (row.get(name) for name in columns.lists), strict=True))
    return read_options(row.get(str(columns.options)), str(columns.options), where)


def _lower(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    if not columns.lowercase:  # the default: Mg (magnesium) becomes mg, and brand names get lost
        return row
    names = {*columns.texts, "history", columns.options} - {columns.label, *columns.kept}
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
        counts: incremented by the rows read, dropped for each reason, changed in symbols or white space, and by what
            else is found in the rows that stay (`rows_*`, `answers_*`).

    Yields:
        the row's columns and its `id`.

    Raises:
        UserError: a value has the wrong type, or an answer names no option; names file, row and column.
    """
    seen: dict[bytes, Any] = {}  # digest -> group
    for name, number, row in rows:
        counts["read"] += 1
        where = f"`{name}`, row {number}"
        values = _clean_row(row, where, columns, args, counts)
        if values is None:
            continue
        digest = content_key(value for column, value in values.items() if column not in columns.kept)
        group = row.get(args.group_column) if args.group_column else None
        if digest in seen:
            counts["duplicate"] += 1
            if seen[digest] != group:
                counts["rows_repeated_in_other_groups"] += 1
            continue
        seen[digest] = group
        yield {"id": read_kept(row.get("id"), "id", where) or f"{split}-{number}"} | values


def content_key(values: Iterable[Any]) -> bytes:
    """Return a hash that ignores case and white space only. Punctuation counts: < 7 differs from > 7."""
    text = "\0".join(map(str, values)).casefold()
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def _clean_row(
    raw: dict[str, Any], where: str, columns: Columns, args: DataArguments, counts: Counter
) -> dict[str, Any] | None:
    """Return the inputs of a row, its target and its answer index, or None after counting the reason."""
    row = to_columns(raw, columns.dataset_format, where)
    if row is None:
        counts["turns"] += 1
        return None
    found: Counter[str] = Counter()
    values = _read_inputs(row, columns, where, found)
    if columns.label_list:
        name = str(columns.label)
        values[name], found["rows_with_repeated_labels"] = read_labels(row.get(name), name, where)
    elif columns.target:
        answer, found["rows_with_several_answers"] = first_answer(row.get(columns.target))
        values[columns.target] = _clean_cell(answer, columns.target, where, found)
    options = values[columns.options] if columns.options else {}
    place = _find_place(row, options, columns, where, found)
    if reason := _reason_to_drop(values, options, place, columns, args):
        counts[reason] += 1
        if reason == "missing":
            roles = {"input": columns.input, "target": columns.target}
            counts.update(f"rows_without_{role}" for role, name in roles.items() if name and not values[name])
        return None

    if columns.options:
        kept, index = drop_blanks(list(options.values()), place or 0)
        found.update({f"rows_with_{len(kept)}_options": 1, "rows_with_blank_options": len(kept) < len(options)})
        found["rows_with_equal_options"] = len(set(kept)) < len(kept)
        values |= {columns.options: kept} | ({columns.index: index} if columns.index else {})
    if columns.has_turns:
        found.update(rows_with_several_turns=bool(values["history"]), rows_with_system_turn=bool(values["system"]))
    counts.update(+found)
    values = _lower(values, columns)
    if columns.label and not columns.label_list:  # as written: `utils.data.keys` compares the spellings
        values[columns.label] = read_key(row.get(columns.label), columns.label, where)
    return values


def _find_place(
    row: Mapping[str, Any], options: Mapping[str, str], columns: Columns, where: str, found: Counter[str]
) -> int | None:
    """Return the place of the right option as written, -1 if it is withheld, None without an answer or a choice."""
    if not columns.index or sum(map(bool, options.values())) < 2:
        return None
    value = row.get(columns.index)
    text = clean_text(read_text(value, columns.index, where))
    if not text:
        return None
    value = text if isinstance(value, str) else value
    place, form = find_answer(value, options, columns.index_base, columns.index, where)
    found.update({f"answers_by_{form}": 1, "answers_at_first_place": form == "index" and place == 0})
    return place


def _reason_to_drop(
    values: Mapping[str, Any], options: Mapping[str, str], place: int | None, columns: Columns, args: DataArguments
) -> str | None:
    if place == -1:  # MedMCQA and others mark withheld answers like this
        return "unlabelled"
    source, target = values[columns.input], values[columns.target] if columns.target else None
    turns = values["history"] if columns.has_turns else []
    too_few = columns.lists and sum(map(bool, options.values())) < 2
    if not source or target in ("", []) or not all(turns) or too_few or (columns.index and place is None):
        return "missing"
    if sum(map(count_words, (*turns, source))) < args.min_input_words:
        return "short"
    if target is not None and count_words(str(target)) < args.min_target_words:
        return "short"
    has_context = options or turns or any(values[name] for name in columns.optional)
    return "ambiguous" if args.drop_ambiguous and not has_context and _is_ambiguous(source) else None


def _is_ambiguous(text: str) -> bool:
    parts = (re.sub(r"['\u2019]\w+", "", part) for part in text.split())  # read up to the first other word
    words = (word for part in parts for word in split_words(part))
    # CO, US or IT in capitals is an abbreviation
    return all(word.lower() in FUNCTION_WORDS and (len(word) == 1 or not word.isupper()) for word in words)
