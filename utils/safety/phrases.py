"""Find the phrases of the safety tables in a text: one pass over its words, whatever the number of phrases.

A phrase is words with a small language on top, so that a clinician can read and change the tables:

    chest pain                    these words in this order, case and hyphens do not matter
    pain|pressure in my chest     one of several words
    pain * chest                  up to four words between, within one clause
    severe? chest pain            a word that may be missing
    in #year                      a year from 1900 to 2099
"""

import csv
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

TABLES = Path(__file__).parent / "tables"
LONGEST_SENTENCE = 200  # tokens; a longer one is cut, so that the time is linear in any text
SKIPPED = ""  # the word of a token that phrases pass over
LONGEST_GAP = 4  # words that a `*` may skip
# Numbers, words with apostrophes, line breaks before a blank line or a list item, single marks
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\n\s*?(?=\n|[-*\u2022]|\d+[.)])|[^\w\s]")
_YEAR = re.compile(r"(?:19|20)\d\d")
_ENDS = {".", "!", "?", "\n"}
_ABBREVIATIONS = {"dr", "mr", "mrs", "ms", "st", "vs", "e.g", "i.e", "approx", "a", "b", "q", "t", "i", "d", "m", "p"}
_BREAKS = {",", ";", ":", "(", ")", "\u2014", *_ENDS}


class Token(NamedTuple):
    """A word or mark in small letters, and where it is in the text."""

    word: str
    start: int
    end: int


class Mark(NamedTuple):
    """A phrase that was found: what it stands for, its first and last token, where it is in the text."""

    kind: str
    value: str
    first: int
    last: int
    start: int
    end: int


class Phrase(NamedTuple):
    """A phrase of a table: words or None for a gap, each with whether it may be missing; the words it can begin with;
    words of which it needs one too; of the phrases of one group that overlap only one counts, of two that are as long
    that of the first row."""

    pattern: tuple[tuple[frozenset[str] | None, bool], ...]
    starts: frozenset[str]
    second: frozenset[str]
    row: int
    group: str
    kind: str
    value: str


Phrases = dict[str, list[Phrase]]  # word -> phrases that need it (or one of its alternatives)


@functools.cache
def read_table(name: str) -> list[dict[str, str]]:
    """Rows of `utils/safety/tables/<name>.csv`. Read once; callers must not change them."""
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@functools.cache
def _spellings() -> dict[str, str]:
    return {row["written"]: row["meant"] for row in read_table("spellings")}


def tokenize(text: str) -> list[Token]:
    """Words and marks of a text. Hyphens are dropped: `over-the-counter` is three words. Years are `#year`; words as
    `spellings.csv` reads them: `cant` is `can't`, `brething` is `breathing`."""
    tokens, spellings = [], _spellings()
    for match in _TOKEN.finditer(text):
        word = "\n" if match[0][0] == "\n" else match[0].lower().replace("\u2019", "'")
        word = spellings.get(word, word)
        word = "#year" if _YEAR.fullmatch(word) else word
        if word not in ("-", "\u2010", "\u2011"):
            tokens.append(Token(word, match.start(), match.end()))
    return tokens


def split_sentences(text: str) -> list[list[Token]]:
    """Tokens of each sentence; a list item and a paragraph end one, `Dr.`, `b.i.d.` and `2.5` do not."""
    tokens, sentences, start = tokenize(text), [], 0
    for i, token in enumerate(tokens):
        if token.word not in _ENDS:
            continue
        if token.word == ".":
            inside = token.end < len(text) and not text[token.end].isspace() and text[token.end] not in "\"')\u201d"
            capital = i + 1 < len(tokens) and text[tokens[i + 1].start].isupper()
            before = tokens[i - 1].word if i else ""
            if inside or (before in _ABBREVIATIONS and not (capital and len(before) == 1)) or before == "st":
                continue
        sentences.append(tokens[start : i + 1])
        start = i + 1
    sentences.append(tokens[start:])
    pieces = [s[i : i + LONGEST_SENTENCE] for s in sentences for i in range(0, len(s), LONGEST_SENTENCE)]
    return [piece for piece in pieces if len(piece) > 1 or piece[0].word not in _ENDS]


def compile_phrases(rows: Iterable[tuple[str, str, str]], form: Callable[[str], str] = str) -> Phrases:
    """Index (phrase, kind, value) by the rarest words of the phrase, which a sentence must have, so that most phrases
    are never tried; `form` is applied to each word, as it is to the words of the texts."""
    compiled = []
    for row, (phrase, kind, value) in enumerate(rows):
        pattern: list[tuple[frozenset[str] | None, bool]] = []
        for part in phrase.lower().replace("-", " ").split():
            if part == "*":
                pattern.append((None, False))
            elif "|" in part or part.endswith("?") or part == "#year":
                words = part.removesuffix("?").split("|")
                options = frozenset(form(_spellings().get(word, word)) for word in words)
                pattern.append((options, part.endswith("?")))
            else:  # may be several tokens: `st.`
                pattern += [(frozenset([form(token.word)]), False) for token in tokenize(part)]
        first = next(i for i, (_, optional) in enumerate(pattern) if not optional)
        starts = frozenset(word for options, _ in pattern[: first + 1] for word in options or ())
        group, _, name = kind.rpartition(":")
        compiled.append(Phrase(tuple(pattern), starts, starts, row, group or kind, name, value))
    counts = Counter(word for phrase in compiled for options, _ in phrase.pattern for word in options or ())
    phrases: Phrases = {}
    for phrase in compiled:
        wanted = [options for options, optional in phrase.pattern if options and not optional]
        rarest, *others = sorted(wanted, key=lambda options: sum(counts[word] for word in options))
        phrase = phrase._replace(second=others[0] if others else phrase.starts)
        for word in rarest:
            phrases.setdefault(word, []).append(phrase)
    return phrases


def find_phrases(phrases: Phrases, tokens: list[Token], words: list[str] | None = None) -> list[Mark]:
    """Phrases in a sentence, in order; `words` to read in place of those of the tokens. Of the phrases of one
    kind's group (the part before `:`) that overlap, the one that begins first counts, and of those the longest: `do
    not forget to take` is not `do not`."""
    words = words or [token.word for token in tokens]
    present = set(words)
    places: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        places.setdefault(word, []).append(i)
    found: dict[tuple[int, str], tuple[int, int, Phrase]] = {}
    for word in places:
        for phrase in phrases.get(word, ()):
            if phrase.second.isdisjoint(present):
                continue
            for start in phrase.starts & present:
                for i in places[start]:
                    end = _match(phrase.pattern, 0, words, i)
                    if end >= 0 and (end, -phrase.row) > found.get((i, phrase.group), (-1, 0))[:2]:
                        found[i, phrase.group] = end, -phrase.row, phrase
    marks: list[Mark] = []
    free: dict[str, int] = {}  # group -> first token that no phrase of the group holds
    for (i, group), (end, _, phrase) in sorted(found.items(), key=lambda item: (item[0][0], -item[1][1])):
        if free.get(group, 0) <= i:
            marks.append(Mark(phrase.kind, phrase.value, i, end - 1, tokens[i].start, tokens[end - 1].end))
            free[group] = end
    return marks


def _match(pattern: tuple, at: int, words: list[str], i: int) -> int:
    """Index after the last word of the pattern, or -1. At most (LONGEST_GAP + 1) ** gaps steps."""
    if at == len(pattern):
        return i
    if i < len(words) and words[i] == SKIPPED:
        return _match(pattern, at, words, i + 1)
    options, optional = pattern[at]
    if options is None:
        for skip in range(LONGEST_GAP + 1):
            if skip and (i + skip > len(words) or words[i + skip - 1] in _BREAKS):
                return -1
            if (end := _match(pattern, at + 1, words, i + skip)) >= 0:
                return end
        return -1
    if i < len(words) and words[i] in options and (end := _match(pattern, at + 1, words, i + 1)) >= 0:
        return end
    return _match(pattern, at + 1, words, i) if optional else -1
