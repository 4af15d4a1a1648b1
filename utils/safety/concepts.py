"""Map lay wording to concepts, and find combinations: `mum's mouth has slid to one side` is `face + droop`.

Red flags and harmful requests have endless wordings, so the tables list combinations of concepts instead of sentences.
`concepts.csv` has the phrases of each concept (source: `wording`, written by the authors, or the lay synonyms of a
Human Phenotype Ontology term); `red_flags.csv` and `harmful_requests.csv` combine concepts. Words are compared by
Snowball stem: `slur` matches `slurs`, `slurred` and `slurring`.

    face + droop                both within `WINDOW` words, in any order, across sentences
    chest + pain - muscular     as above, with no mention of the third near them in their sentences
"""

import functools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import Stemmer

from utils.safety.phrases import SKIPPED, Mark, Phrases, Token, compile_phrases, find_phrases, read_table

WINDOW = 22  # maximum words between the first concept of a combination and each of the others
_STEMMER = Stemmer.Stemmer("english")
_SHORT = {
    word: f"{word}n't" for word in ("do", "does", "did", "is", "are", "was", "were", "has", "have", "had", "could")
}
_SHORT |= {"can": "can't", "cannot": "can't", "will": "won't", "would": "wouldn't"}
_CANNOT = {("not", "able"), ("isn't", "able"), ("aren't", "able"), ("wasn't", "able"), ("no", "fit")}  # Nigerian
_UNSTEMMED = {"several", "severity", "quite", "aed", "heroine"}  # would share stems: `severe`, `quit`, `heroin`


class Combination(NamedTuple):
    """Concepts of a rule that must occur together, on different words, and concepts that must not be near."""

    rule: str
    all_of: tuple[str, ...]
    none_of: tuple[str, ...]


@functools.lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """Return the Snowball stem of a lower-case word, or `#fever` for a decimal number that is a fever in C or F."""
    if word[:1].isdigit() and "." in word and word.count(".") == 1 and "," not in word:
        return "#fever" if 38 <= float(word) < 43 or 100.4 <= float(word) < 108 else word
    return word if word in _UNSTEMMED else _STEMMER.stemWord(word)


@functools.cache
def _concepts() -> Phrases:
    rows = [(phrase, row["concept"]) for row in read_table("concepts") for phrase in row["phrases"].split(";")]
    return compile_phrases(((phrase, f"{name}:{name}", "") for phrase, name in rows), stem)


@functools.cache
def combinations(table: str) -> tuple[Combination, ...]:
    """Return the combinations of the table `red_flags` or `harmful_requests`, in order."""
    found = []
    for row in read_table(table):
        wanted, *unwanted = row["combination"].split(" - ")
        found.append(Combination(row["rule"], tuple(wanted.split(" + ")), tuple(unwanted)))
    return tuple(found)


def find_concepts(tokens: list[Token]) -> list[Mark]:
    """Find the concepts of a sentence, in order. Concepts may overlap, mentions of one concept do not.

    `does not` is read as `doesn't`; `cannot`, `not able to` and `no fit` are read as `can't`.
    """
    words = [token.word for token in tokens]
    for i, word in enumerate(words):
        if (word, *words[i + 1 : i + 2]) in _CANNOT:
            words[i : i + 2] = "can't", SKIPPED
            words[i + 2 : i + 3] = [SKIPPED if after == "to" else after for after in words[i + 2 : i + 3]]
        elif word == "not" and i and (short := _SHORT.get(words[i - 1])):
            words[i - 1], words[i] = short, SKIPPED
    read = [stem(_SHORT.get(word, word) if word == "cannot" else word) for word in words]
    return find_phrases(_concepts(), tokens, read)


def find_combinations(table: str, marks: list[Mark], starts: Sequence[int] = (0,)) -> list[tuple[str, list[Mark]]]:
    """Return (rule, marks) of the first match of each rule of a table.

    Args:
        table: `red_flags` or `harmful_requests`.
        marks: of the whole text, in order.
        starts: index of the first token of each sentence. What speaks against a rule counts in the sentences of its
            marks only: `I pulled a muscle last week` in another one does not make a crushing chest harmless.
    """
    by_concept: dict[str, list[Mark]] = {}
    for mark in marks:
        by_concept.setdefault(mark.kind, []).append(mark)
    found: dict[str, list[Mark]] = {}
    for rule, all_of, none_of in combinations(table):
        if rule in found or any(name not in by_concept for name in all_of):
            continue
        for anchor in by_concept[all_of[0]]:
            chosen = _around(anchor, [by_concept[name] for name in all_of[1:]])
            sentences = {bisect_right(starts, mark.first) for mark in chosen}
            against = [mark for name in none_of for mark in _near(anchor, by_concept.get(name, []))]
            if chosen and not any(bisect_right(starts, mark.first) in sentences for mark in against):
                found[rule] = sorted(chosen, key=lambda mark: mark.first)
                break
    return list(found.items())


def _around(anchor: Mark, others: list[list[Mark]]) -> list[Mark]:
    """Return the anchor with the nearest mark of each other concept, or [] if one is missing.

    Marks may not share their first or last words, but one may lie in the gap of another (`how many * kill`).
    """
    chosen = [anchor]
    for marks in others:
        free = [m for m in _near(anchor, marks) if not any({m.first, m.last} & {c.first, c.last} for c in chosen)]
        if not free:
            return []
        chosen.append(min(free, key=lambda mark: abs(mark.first - anchor.first)))
    return chosen


def _near(anchor: Mark, marks: list[Mark]) -> list[Mark]:
    low = bisect_left(marks, anchor.first - WINDOW, key=lambda mark: mark.first)
    high = bisect_left(marks, anchor.last + WINDOW + 1, key=lambda mark: mark.first)
    return marks[low:high]
