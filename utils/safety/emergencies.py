"""What must not wait for a model: emergencies that somebody has now, and harmful requests."""

import re

from utils.safety.context import Finding, Sentence, is_denied, make_finding
from utils.safety.phrases import Mark, read_table

TELEGRAM_WORDS = 14  # a text without a person that is no longer is read as a report: `Crushing chest pain, sweating.`
ADDRESSED = 4  # words from `you are having` to the sign
INFANT = "https://www.meningitis.org/meningitis/safety-netting-resources-hub"  # 38 C under three months: red
_FORBID = ("prohibit_forward", "prohibit_both", "neutral")
_FIRST_PERSON = {"i", "i'm", "i've", "my"}
_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
_YOUNG = re.compile(
    rf"\b(?:newborn|neonate|(?P<n>\d{{1,3}}|{'|'.join(_SMALL[1:])})[\s-]*(?P<unit>day|week|month)s?[\s-]*old)\b",
    re.IGNORECASE,
)
_UNIT_IN_MONTHS = {"d": 30.4, "w": 4.35, "m": 1.0}
_TEMPERATURE = re.compile(
    r"\b(?:fever|temperature|temp|thermometer|burning up|feels hot|(?:38|39|4[012])\.\d)\b", re.IGNORECASE
)
_DEGREES = re.compile(r"\b\d{2,3}(?:\.\d+)?\b")


def find_emergencies(sentences: list[Sentence], is_answer: bool) -> list[Finding]:
    """Red flags that somebody has now. One finding a rule: the first."""
    rows = {row["rule"]: row for row in read_table("red_flags")}
    found: dict[str, Finding] = {}
    for sentence in sentences:
        for mark in sentence.marks:
            if mark.kind in ("flag", "sign") and mark.value not in found and _is_present(mark, sentence, is_answer):
                row = rows[mark.value]
                span = (mark.start, mark.end)
                found[mark.value] = make_finding(mark.value, "emergency", 4, row["message"], span, row["source"])
    return list(found.values())


def _is_present(flag: Mark, sentence: Sentence, is_answer: bool) -> bool:
    """Whether somebody has the sign now: not denied, not long ago, not a general sentence or question about it."""
    if sentence.has("past") or is_denied(flag, sentence):
        return False
    clause = sentence.clauses[flag.first]
    frames = [mark for mark in sentence.marks if sentence.clauses[mark.first] == clause]
    if any(m.kind == "education" or (m.kind == "premise" and m.first < flag.first) for m in frames):
        return False
    if is_answer:
        words = {token.word for token in sentence.tokens}
        addressed = any(m.kind == "you" and 0 < flag.first - m.last <= ADDRESSED for m in sentence.marks)
        general = sentence.has("if", "somebody", "hypothetical", "history", "study") or sentence.is_question
        return (addressed or not words.isdisjoint(_FIRST_PERSON)) and not general
    telegram = not sentence.is_question and len(sentence.tokens) <= TELEGRAM_WORDS
    return sentence.has("person") or telegram


def find_infant_fever(text: str, age: float | None) -> list[Finding]:
    """A temperature of 38 C (100.4 F) or more in a child under three months; the text or `age`, in years, says so."""
    words, young = _TEMPERATURE.search(text), _YOUNG.search(text)
    if young and young["n"]:
        number = int(young["n"]) if young["n"].isdigit() else _SMALL.index(young["n"].lower())
        young = young if number / _UNIT_IN_MONTHS[young["unit"][0].lower()] < 3 else None
    if not words or (not young and (age is None or age >= 0.25)):
        return []
    degrees = [m for m in _DEGREES.finditer(text) if 38 <= float(m[0]) <= 43 or 100.4 <= float(m[0]) <= 110]
    if not degrees:
        return []
    span = (min(words.start(), degrees[0].start()), max(words.end(), degrees[0].end()))
    return [make_finding("infant_fever", "emergency", 4, "fever under three months of age", span, INFANT)]


def has_referral(sentences: list[Sentence]) -> bool:
    """Whether an answer sends to an emergency service, and does not advise against it."""
    return any(
        mark.kind == "referral" and not is_denied(mark, sentence, *_FORBID)
        for sentence in sentences
        for mark in sentence.marks
    )


def find_harmful_requests(sentences: list[Sentence]) -> list[Finding]:
    rows = {row["rule"]: row for row in read_table("harmful_requests")}
    found: dict[str, Finding] = {}
    for sentence in sentences:
        for mark in sentence.marks:
            if mark.kind == "request" and mark.value not in found and not is_denied(mark, sentence):
                row = rows[mark.value]
                found[mark.value] = make_finding(
                    mark.value,
                    "harmful_request",
                    int(row["severity"]),
                    row["message"],
                    (mark.start, mark.end),
                    row["source"],
                )
    return list(found.values())


def find_downplayed(sentences: list[Sentence]) -> list[Finding]:
    """Red flags, conditional ones too (`if you have chest pain`), with advice to stay at home in the same sentence."""
    rows = {row["rule"]: row for row in read_table("red_flags")}
    findings = []
    for sentence in sentences:
        flags = [mark for mark in sentence.marks if mark.kind in ("flag", "sign")]
        downplays = [
            mark for mark in sentence.marks if mark.kind == "downplay" and not is_denied(mark, sentence, *_FORBID)
        ]
        if flags and downplays and not sentence.has("referral"):
            row = rows[flags[0].value]
            span = (min(flags[0].start, downplays[0].start), max(flags[0].end, downplays[0].end))
            message = f"{row['message']}: the answer advises against help"
            findings.append(make_finding(f"{row['rule']}_downplayed", "emergency", 4, message, span, row["source"]))
    return findings
