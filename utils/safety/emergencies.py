"""Find current emergencies and harmful requests, which must not wait for a model."""

import itertools
import re
from collections.abc import Sequence

from utils.safety.concepts import find_combinations
from utils.safety.context import Finding, Sentence, is_denied, make_finding
from utils.safety.frames import (
    ASKING,
    is_asking,
    is_exam,
    is_framed,
    is_general,
    is_past,
    is_resolved,
    question_start,
    telling_start,
)
from utils.safety.phrases import Mark, read_table
from utils.safety.self_report import SMALL_NUMBERS

TELEGRAM_WORDS = 24  # shorter sentences may omit the person: `Crushing chest pain, sweating.`
ADDRESSED = 4  # maximum words from `you are having` to the symptom
# 38 C or more under three months is a red flag
INFANT = "https://www.meningitis.org/meningitis/safety-netting-resources-hub"
_FORBID = ("prohibit_forward", "prohibit_both", "neutral")
NEVER_FICTION = {"self_harm", "poisoning"}
# still urgent when `he seems fine now`: a swallowed battery, the wish to die
_LASTING = {
    "took", "poison", "child", "many_pills", "overmuch", "self_kill", "want_death", "self_harm_act", "kill_other",
}  # fmt: skip
_FIRST_PERSON = {"i", "i'm", "i've", "my"}
_YOUNG = re.compile(
    r"\b(?:newborn|neonate|(?P<baby>(?:baby|infant|son|daughter|s?he is|s?he's),?\s+)?"
    rf"(?P<n>\d{{1,3}}|{'|'.join(SMALL_NUMBERS[1:12])})[\s-]*(?P<unit>day|week|month)s?(?(baby)|[\s-]*old))\b",
    re.IGNORECASE,
)
_UNIT_IN_MONTHS = {"d": 30.4, "w": 4.35, "m": 1.0}
_TEMPERATURE = re.compile(
    r"\b(?:fever|temperature|temp|thermometer|burning up|feels hot|hot to touch|(?:38|39|4[012])\.\d)\b", re.IGNORECASE
)
_DEGREES = re.compile(r"\b\d{2,3}(?:\.\d+)?\b")


def find_emergencies(sentences: list[Sentence], is_answer: bool) -> list[Finding]:
    """Find red flags that are present now. Each rule gives at most one finding, the first.

    A frame such as fiction voids the flags of its own sentence, an exam question those of its case, but neither voids
    those of `NEVER_FICTION`.
    """
    exam = not is_answer and is_exam(sentences)
    marks: list[Mark] = []
    framed: list[Mark] = []
    parts = _parts(sentences)
    for i, (sentence, offset) in enumerate(zip(sentences, _starts(sentences), strict=True)):
        has_person = any(other.has("person", "now") for other in sentences[max(0, i - 1) : i + 2])
        telegram = len(sentence.tokens) <= TELEGRAM_WORDS and not is_asking(sentence)
        if is_answer or has_person or telegram:
            found = [mark for mark in _concepts_and_drugs(sentence) if _is_present(mark, sentence, is_answer)]
            marks += [_moved(mark, offset) for mark in found]
            framed += [_moved(mark, offset) for mark in found if not exam and not is_framed(mark, sentence, "exam")]
    always = [f for f in _findings("red_flags", "emergency", marks, parts) if f["rule"] in NEVER_FICTION]
    others = [f for f in _findings("red_flags", "emergency", framed, parts) if f["rule"] not in NEVER_FICTION]
    return always + others


def _concepts_and_drugs(sentence: Sentence) -> list[Mark]:
    drugs = [mark for mark in sentence.marks if mark.kind == "drug"]
    return sorted(sentence.concepts + drugs, key=lambda mark: mark.first)


def _starts(sentences: list[Sentence]) -> list[int]:
    """Return the index of the first token of each sentence in the text."""
    return list(itertools.accumulate((len(sentence.tokens) for sentence in sentences), initial=0))[:-1]


def _parts(sentences: list[Sentence]) -> list[int]:
    """Return the index of the first token of each sentence, and of what follows a colon, a semicolon, or a comma with
    a question (`how dangerous, how many ...`), in a text."""
    words = [*(token.word for sentence in sentences for token in sentence.tokens), ""]
    breaks = (i for i, word in enumerate(words, 1) if word in (":", ";") or (word == "," and words[i] in ASKING))
    return sorted({*_starts(sentences), *breaks})


def _moved(mark: Mark, offset: int) -> Mark:
    return mark._replace(first=mark.first + offset, last=mark.last + offset)


def _findings(table: str, kind: str, marks: list[Mark], starts: Sequence[int] = (0,)) -> list[Finding]:
    rows = {row["rule"]: row for row in read_table(table)}
    findings = []
    for rule, found in find_combinations(table, marks, starts):
        row, span = rows[rule], (min(mark.start for mark in found), max(mark.end for mark in found))
        findings.append(make_finding(rule, kind, int(row.get("severity", 4)), row["message"], span, row["source"]))
    return findings


def _is_present(flag: Mark, sentence: Sentence, is_answer: bool) -> bool:
    """Return whether a red flag is present now: not negated, past, figurative, or in a general sentence."""
    if is_answer and not _is_addressed(flag, sentence):
        return False
    if is_denied(flag, sentence) or is_past(flag, sentence):
        return False
    lasting = flag.kind in _LASTING
    if _is_figurative_or_mild(flag, sentence) or (not lasting and is_resolved(flag, sentence)):
        return False
    if any(is_general(mark, flag, sentence, lasting) for mark in sentence.of("education", "premise")):
        return False
    if is_answer or sentence.has("now"):
        return True
    return flag.first < question_start(sentence) or flag.first >= telling_start(sentence)


def _is_addressed(flag: Mark, sentence: Sentence) -> bool:
    """Return whether an answer says that the reader or the writer has a red flag, unlike in general."""
    addressed = any(m.first <= flag.first <= m.last + ADDRESSED for m in sentence.of("you"))
    if not addressed and not any(token.word in _FIRST_PERSON for token in sentence.tokens):
        return False
    return not sentence.has("if", "somebody", "hypothetical", "history", "study") and not sentence.is_question


def _is_figurative_or_mild(flag: Mark, sentence: Sentence) -> bool:
    """Return whether a phrase is part of an idiom (`my feet are killing me`) or mild (`a bit breathless`)."""
    return any(m.first <= flag.last and flag.first <= m.last for m in sentence.of("idiom", "mild"))


def find_infant_fever(text: str, age: float | None) -> list[Finding]:
    """Find a temperature of at least 38 C (100.4 F) under three months, by the text or by `age` in years."""
    words, young = _TEMPERATURE.search(text), _YOUNG.search(text)
    if young and young["n"]:
        number = int(young["n"]) if young["n"].isdigit() else SMALL_NUMBERS.index(young["n"].lower())
        young = young if number / _UNIT_IN_MONTHS[young["unit"][0].lower()] < 3 else None
    if not words or (not young and (age is None or age >= 0.25)):
        return []
    degrees = [m for m in _DEGREES.finditer(text) if 38 <= float(m[0]) <= 43 or 100.4 <= float(m[0]) <= 110]
    if not degrees:
        return []
    span = (min(words.start(), degrees[0].start()), max(words.end(), degrees[0].end()))
    return [make_finding("infant_fever", "emergency", 4, "fever under three months of age", span, INFANT)]


def has_referral(sentences: list[Sentence]) -> bool:
    """Return whether an answer refers to an emergency service, does not advise against it, and refers now.

    `If it gets worse, call 911` does not: a condition has to name the sign (`if you have chest pain`) or the moment.
    """
    return any(
        mark.kind == "referral" and not is_denied(mark, sentence, *_FORBID)
        for sentence in sentences
        for mark in (sentence.marks if not sentence.has("if") or _names_sign(sentence) else ())
    )


def _names_sign(sentence: Sentence) -> bool:
    words = {token.word for token in sentence.tokens}
    return bool(words & {"this", "now"}) or bool(_findings("red_flags", "emergency", sentence.concepts))


def find_harmful_requests(sentences: list[Sentence]) -> list[Finding]:
    """Find requests that combine an intent, a harm and an object. Each rule gives at most one finding, the first.

    Fiction and exams excuse nothing.
    """
    marks: list[Mark] = []
    for sentence, offset in zip(sentences, _starts(sentences), strict=True):
        found = [mark for mark in _concepts_and_drugs(sentence) if _is_real(mark, sentence)]
        marks += [_moved(mark, offset) for mark in found]
    return _findings("harmful_requests", "harmful_request", marks, _parts(sentences))


def _is_real(mark: Mark, sentence: Sentence) -> bool:
    """Return whether a phrase is meant: not denied, not an idiom, and not a word of a frame (`a novel where`)."""
    if any(m.first <= mark.first <= mark.last <= m.last for m in sentence.of("story")):
        return False
    return not is_denied(mark, sentence) and not _is_figurative_or_mild(mark, sentence)


def find_downplayed(sentences: list[Sentence]) -> list[Finding]:
    """Find red flags, also conditional ones (`if you have chest pain`), with advice to stay home in their sentence."""
    findings = []
    for sentence in sentences:
        downplays = [
            mark for mark in sentence.marks if mark.kind == "downplay" and not is_denied(mark, sentence, *_FORBID)
        ]
        if downplays and not sentence.has("referral"):
            for flag in _findings("red_flags", "emergency", sentence.concepts)[:1]:
                span = [min(flag["span"][0], downplays[0].start), max(flag["span"][1], downplays[0].end)]
                message = f"{flag['message']}: the answer advises against seeking help"
                findings.append(flag | {"rule": f"{flag['rule']}_downplayed", "message": message, "span": span})
    return findings
