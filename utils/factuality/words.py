"""Words of a text with their places and stems."""

import csv
import functools
import re
from pathlib import Path
from typing import NamedTuple

import Stemmer

# What patients say and what doctors write: rows of names of one finding, and of words of one meaning. A name in
# capitals is an abbreviation and counts only in capitals.
LAY_TERMS = Path(__file__).with_name("lay_terms.csv")

STEMMER = Stemmer.Stemmer("english")
# letters with inner apostrophes, or a number; letters spelt out ("M G", "E K G") are one word
WORD = re.compile(r"\b[A-Z](?: [A-Z])+\b|[^\W_]+(?:['\u2019][^\W\d_]+)*")


class Word(NamedTuple):
    """A word of a text: as it stands there, in small letters without spaces inside, its stem, its place."""

    text: str
    lower: str
    stem: str
    start: int
    end: int


def split_words(text: str) -> list[Word]:
    """Split a text into words and numbers with their places."""
    found = []
    for match in WORD.finditer(text):
        lower = match[0].replace(" ", "").replace("\u2019", "'").lower()
        found.append(Word(match[0], lower, stem(lower), match.start(), match.end()))
    return found


@functools.lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """Return the stem of a word in small letters (Porter 2): "diabetes" and "diabetic" are both "diabet".

    An inflammation keeps its ending, or prostatitis would be the prostate; words of one meaning in `lay_terms.csv`
    have one stem, so that "mom" is "mother".
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
    """Read the table of what patients say and what doctors write: (kind, names of one meaning) a row."""
    with LAY_TERMS.open(encoding="utf-8", newline="") as stream:
        return [(row["kind"], row["names"].split("|")) for row in csv.DictReader(stream)]
