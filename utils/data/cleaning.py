"""Clean texts, and read the values of cells."""

import contextlib
import datetime
import decimal
import json
import math
import re
import unicodedata
from typing import Any

from utils.arguments import UserError

# Control, zero-width and direction characters, lone surrogates, private use (icons of PDF fonts), U+FFFD. Line breaks
# of all kinds are left to `clean_whitespace`, joiners to `JOINERS`. Tags after a black flag make it that of a country.
STRAY = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)"
    "|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffd\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e007f\U000f0000-\U0010ffff]"
)
# Zero-width joiners are spelling between letters of Arabic and Indic scripts and after a virama (UAX #31, 2.3), and
# hold an emoji of several together
SCRIPTS = (
    "\u0600-\u0dff\u0f00-\u109f\u1780-\u18af\u1a20-\u1cff\ua800-\uabff\U00010a00-\U00010fff\U00011000-\U00011fff"
    "\U0001e900-\U0001e95f"
)
VIRAMAS = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
EMOJI = "\u2190-\u2bff\U0001f000-\U0001faff"
JOINERS = re.compile(
    f"((?<=[{SCRIPTS}])[\u200c\u200d]+(?=[{SCRIPTS}])|(?<=[{VIRAMAS}])\u200d+|(?<=[{EMOJI}\ufe0f])\u200d+(?=[{EMOJI}]))"
    "|[\u200c\u200d]+"
)
# Without "+": "++++" grades protein in urine.
PUNCTUATION_RUN = re.compile(r"([-.,;:!?*#_~=|/\\'\"()&\u2022\u2026\u2013\u2014])\1{3,}")


def clean_text(text: str) -> str:
    """Remove stray symbols (`clean_symbols`), then normalize white space (`clean_whitespace`).

    Idempotent. Units, signs and digits are unchanged.
    """
    return clean_whitespace(clean_symbols(text))


def clean_symbols(text: str) -> str:
    """Drop what `clean_characters` drops, and reduce runs of four or more equal punctuation marks to one ("..." is
    kept)."""
    return PUNCTUATION_RUN.sub(r"\1", clean_characters(text))


def clean_characters(text: str) -> str:
    """Drop control, zero-width, private-use and U+FFFD characters, and compose accents. Joiners stay where they are
    spelling, as in Persian and Sinhala, or hold an emoji together."""
    # NFC, because NFKC would turn ten squared (superscript 2) into 102
    text, before = unicodedata.normalize("NFC", STRAY.sub(lambda match: match[1] or "", text)), ""
    while text != before and ("\u200c" in text or "\u200d" in text):  # accents may move next to another joiner
        before = text
        text = unicodedata.normalize("NFC", JOINERS.sub(lambda match: (match[1] or "")[:1], text))
    return text


def clean_whitespace(text: str) -> str:
    """Replace runs of white space with one space, strip lines and drop empty ones. Line breaks, such as those between
    the turns of a dialogue, are kept."""
    lines = (" ".join(line.split()) for line in re.split("\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]", text))
    return "\n".join(line for line in lines if line)


def visible(text: str) -> str:
    """Return a text with the characters escaped that look like others or like nothing, for messages."""
    return re.sub(r"[^\w\x20-\x7e]", lambda match: ascii(match[0])[1:-1], text)


# ----- Cells


def read_text(value: Any, column: str, where: str) -> str:
    """Return a cell as text, "" if it is missing.

    Raises:
        UserError: it is a list, an object or another value that is no text.
    """
    if value is None or (isinstance(value, (float, decimal.Decimal)) and math.isnan(value)):  # as parquet stores it
        return ""
    if not isinstance(value, (str, bool, int, float, decimal.Decimal, datetime.date)):
        raise UserError(f"{where}: `{column}` is a {type(value).__name__}: give text or a number.")
    return str(value)


def read_key(value: Any, column: str, where: str) -> str:
    """Return a cell that names something as written, but 7.0 as 7 where it is a number: a column of whole numbers with
    a missing one turns into floats."""
    whole = isinstance(value, (float, decimal.Decimal)) and math.isfinite(value) and value == int(value)
    text = str(int(value)) if whole else read_text(value, column, where)
    return text.encode(errors="ignore").decode()  # Arrow rejects lone surrogates


def parse_list(value: Any) -> list[Any] | None:
    """Return a list, also from its JSON text; None for any other value."""
    with contextlib.suppress(ValueError):
        value = json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, list) else None


def read_labels(value: Any, column: str, where: str) -> tuple[list[str], bool]:
    """Return a list of labels, also from its JSON text, as csv has it: each label once, sorted; and whether one was
    there twice. A missing value gives [].

    Raises:
        UserError: it is no list or an empty one, or has something other than texts and numbers in it.
    """
    found = parse_list(value)
    if found is None and not read_text(value, column, where).strip():
        return [], False
    if found is None:
        raise UserError(f'{where}: `{column}` is no list of labels: write a list, in csv in JSON: ["a", "b"].')
    if not found:
        raise UserError(
            f"{where}: `{column}` is an empty list: give such texts a label of their own, such as none, or drop them."
        )
    labels = [read_key(label, column, where) for label in found]
    if not all(label.strip() for label in labels):
        raise UserError(f"{where}: `{column}` has an empty label in its list: name it, or take it out.")
    return sorted(set(labels)), len(set(labels)) < len(labels)


def read_kept(value: Any, column: str, where: str) -> str:
    """Return a cell as `read_key` does, a list or an object as JSON."""
    return read_key(json.dumps(value, default=str) if isinstance(value, (list, dict)) else value, column, where)
