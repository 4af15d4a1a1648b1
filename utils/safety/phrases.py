"""Find the phrases of the safety tables in a text, in one pass over its words.

Phrases are words with a small syntax that clinicians can read and change:

    chest pain                    these words in this order; case and hyphens are ignored
    pain|pressure in my chest     alternatives for a word
    pain * chest                  up to four words between, within one clause
    severe? chest pain            an optional word
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
MAX_SENTENCE = 200  # tokens; longer sentences are split, which keeps the time linear
SKIPPED = ""  # replaces words that phrases must ignore
MAX_GAP = 4  # words that `*` may skip
# Numbers, words with apostrophes, line breaks before a blank line or a list item, single marks
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\n\s*?(?=\n|[-*\u2022]|\d+[.)])|[^\w\s]")
_YEAR = re.compile(r"(?:19|20)\d\d")
_ENDS = {".", "!", "?", "\n"}
_ABBREVIATIONS = {"dr", "mr", "mrs", "ms", "st", "vs", "e.g", "i.e", "approx", "a", "b", "q", "t", "i", "d", "m", "p"}
_BREAKS = {",", ";", ":", "(", ")", "\u2014", *_ENDS}


class Token(NamedTuple):
    """A lower-case word or a punctuation mark, with its span in the text."""

    word: str
    start: int
    end: int


class Mark(NamedTuple):
    """A match of a phrase: what it stands for, its first and last token, its span in the text."""

    kind: str
    value: str
    first: int
    last: int
    start: int
    end: int


class Phrase(NamedTuple):
    """A compiled phrase.

    pattern: (alternatives or None for a gap, whether it is optional) of each position.
    starts: words that it can begin with.
    second: words of which the sentence must contain at least one.
    row: index in the table; of equally long matches that of the first row counts.
    group: of overlapping matches of a group only one counts.
    kind, value: what it stands for.
    """

    pattern: tuple[tuple[frozenset[str] | None, bool], ...]
    starts: frozenset[str]
    second: frozenset[str]
    row: int
    group: str
    kind: str
    value: str


Phrases = dict[str, list[Phrase]]  # word -> phrases that require it or one of its alternatives


@functools.cache
def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of `utils/safety/tables/<name>.csv`. They are cached: callers must not change them."""
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@functools.cache
def _spellings() -> dict[str, str]:
    return {row["written"]: row["meant"] for row in read_table("spellings")}


def tokenize(text: str) -> list[Token]:
    """Split a text into words and punctuation marks.

    Hyphens are dropped: `over-the-counter` is three words. Years become `#year`. Spellings are normalized by
    `spellings.csv`: `cant` becomes `can't`, `brething` becomes `breathing`.
    """
    tokens, spellings = [], _spellings()
    for match in _TOKEN.finditer(text):
        word = "\n" if match[0][0] == "\n" else match[0].lower().replace("\u2019", "'")
        word = spellings.get(word, word)
        word = "#year" if _YEAR.fullmatch(word) else word
        if word not in ("-", "\u2010", "\u2011"):
            tokens.append(Token(word, match.start(), match.end()))
    return tokens


def split_sentences(text: str) -> list[list[Token]]:
    """Return the tokens of each sentence. List items and paragraphs end one; `Dr.`, `b.i.d.` and `2.5` do not."""
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
    pieces = [s[i : i + MAX_SENTENCE] for s in sentences for i in range(0, len(s), MAX_SENTENCE)]
    return [piece for piece in pieces if len(piece) > 1 or piece[0].word not in _ENDS]


def compile_phrases(rows: Iterable[tuple[str, str, str]], form: Callable[[str], str] = str) -> Phrases:
    """Compile (phrase, kind, value) rows for `find_phrases`.

    Each phrase is indexed by its rarest required words, so most phrases are never tried on a sentence. A `kind` may be
    `group:kind`.

    Args:
        rows: rows of a table.
        form: normalization of words, such as a stemmer. Texts must be normalized in the same way.
    """
    compiled = []
    for row, (written, kind, value) in enumerate(rows):
        pattern: list[tuple[frozenset[str] | None, bool]] = []
        for part in written.lower().replace("-", " ").split():
            if part == "*":
                pattern.append((None, False))
            elif "|" in part or part.endswith("?") or part == "#year":
                words = part.removesuffix("?").split("|")
                options = frozenset(form(_spellings().get(word, word)) for word in words)
                pattern.append((options, part.endswith("?")))
            else:  # can be several tokens: `st.`
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
    """Find phrases in a sentence, in order.

    Of overlapping matches of one group the one that starts first counts, and of these the longest: `do not forget to
    take` is not `do not`.

    Args:
        phrases: from `compile_phrases`.
        tokens: tokens of the sentence.
        words: normalized words of the tokens, if they differ.
    """
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
    free: dict[str, int] = {}  # group -> first token after its last match
    for (i, group), (end, _, phrase) in sorted(found.items(), key=lambda item: (item[0][0], -item[1][1])):
        if free.get(group, 0) <= i:
            marks.append(Mark(phrase.kind, phrase.value, i, end - 1, tokens[i].start, tokens[end - 1].end))
            free[group] = end
    return marks


def _match(pattern: tuple, at: int, words: list[str], i: int) -> int:
    """Return the index after a match of the pattern, or -1. Takes at most (MAX_GAP + 1) ** gaps steps."""
    if at == len(pattern):
        return i
    if i < len(words) and words[i] == SKIPPED:
        return _match(pattern, at, words, i + 1)
    options, optional = pattern[at]
    if options is None:
        for skip in range(MAX_GAP + 1):
            if skip and (i + skip > len(words) or words[i + skip - 1] in _BREAKS):
                return -1
            if (end := _match(pattern, at + 1, words, i + skip)) >= 0:
                return end
        return -1
    if i < len(words) and words[i] in options and (end := _match(pattern, at + 1, words, i + 1)) >= 0:
        return end
    return _match(pattern, at + 1, words, i) if optional else -1
