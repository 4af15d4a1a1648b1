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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

TABLES = Path(__file__).parent / "tables"
LONGEST_SENTENCE = 200  # tokens; a longer one is cut, so that the time is linear in any text
SKIPPED = ""  # the word of a token that phrases pass over
LONGEST_GAP = 4  # words that a `*` may skip
# Numbers, words with apostrophes, line breaks before a blank line or a list item, single marks
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\n\s*?(?=\n|[-*\u2022]|\d+[.)])|[^\w\s]")
_APOSTROPHES = {
    word.replace("'", ""): word
    for word in (
        "can't", "couldn't", "didn't", "doesn't", "don't", "i'm", "i've", "isn't", "mustn't", "shouldn't", "wasn't",
        "won't", "you're", "you've",
    )
}  # fmt: skip
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


Phrases = dict[str, list[tuple[tuple, str, str]]]  # word that it begins with -> pattern, kind, value


@functools.cache
def read_table(name: str) -> list[dict[str, str]]:
    """Rows of `utils/safety/tables/<name>.csv`. Read once; callers must not change them."""
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def tokenize(text: str) -> list[Token]:
    """Words and marks of a text. Hyphens are dropped: `over-the-counter` is three words. Years are `#year`."""
    tokens = []
    for match in _TOKEN.finditer(text):
        word = "\n" if match[0][0] == "\n" else match[0].lower().replace("\u2019", "'")
        word = _APOSTROPHES.get(word, word)
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
    """Index (phrase, kind, value) by the words that the phrase can begin with; `form` is applied to each word, as it
    is to the words of the texts."""
    phrases: Phrases = {}
    for phrase, kind, value in rows:
        pattern: list[tuple[frozenset[str] | None, bool]] = []  # words, None for a gap; whether it may be missing
        for part in phrase.lower().replace("-", " ").split():
            if part == "*":
                pattern.append((None, False))
            elif "|" in part or part.endswith("?") or part == "#year":
                options = frozenset(form(word) for word in part.removesuffix("?").split("|"))
                pattern.append((options, part.endswith("?")))
            else:  # may be several tokens: `st.`
                pattern += [(frozenset([form(token.word)]), False) for token in tokenize(part)]
        for options, optional in pattern:
            for word in options or ():
                phrases.setdefault(word, []).append((tuple(pattern), kind, value))
            if not optional:
                break
    return phrases


def find_phrases(phrases: Phrases, tokens: list[Token]) -> list[Mark]:
    """Phrases in a sentence, in order. Of the phrases of one kind's group (the part before `:`) that overlap, the one
    that begins first counts, and of those the longest: `do not forget to take` is not `do not`."""
    words = [token.word for token in tokens]
    marks: list[Mark] = []
    free: dict[str, int] = {}  # group -> first token that no phrase of the group holds
    for i, word in enumerate(words):
        found: dict[str, tuple[int, str, str]] = {}
        for pattern, kind, value in phrases.get(word, ()):
            group = kind.partition(":")[0]
            if free.get(group, 0) <= i and (end := _match(pattern, 0, words, i)) > found.get(group, (0, "", ""))[0]:
                found[group] = end, kind, value
        for group, (end, kind, value) in found.items():
            marks.append(Mark(kind.partition(":")[2] or kind, value, i, end - 1, tokens[i].start, tokens[end - 1].end))
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
