"""Split a text into words with spans and stems."""

import csv
import functools
from pathlib import Path
from typing import NamedTuple

import regex
import Stemmer

from utils.words import cut_run

# Lay and clinical synonyms: names of one finding or drug, or words of one meaning, per row. Names in capitals are
# abbreviations and match only in capitals.
LAY_TERMS = Path(__file__).with_name("lay_terms.csv")

STEMMER = Stemmer.Stemmer("english")
# letters with inner apostrophes, or a number; spelled-out letters ("M G", "E K G") are one word
WORD = regex.compile(
    r"\b[A-Z](?: [A-Z])+\b|[\p{L}\p{N}][\p{L}\p{N}\p{M}\u200c\u200d]*(?:['\u2019][\p{L}\p{Nl}\p{No}\p{M}]+)*"
)


class Word(NamedTuple):
    """A word: as written, in lower case without inner spaces, its stem, its span."""

    text: str
    lower: str
    stem: str
    start: int
    end: int


def split_words(text: str) -> list[Word]:
    """Split a text in any script into words and numbers with their spans."""
    found = []
    for match in WORD.finditer(text):
        start = match.start()
        for word in cut_run(match[0]):
            lower = word.replace(" ", "").replace("\u2019", "'").lower()
            found.append(Word(word, lower, stem(lower), start, start + len(word)))
            start += len(word)
    return found


@functools.lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """Return the Porter 2 stem of a word in lower case: "diabetes" and "diabetic" both give "diabet".

    Words in "-itis" are not stemmed, or "prostatitis" would match "prostate". Synonyms in `lay_terms.csv` share a
    stem, so "mom" matches "mother".
    """
    return _same_meaning().get(_porter(word), _porter(word))


def _porter(word: str) -> str:
    return word if word.endswith("itis") else STEMMER.stemWord(word)


@functools.cache
def _same_meaning() -> dict[str, str]:
    rows = [names for kind, names in read_lay_terms() if kind == "word"]
    return {_porter(word): _porter(names[0]) for names in rows for word in names}


@functools.cache
def read_lay_terms() -> list[tuple[str, list[str]]]:
    """Read the table of lay and clinical synonyms: (kind, names of one meaning) per row."""
    with LAY_TERMS.open(encoding="utf-8", newline="") as stream:
        return [(row["kind"], row["names"].split("|")) for row in csv.DictReader(stream)]
