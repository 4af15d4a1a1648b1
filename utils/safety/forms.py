"""The form in which a drug of a sentence is taken: by mouth, by mouth with extended release, or another way."""

import re

from utils.safety.amounts import PIECE
from utils.safety.context import Sentence
from utils.safety.phrases import Mark

# `gel caps`, `liqui-gels`, drops and sprays for the mouth are taken by mouth
_OTHER = re.compile(
    r"\b(?:(?-i:IV|IM|SC)|iv|i\.[mv]|(?<=mg )im|(?:intravenous|inject|infus|intramuscular|subcutaneous|topical|rectal|"
    r"intrathecal|inhal|nebuli[sz]|transdermal|vaginal|suppositor|ointment|lotion|patch|plaster)\w*|creams?|enemas?|"
    r"(?<!soft )(?<!soft-)(?<!liqui-)(?<!liqui )gels?(?![\s-]*(?:cap|tab))|foam|drip|(?:eye|ear|nose) ?drops|"
    r"(?:nasal|nose) spray|pump spray|rub(?:bed|s|bing)?|appl(?:y|ied))\b",
    re.IGNORECASE,
)
_SWALLOWED = re.compile(rf"\b(?:{PIECE}|swallow\w*|by mouth|orally)", re.IGNORECASE)
_EXTENDED = re.compile(r"\b(?:er|xr|xl|sr|cr|mr|extended|sustained|modified|slow|prolonged)\b", re.IGNORECASE)
_ELSEWHERE = re.compile(
    r"[,;:()]|\.(?=\s|$)|\b(?:and|with|plus|but|while|instead|besides|rather|or|beside|than|after|stop|stopping)\b",
    re.IGNORECASE,
)
BEFORE, BEHIND = 30, 40  # characters around a dose and its drug in which its form may stand


def form_of(text: str, sentence: Sentence, span: tuple[int, int], drug: str, drugs: list[Mark]) -> str:
    """Return the form of a dose or name of a drug: `oral`, `er` or `other`.

    Words of another drug, or beyond a comma or `and`, do not count: `stop the cream and take ...`.

    Args:
        text: the text.
        sentence: the sentence of the dose.
        span: the dose or the name, in the text.
        drug: the drug of the dose.
        drugs: all drugs of the sentence.
    """
    low, high = sentence.span
    start, end = max(low, span[0]), min(high, span[1])
    own = [mark for mark in drugs if mark.value == drug]
    if own:  # the words between a drug and its dose belong to it
        mark = min(own, key=lambda mark: max(start - mark.end, mark.start - end))
        start, end = min(start, mark.start), max(end, mark.end)
    for mark in drugs:
        if mark.value != drug:
            low = max(low, mark.end) if mark.end <= start else low
            high = min(high, mark.start) if mark.start >= end else high
    before, behind = text[max(low, start - BEFORE) : start], text[end : min(high, end + BEHIND)]
    inside = text[start:end]
    for mark in reversed(drugs):  # other drugs between, with the word behind them: `ibuprofen gel`
        if mark.value != drug and start <= mark.start < end:
            rest = re.sub(r"^\s*\w+", "", inside[mark.end - start :])
            inside = inside[: mark.start - start] + rest
    behind = _ELSEWHERE.split(behind)[0] if behind else ""
    words = f"{_ELSEWHERE.split(before)[-1]}{inside}{behind}"
    if _OTHER.search(words) and not _SWALLOWED.search(words):
        return "other"
    return "er" if _EXTENDED.search(words) else "oral"
