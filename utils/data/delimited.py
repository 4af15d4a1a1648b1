"""Read tables as spreadsheets and other programs write them: any separator, quotation marks and names of columns that
are certain, or one line that says why not. What is not as the name of a file says is logged and counted."""

import csv
import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from utils.arguments import UserError

logger = logging.getLogger(__name__)

SEPARATORS = {",": "`,`", ";": "`;`", "\t": "a tab", "|": "`|`"}
SAMPLE_LINES = 1000
HEAD_LINES = 10  # in which a header may stand below a title
Lines = Callable[[], Iterator[str]]  # read a file from its start


def read_delimited(
    path: Path, lines: Lines, separator: str, columns: Sequence[str] | None, counts: Counter[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table whose values are separated by a character. All values stay text.

    Args:
        path: the file, for messages.
        lines: its lines with their ends.
        separator: the expected one. Another one is taken from a first line `sep=;`, or where the first 1,000 lines
            are a table with it and none with the expected one.
        columns: columns that are used, None for all. Of two columns of one name none can be.
        counts: incremented by the files with `guessed_separators` and `literal_quotes`, by the `multiline_rows`, and
            by the `doubtful_rows` among them, of which each line looks like a row. `repeated_headers` are left out.

    Yields:
        first line of a row, from 1, and its values. Columns without a name or with the name of another are left out.

    Raises:
        UserError: names the row that has not the fields of the header, or quotation marks that fit no reading.
    """
    csv.field_size_limit(2**31 - 1)  # process-wide; long case reports exceed the default of 131,072
    sample = list(itertools.islice(lines(), SAMPLE_LINES))
    given = re.fullmatch(r'"?sep=(.)"?\s*', sample[0]) if sample else None
    skip = 1 if given else 0
    separator = given[1] if given else _find_separator(path, sample, separator, counts)
    if _is_spaced(path, lines, skip, separator, sample):
        separator += " "
    quoted = separator != "\t" or _has_quoted_fields(path, lines, skip, counts)

    names: list[tuple[int, str]] = []
    header, width, doubtful = list[str](), 0, []
    for begin, values, own in _split_rows(path, lines, skip, separator, quoted):
        if not width:
            header, width, names = values, len(values), _used_names(path, values, columns)
            continue
        if width > 1 and values[1:] == header[1:] and values[0].strip('\ufeff"') == header[0]:
            counts["repeated_headers"] += 1
            continue
        if columns and begin <= HEAD_LINES and not set(columns) & set(header) and len(set(columns) & set(values)) > 1:
            raise UserError(f"`{path}` has its names of columns in row {begin}: delete what stands above it.")
        if not _fits(values, width):
            raise UserError(f"`{path}`, row {begin} {_say_width(len(values), width, separator)}")
        counts["multiline_rows"] += len(own) > 1
        if len(own) > 1 and width > 1 and all(line.count(separator) == width - 1 for line in own):
            counts["doubtful_rows"] += 1
            doubtful.append(begin)
        yield begin, {name: values[place] for place, name in names}
    if doubtful:
        logger.warning(
            "`%s`: %d rows (line %s) hold lines that look like rows of their own: check their quotation marks",
            path, len(doubtful), ", ".join(map(str, doubtful[:3])),
        )  # fmt: skip
    if repeated := counts["repeated_headers"]:
        logger.warning("`%s`: %d rows repeat the header, and are left out: were files put together?", path, repeated)


def _parse(lines: Iterable[str], separator: str, quoted: bool, strict: bool = True) -> Iterator[list[str]]:
    """Parse lines with the csv module. A separator of two characters ends in a space."""
    if quoted:
        return csv.reader(lines, delimiter=separator[0], strict=strict, skipinitialspace=len(separator) > 1)
    return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)


def _is_blank(values: list[str], width: int) -> bool:
    """Whether a line has nothing but white space. Alone in its column, an empty value in quotation marks is a row."""
    return not values or (width != 1 and len(values) == 1 and not values[0].strip())


def _fits(values: list[str], width: int) -> bool:
    """Whether a row has the fields of the header. Spreadsheets also end rows with separators that enclose nothing."""
    return len(values) == width or (len(values) > width > 1 and not any(values[width:]))


def _find_separator(path: Path, sample: list[str], expected: str, counts: Counter[str]) -> str:
    """Return the separator with which the sample is a table: the expected one, or the only other one."""
    cut = len(sample) == SAMPLE_LINES  # perhaps inside a row
    widths, tables = {}, []
    for separator in dict.fromkeys((expected, *SEPARATORS)):
        ways = [(separator, True), (separator, False) if separator == "\t" else (f"{separator} ", True)]
        for between, quoted in ways:
            try:
                rows = [row for row in _parse(sample, between, quoted, strict=not cut) if not _is_blank(row, 0)]
            except csv.Error:
                continue
            width = widths[separator] = len(rows[0]) if rows else 0
            whole = rows[:-1] if cut else rows
            if separator not in tables and all(_fits(row, width) for row in whole):
                tables.append(separator)
    if expected in tables and widths[expected] > 1:
        return expected
    others = [separator for separator in tables if widths[separator] > 1]
    if not others and expected not in tables and widths.get(expected, 0) < 2:
        others = [separator for separator in widths if widths[separator] > 1]  # a row is broken, not the header
    if not others:
        return expected
    if len(others) > 1:
        found = " and ".join(SEPARATORS[separator] for separator in others)
        raise UserError(f"`{path}` is a table with {found} between the fields: say which in a first line `sep=;`.")
    counts["guessed_separators"] += 1
    logger.warning("`%s` has %s between the fields, and is read so", path, SEPARATORS[others[0]])
    return others[0]


def _is_spaced(path: Path, lines: Lines, skip: int, separator: str, sample: list[str]) -> bool:
    """Whether spaces stand between separators and opening quotation marks, as people type tables and programs do not,
    and all rows have the fields of the header if they are left out."""
    if separator.isspace() or not any(f"{separator} " in line and '"' in line for line in sample):
        return False
    plain, spaced = (
        [[value.lstrip(" ") for value in row] for row in _parse(sample, each, True, strict=False)]
        for each in (separator, f"{separator} ")
    )
    return plain != spaced and _count_rows(path, lines, skip, f"{separator} ", True) is not None


def _has_quoted_fields(path: Path, lines: Lines, skip: int, counts: Counter[str]) -> bool:
    """Whether quotation marks enclose fields of a file with tabs, as spreadsheets write them, or are text, as most
    other programs do."""
    if not any('"' in line for line in lines()):
        return True
    enclosing, literal = (_count_rows(path, lines, skip, "\t", quoted) for quoted in (True, False))
    if not literal or (enclosing and enclosing[0] == literal[0]):
        return True
    if enclosing:
        raise UserError(
            f"`{path}`, row {enclosing[1]}: its quotation marks enclose several lines, each of which is a row without "
            "them: delete the marks if they are text, or save the file as .csv or .jsonl."
        )
    counts["literal_quotes"] += 1
    logger.warning("`%s`: quotation marks are read as text, since they do not enclose fields", path)
    return False


def _count_rows(path: Path, lines: Lines, skip: int, separator: str, quoted: bool) -> tuple[int, int] | None:
    """Return the number of rows of a file and the first line of the first that spans several; None if not all rows
    have the fields of the header."""
    rows, width, first = 0, 0, 0
    try:
        for begin, values, own in _split_rows(path, lines, skip, separator, quoted):
            width = width or len(values)
            if not _fits(values, width):
                return None
            rows += 1
            first = first or (begin if len(own) > 1 else 0)
    except UserError:
        return None
    return rows, first


def _split_rows(
    path: Path, lines: Lines, skip: int, separator: str, quoted: bool
) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield first line, fields and lines of the header and of each row that is not blank."""
    current: list[str] = []

    def remember() -> Iterator[str]:
        for line in itertools.islice(lines(), skip, None):
            current.append(line)
            yield line

    begin, width = 1 + skip, 0
    try:
        for values in _parse(remember(), separator, quoted):
            if not _is_blank(values, width):
                width = width or len(values)
                yield begin, values, list(current)
            begin += len(current)
            current.clear()
    except csv.Error as error:
        raise UserError(
            f"`{path}`, row {begin} is malformed ({error}): put quotation marks at both ends of a field that holds "
            "any, and double those inside it."
        ) from error


def _used_names(path: Path, header: list[str], columns: Sequence[str] | None) -> list[tuple[int, str]]:
    """Return place and name of the columns that can be used."""
    twice = {name for name, count in Counter(header).items() if name.strip() and count > 1}
    if used := [name for name in header if name in twice and (columns is None or name in columns)]:
        raise UserError(f"`{path}` has the column `{used[0]}` twice in its header: rename one.")
    return [(place, name) for place, name in enumerate(header) if name.strip() and name not in twice]


def _say_width(found: int, width: int, separator: str) -> str:
    has = f"has {found} fields, the header has {width} (with {SEPARATORS.get(separator, separator)} between them)"
    if found < width:
        return f"{has}: put quotation marks around a field with a line break, or complete the row."
    if width == 1:
        return f"{has}: put quotation marks around each text, or delete what stands above the header."
    return f"{has}: put quotation marks around fields that hold the separator, or name the missing column."
