"""Read text files as people have them: any encoding, line end and separator that is certain, or one line that says why
not. What a file is not by its name alone is logged and counted."""

import codecs
import csv
import gzip
import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader, TextIOWrapper
from pathlib import Path

from utils.arguments import UserError

logger = logging.getLogger(__name__)

SEPARATORS = {",": "`,`", ";": "`;`", "\t": "a tab", "|": "`|`"}
SAMPLE_LINES = 1000
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


def open_bytes(path: Path) -> gzip.GzipFile | BufferedReader:
    """Open a file, also a gzipped one."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def find_encoding(path: Path, counts: Counter[str]) -> str:
    """Return the encoding of a text file: UTF-8, UTF-16, UTF-32, or Windows-1252 where nothing speaks against it.

    Increments `guessed_encodings` where neither a byte order mark nor UTF-8 decides. UserError for any other encoding.
    """
    with open_bytes(path) as stream:
        start = stream.read(4)
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
            yield from text
        except UnicodeError as error:
            raise UserError(f"`{path}` begins as {encoding} and goes on otherwise: save it as UTF-8.") from error


def read_delimited(
    path: Path, separator: str, columns: Sequence[str] | None, counts: Counter[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table whose values are separated by a character. All values stay text.

    Args:
        path: the file, also gzipped.
        separator: the expected one. Another one is taken from a first line `sep=;`, or where the first 1,000 lines
            are a table with it and none with the expected one.
        columns: columns that are used, None for all. Of two columns of one name none can be.
        counts: incremented by the files with `guessed_encodings`, `guessed_separators` and `literal_quotes`, by the
            `multiline_rows`, and by the `doubtful_rows` among them, of which each line looks like a row.

    Yields:
        first line of a row, from 1, and its values. Columns without a name or with the name of another are left out.

    Raises:
        UserError: names the row that has not the fields of the header, or quotation marks that fit no reading.
    """
    csv.field_size_limit(2**31 - 1)  # process-wide; long case reports exceed the default of 131,072
    encoding = find_encoding(path, counts)
    sample = list(itertools.islice(read_lines(path, encoding), SAMPLE_LINES))
    given = re.fullmatch(r'"?sep=(.)"?\s*', sample[0]) if sample else None
    skip = 1 if given else 0
    separator = given[1] if given else _find_separator(path, sample, separator, counts)
    quoted = separator != "\t" or _has_quoted_fields(path, encoding, skip, counts)

    names: list[tuple[int, str]] = []
    width, rows, several, doubtful = 0, 0, 0, []
    for begin, values, lines in _split_rows(path, encoding, skip, separator, quoted):
        if not width:
            width, names = len(values), _used_names(path, values, columns)
            continue
        if not _fits(values, width):
            raise UserError(f"`{path}`, row {begin} {_say_width(len(values), width, separator)}")
        rows += 1
        several += len(lines) > 1
        if 1 < len(lines) and width > 1 and all(line.count(separator) == width - 1 for line in lines):
            doubtful.append(begin)
        yield begin, {name: values[place] for place, name in names}
    counts["multiline_rows"] += several
    counts["doubtful_rows"] += len(doubtful)
    if several:
        logger.info("`%s`: %d of %d rows have line breaks inside quotation marks", path, several, rows)
    if doubtful:
        logger.warning(
            "`%s`: %d rows (line %s) hold lines that look like rows of their own: check their quotation marks",
            path, len(doubtful), ", ".join(map(str, doubtful[:3])),
        )  # fmt: skip


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


def _parse(lines: Iterable[str], separator: str, quoted: bool, strict: bool = True) -> Iterator[list[str]]:
    """Parse lines with the csv module."""
    if quoted:
        return csv.reader(lines, delimiter=separator, strict=strict)
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
        for quoted in (True, False) if separator == "\t" else (True,):
            try:
                rows = [row for row in _parse(sample, separator, quoted, strict=not cut) if not _is_blank(row, 0)]
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


def _has_quoted_fields(path: Path, encoding: str, skip: int, counts: Counter[str]) -> bool:
    """Whether quotation marks enclose fields of a file with tabs, as spreadsheets write them, or are text, as most
    other programs do."""
    if not any('"' in line for line in read_lines(path, encoding)):
        return True
    enclosing, literal = (_count_rows(path, encoding, skip, quoted) for quoted in (True, False))
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


def _count_rows(path: Path, encoding: str, skip: int, quoted: bool) -> tuple[int, int] | None:
    """Return the number of rows of a file with tabs and the first line of the first that spans several; None if not
    all rows have the fields of the header."""
    rows, width, first = 0, 0, 0
    try:
        for begin, values, lines in _split_rows(path, encoding, skip, "\t", quoted):
            width = width or len(values)
            if not _fits(values, width):
                return None
            rows += 1
            first = first or (begin if len(lines) > 1 else 0)
    except UserError:
        return None
    return rows, first


def _split_rows(
    path: Path, encoding: str, skip: int, separator: str, quoted: bool
) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield first line, fields and lines of the header and of each row that is not blank."""
    current: list[str] = []

    def remember() -> Iterator[str]:
        for line in itertools.islice(read_lines(path, encoding), skip, None):
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
    twice = {name for name, count in Counter(header).items() if name and count > 1}
    if used := [name for name in header if name in twice and (columns is None or name in columns)]:
        raise UserError(f"`{path}` has the column `{used[0]}` twice in its header: rename one.")
    return [(place, name) for place, name in enumerate(header) if name and name not in twice]


def _say_width(found: int, width: int, separator: str) -> str:
    has = f"has {found} fields, the header has {width} (with {SEPARATORS.get(separator, separator)} between them)"
    if found < width:
        return f"{has}: put quotation marks around a field with a line break, or complete the row."
    return f"{has}: put quotation marks around fields that hold the separator."
