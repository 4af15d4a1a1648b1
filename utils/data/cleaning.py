"""Clean texts, and read the values of cells."""

import datetime
import decimal
import json
import math
import re
import unicodedata
from typing import Any

from utils.arguments import UserError

# Control, zero-width and direction characters, lone surrogates, private use (icons of PDF fonts), U+FFFD. Line breaks
# of all kinds are left to `clean_whitespace`.
STRAY = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd"
    "\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e007f\U000f0000-\U0010ffff]"
)
# Without "+": "++++" grades protein in urine.
PUNCTUATION_RUN = re.compile(r"([-.,;:!?*#_~=|/\\'\"()&\u2022\u2026\u2013\u2014])\1{3,}")


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


# ----- Cells


def read_text(value: Any, column: str, where: str) -> str:
    """Return a cell as text, "" if it is missing.

    Raises:
        UserError: it is a list, an object or another value that is no text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):  # parquet stores missing values as NaN
        return ""
    if not isinstance(value, (str, bool, int, float, decimal.Decimal, datetime.date)):
        raise UserError(f"{where}: `{column}` is a {type(value).__name__}: give text or a number.")
    return str(value)


def read_label(value: Any, column: str, where: str) -> str:
    """Return a label as written, but 1.0 as 1: an integer column with a missing value becomes float."""
    whole = isinstance(value, float) and value.is_integer()
    return read_kept(int(value) if whole else read_text(value, column, where), column, where)


def read_kept(value: Any, column: str, where: str) -> str:
    """Return a cell as written, a list or an object as JSON."""
    text = json.dumps(value, default=str) if isinstance(value, (list, dict)) else read_text(value, column, where)
    return text.encode(errors="ignore").decode()  # Arrow rejects lone surrogates
