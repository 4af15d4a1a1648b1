"""Find current emergencies and harmful requests, which must not wait for a model."""

import re

from utils.safety.concepts import find_combinations
from utils.safety.context import Finding, Sentence, is_denied, make_finding
from utils.safety.phrases import Mark, read_table
from utils.safety.self_report import SMALL_NUMBERS

TELEGRAM_WORDS = 24  # shorter sentences may omit the person: `Crushing chest pain, sweating.`
ADDRESSED = 4  # maximum words from `you are having` to the symptom
# 38 C or more under three months is a red flag
INFANT = "https://www.meningitis.org/meningitis/safety-netting-resources-hub"
_FORBID = ("prohibit_forward", "prohibit_both", "neutral")
_ASKING = {
    "what", "how", "why", "which", "who", "when", "where", "is", "are", "do", "does", "did", "can", "could", "should",
    "would", "will", "was", "were", "has", "have", "may",
}  # fmt: skip
_GREETINGS = {"please", "hi", "hello", "sir", "madam", "doctor", "doc", "dear", "hey", ",", "so", "ok", "okay", "tell"}
_BEFORE_QUESTION = {",", ";", ":", "(", "and", "so", "but", "please", "!", "now"}
_SWALLOWED = {"took", "poison", "child"}  # still urgent when `he seems fine now`: a swallowed battery
_PARTS = {",", ";", ":", "(", "but", "now", "although", "though", "because"}
_SUBJECTS = {
    "i", "i'm", "i've", "my", "he", "he's", "his", "she", "she's", "her", "we", "they", "it's", "now", "today",
}  # fmt: skip
_FIRST_PERSON = {"i", "i'm", "i've", "my"}
_RELATIVE = {"which", "who", "when", "what", "how", "why", "where", "that"}
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
    """Find red flags that are present now. Each rule gives at most one finding, the first."""
    if _is_fiction(sentences, "exam"):
        return []
    marks, offset = [], 0
    for i, sentence in enumerate(sentences):
        has_person = any(other.has("person", "now") for other in sentences[max(0, i - 1) : i + 2])
        telegram = len(sentence.tokens) <= TELEGRAM_WORDS and not _is_asking(sentence)
        if is_answer or has_person or telegram:
            marks += [
                mark._replace(first=mark.first + offset, last=mark.last + offset)
                for mark in _concepts_and_drugs(sentence)
                if _is_present(mark, sentence, is_answer)
            ]
        offset += len(sentence.tokens)
    return _findings("red_flags", "emergency", marks)


def _is_fiction(sentences: list[Sentence], *kinds: str) -> bool:
    """Return whether a text is about an exam, a novel, the news or family history, or has a cue of one of `kinds`.

    A text with an urgent cue (`help me`) never is.
    """
    return any(s.has("fiction", *kinds) for s in sentences) and not any(s.has("urgent") for s in sentences)


def _concepts_and_drugs(sentence: Sentence) -> list[Mark]:
    drugs = [mark for mark in sentence.marks if mark.kind == "drug"]
    return sorted(sentence.concepts + drugs, key=lambda mark: mark.first)


def _findings(table: str, kind: str, marks: list[Mark]) -> list[Finding]:
    rows = {row["rule"]: row for row in read_table(table)}
    findings = []
    for rule, found in find_combinations(table, marks):
        row, span = rows[rule], (min(mark.start for mark in found), max(mark.end for mark in found))
        findings.append(make_finding(rule, kind, int(row.get("severity", 4)), row["message"], span, row["source"]))
    return findings


def _is_asking(sentence: Sentence) -> bool:
    """Return whether a sentence is a question, with or without a question mark: `what is a stroke`."""
    words = [token.word for token in sentence.tokens if token.word not in _GREETINGS]
    return sentence.is_question or words[-1:] == [":"] or (bool(words) and words[0] in _ASKING)


def _is_present(flag: Mark, sentence: Sentence, is_answer: bool) -> bool:
    """Return whether a red flag is present now: not negated, past, figurative, or in a general sentence."""
    if is_denied(flag, sentence) or _is_past(flag, sentence):
        return False
    if sentence.has("resolved") and flag.kind not in _SWALLOWED:
        return False
    if _is_figurative_or_mild(flag, sentence) or any(_is_general(mark, flag, sentence) for mark in sentence.marks):
        return False
    if is_answer:
        words = {token.word for token in sentence.tokens}
        addressed = any(m.kind == "you" and m.first <= flag.first <= m.last + ADDRESSED for m in sentence.marks)
        general = sentence.has("if", "somebody", "hypothetical", "history", "study") or sentence.is_question
        return (addressed or not words.isdisjoint(_FIRST_PERSON)) and not general
    return flag.first < _question_start(sentence) or sentence.has("now")


def _question_start(sentence: Sentence) -> int:
    """Return the index of the first token of the question in a sentence, or its length if it asks nothing.

    What precedes the question is a statement: `he is grey and sweating, which tablet helps?`
    """
    words = [token.word for token in sentence.tokens]
    if not _is_asking(sentence):
        return len(words)
    starts = [i for i, word in enumerate(words) if word in _ASKING and (not i or words[i - 1] in _BEFORE_QUESTION)]
    return starts[0] if starts else 0


def _is_general(mark: Mark, flag: Mark, sentence: Sentence) -> bool:
    """Return whether a cue makes the clause of the flag general (`symptoms of`) or conditional (`if` before it).

    Question words are such cues only if the sentence is a question or begins with them, unlike in `a rash which does
    not fade` or `it hurts when I breathe`. They do not apply to statements before them.
    """
    before = sentence.tokens[mark.first - 1].word if mark.first else ","
    if sentence.clauses[mark.first] != sentence.clauses[flag.first]:
        return False
    if sentence.tokens[mark.first].word.removesuffix("'s") in _RELATIVE:
        relative = before.isalpha() and not _is_asking(sentence)
        if relative or flag.last < mark.first and _question_start(sentence) > flag.last:
            return False
    if mark.kind == "education":  # `I can feel` is not a general statement
        return before not in _SUBJECTS
    return mark.kind == "premise" and mark.first < flag.first


def _is_figurative_or_mild(flag: Mark, sentence: Sentence) -> bool:
    """Return whether a phrase is part of an idiom (`my feet are killing me`) or mild (`a bit breathless`)."""
    return any(m.kind in ("idiom", "mild") and m.first <= flag.last and flag.first <= m.last for m in sentence.marks)


def _is_past(flag: Mark, sentence: Sentence) -> bool:
    """Return whether a cue of the past is in the same part of the sentence: `I had a stroke in 2016, now my arm ...`.

    A cue in a part without concepts (`years ago, I had ...`) applies to the next part.
    """
    if not sentence.has("past"):
        return False
    parts, part = [], 0
    for i, token in enumerate(sentence.tokens):
        after = sentence.tokens[i + 1].word if i + 1 < len(sentence.tokens) else ""
        part += token.word in _PARTS or (token.word in ("and", "then") and after in _SUBJECTS)
        parts.append(part)
    filled = {parts[mark.first] for mark in sentence.concepts}
    for mark in sentence.marks:
        if mark.kind == "past":
            held = parts[mark.first] if parts[mark.first] in filled else parts[mark.first] + 1
            if parts[flag.first] == held:
                return True
    return False


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
    """Return whether an answer refers to an emergency service and does not advise against it."""
    return any(
        mark.kind == "referral" and not is_denied(mark, sentence, *_FORBID)
        for sentence in sentences
        for mark in sentence.marks
    )


def find_harmful_requests(sentences: list[Sentence]) -> list[Finding]:
    """Find requests that combine an intent, a harm and an object. Each rule gives at most one finding, the first."""
    if _is_fiction(sentences):
        return []
    marks, offset = [], 0
    for sentence in sentences:
        found = [mark for mark in _concepts_and_drugs(sentence) if _is_real(mark, sentence)]
        marks += [mark._replace(first=mark.first + offset, last=mark.last + offset) for mark in found]
        offset += len(sentence.tokens)
    return _findings("harmful_requests", "harmful_request", marks)


def _is_real(mark: Mark, sentence: Sentence) -> bool:
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
