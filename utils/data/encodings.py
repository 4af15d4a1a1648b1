"""Read the lines of text files in any encoding that is certain, with any line end."""

import codecs
import gzip
import logging
import re
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from pathlib import Path

from utils.arguments import UserError

logger = logging.getLogger(__name__)

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


def open_bytes(path: Path) -> gzip.GzipFile | BufferedReader:
    """Open a file, also a gzipped one."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


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
            yield from text
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
