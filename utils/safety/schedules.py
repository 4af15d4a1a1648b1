"""Daily doses given as a plan: `two in the morning, two at noon and two at night`, `then another 10 mg`.

`utils.safety.doses` reads an amount and its frequency in one sentence. This module reads all sentences of an answer
about one drug together: it adds up amounts at parts of the day, and a strength stated once (`Brufen 600`, `each caplet
holds 650 mg`) applies to later counts.
"""

import re
from typing import NamedTuple

from utils.safety.amounts import MG, PIECES, WORDS, parse_number
from utils.safety.doses import find_frequency
from utils.safety.phrases import Token, split_sentences, tokenize

MAX_PIECES = 16  # larger counts are packs, ages or numbers of days
_SLOT = re.compile(
    r"(?P<meals>\b(?:with|at|before|after) (?:each|every|all)(?: of)?(?: your| the)? meals?\b)|"
    r"\b(?:mornings?|breakfast|noon|midday|lunch(?:time)?|afternoons?|teatime|evenings?|dinner|supper|nights?|"
    r"(?:to )?bed(?:time)?|onset|now|straight away)\b",
    re.IGNORECASE,
)
_PARTS = {
    "morning": ("morning", "breakfast"),
    "noon": ("noon", "midday", "lunch", "lunchtime"),
    "evening": ("evening", "dinner", "supper"),
    "night": ("night", "bed", "bedtime"),
}
_HEADING = re.compile(
    r"(?:morning|breakfast|noon|midday|lunch|afternoon|evening|dinner|supper|night|bedtime)\s*[:|\u2013-]\s*$", re.I
)
_MORE = re.compile(r"\b(?:another|a further|an extra|again)\s+(?:[\w-]+\s+)?$|^\s*(?:more|extra)\b", re.IGNORECASE)
_LATER = re.compile(r"\b(?:wait|repeat\w*[^.]{0,20}?|after)\s+(\w+) hours?\b", re.IGNORECASE)
# Texts that must not be added up: limits, negations, doses that change over weeks
_NO_PLAN = re.compile(
    r"\b(?:not|never|don't|mustn't|shouldn't|cannot|can't|maximum|max|exceed\w*|no more|limit\w*|overdose|increas\w*|"
    r"titrat\w*|build up|step up|(?:next|second|third|following) week|week (?:one|two|\d)|"
    r"after (?:a|one|two|\d) weeks?)\b",
    re.IGNORECASE,
)
_AFTER_COUNT = frozenset("in at with before after every each more now again around when on to".split())
_PEOPLE = frozenset("age child children boy boys girl girls kid kids baby toddler".split())
_NO_COUNT = frozenset("hour hr h time day week month minute year night meal dose percent % ml am pm /".split())


class Plan(NamedTuple):
    """Maximum mg per day of a text, with the span from its first to its last amount."""

    mg: float
    start: int
    end: int


class _Amount(NamedTuple):
    """An amount in mg with its span; `counted`: whether it is a count of pieces."""

    mg: float
    start: int
    end: int
    counted: bool


def find_plan(text: str, strength: float | None, names: list[str]) -> Plan | None:
    """Find the maximum daily dose of a plan.

    Args:
        text: sentences about one drug.
        strength: mg per piece, if the question or the name states it (`Brufen 600`).
        names: names of the drug in lower case, for `two 500 mg Panadol`.

    Returns:
        None without a plan, or if the text limits, negates or changes doses over weeks.
    """
    if _is_no_plan(text):
        return None
    amounts = _amounts(text, strength, set(names))
    added, repeated, is_taken = 0.0, 0.0, False
    for i, amount in enumerate(amounts):
        ahead = text[amount.end : amounts[i + 1].start if i + 1 < len(amounts) else len(text)]
        back = text[max(0, amount.start - 16) : amount.start]
        if re.search(r"\bor\s+$", back, re.IGNORECASE):
            continue
        slots = _times_of_day(ahead)
        frequency, later = find_frequency(ahead), _LATER.search(ahead)
        # `find_doses` reads amounts with a frequency in the same sentence
        if frequency and (amount.counted or "." in ahead[: frequency[2]]):
            repeated = max(repeated, amount.mg * frequency[1])
        if later and re.search(r"repeat|another|again", ahead, re.IGNORECASE) and (hours := _value(later[1])):
            repeated = max(repeated, amount.mg * 24 / hours)
        if _HEADING.search(back):
            added += amount.mg
        elif slots:
            added += amount.mg * slots
        elif is_taken and (_MORE.search(back) or _MORE.match(ahead)):
            added += amount.mg
        else:
            continue
        is_taken = True
    highest = max(added, repeated)
    return Plan(highest, amounts[0].start, amounts[-1].end) if highest else None


def _times_of_day(text: str) -> int:
    """Return how many times of the day a text names. `In the morning, before breakfast` is one."""
    found = [match for match in _SLOT.finditer(text) if not _HEADING.match(text, match.start())]
    words = {match[0].lower().removeprefix("to ") for match in found if not match["meals"]}
    parts = {next((part for part, names in _PARTS.items() if word.rstrip("s") in names), word) for word in words}
    return len(parts) + 3 * sum(bool(match["meals"]) for match in found)


def _is_no_plan(text: str) -> bool:
    """Return whether a sentence with a number limits, negates or changes doses over weeks. `Do not exceed the dose` or
    `this is not medical advice` says nothing of the plan."""
    return any(
        _NO_PLAN.search(text[tokens[0].start : tokens[-1].end]) and any(_value(token.word) for token in tokens)
        for tokens in split_sentences(text)
    )


def _amounts(text: str, strength: float | None, names: set[str]) -> list[_Amount]:
    """Find the amounts of a text in mg, in order. Counts of pieces need a strength that is known by then."""
    tokens = tokenize(text)
    found: list[_Amount] = []
    # a count whose strength follows: `four caplets (500 mg each)`
    counted: tuple[float, Token, int] | None = None
    i = 0
    while i < len(tokens):
        value, after = _read_number(tokens, i)
        if value is None:
            i += 1
            continue
        unit = tokens[after].word.rstrip("s") if after < len(tokens) else ""
        if i and tokens[i - 1].word in names and unit not in MG and unit not in ("hour", "hr"):  # `Brufen 600`
            strength, i = value, after
            continue
        if unit in MG:
            mg, nearby = value * MG[unit], {t.word for t in tokens[max(0, i - 3) : after + 3]}
            if after + 1 < len(tokens) and tokens[after + 1].word == "/":
                return []  # per kg or per mL
            if counted and strength and abs(counted[0] * strength - mg) < 1e-6:  # `6 capsules (12 mg)` of 2 mg
                found.append(_Amount(mg, counted[1].start, tokens[after].end, True))
            elif counted and i - counted[2] <= 6:
                found.append(_Amount(counted[0] * mg, counted[1].start, tokens[after].end, True))
                strength = mg
            else:
                found.append(_Amount(mg, tokens[i].start, tokens[after].end, False))
                strength = mg if strength is None or nearby & {"each", *PIECES} else strength
            counted = None
        elif (
            value <= MAX_PIECES
            and unit not in _NO_COUNT
            and not _is_age(tokens, i)
            and _counts_pieces(tokens, after, names)
        ):
            ahead = [token.word for token in tokens[after : after + 6]]
            if strength and not (set(ahead) & set(MG)):
                found.append(_Amount(value * strength, tokens[i].start, tokens[after - 1].end, True))
            else:
                counted = (value, tokens[i], after)
        i = max(after, i + 1)
    return found


def _is_age(tokens: list[Token], i: int) -> bool:
    """Return whether the number at token i is an age: `aged 10`, `a child of 10`."""
    before = [token.word for token in tokens[max(0, i - 2) : i]]
    return before[-1:] in (["age"], ["aged"]) or (before[-1:] == ["of"] and before[0] in _PEOPLE)


def _counts_pieces(tokens: list[Token], at: int, names: set[str]) -> bool:
    """Return whether a number before `at` counts pieces: a piece, name, part of the day or nothing follows."""
    words = [token.word for token in tokens[at : at + 4]]
    if not words or words[0] in {",", ".", ";", "\n", "and", "("} | _AFTER_COUNT:
        return True
    return bool({*PIECES, "of", *names} & set(words[:3])) or words[0].isdigit()


def _read_number(tokens: list[Token], i: int) -> tuple[float | None, int]:
    """Return (number at token i or None, index after it). For a range it is the higher number."""
    value, at = _one_number(tokens, i)
    if value is not None and at + 1 < len(tokens) and tokens[at].word in ("to", "or", "\u2013"):
        higher, behind = _one_number(tokens, at + 1)
        if higher is not None and higher > value:
            return higher, behind
    return value, at


def _one_number(tokens: list[Token], i: int) -> tuple[float | None, int]:
    """Read a single number, as above: `500`, `one hundred and fifty`, `two and a half`, `a` before a piece."""
    word = tokens[i].word
    following = [token.word for token in tokens[i + 1 : i + 4]]
    if word in ("a", "an") and following and following[0] in {*PIECES, "gram", "hundred"}:
        value: float | None = 1.0
    else:
        value = _value(word)
    if value is None:
        return None, i + 1
    at = i + 1
    if following[:1] in (["hundred"], ["thousand"]):
        value, at = value * (100 if following[0] == "hundred" else 1000), at + 1
        rest = at + 1 if at < len(tokens) and tokens[at].word == "and" else at
        more = _value(tokens[rest].word) if rest < len(tokens) else None
        if more and not tokens[rest].word[0].isdigit():
            value, at = value + more, rest + 1
    elif following == ["and", "a", "half"]:
        value, at = value + 0.5, at + 3
    return value, at


def _value(word: str) -> float | None:
    if word in WORDS:
        return float(WORDS[word])
    try:
        return parse_number(word) if word[0].isdigit() else None
    except ValueError:
        return None
