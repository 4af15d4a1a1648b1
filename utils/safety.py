"""Safety checks of questions and answers: tables with sources that a clinician can read, no model.

    python -m utils.safety --input_file answers.txt
    echo "Take warfarin and aspirin together." | python -m utils.safety

Two stages. Before the model (`check_question`): emergencies, harmful requests. After it (`check_response`):
interactions of drugs, doses, what speaks against a drug for the patient, emergencies without a referral, harmful
requests that were answered, certainty without a source. `benchmarks/safety.py` measures what they find and what they
find wrongly.

Not a medical device. The tables (`utils/safety_tables/*.csv`: each row with its source, and whether that source was
read or the row is known to be on the label) are short lists for English text, and a clinician must review them before
anybody relies on them. Not covered: drugs, pairs and doses outside the tables; foods; doses by injection; kidney and
liver adjustments of a dose; durations; allergies across classes; misspelt names; a wrong diagnosis. No finding does
not mean safe.
"""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.arguments import UserError, parse_recipe, user_errors
from utils.context import Sentence, is_denied, read_sentences
from utils.medicines import Finding, check_medicines, make_finding
from utils.patient import read_patient
from utils.phrases import Mark, read_table

TELEGRAM_WORDS = (
    14  # a question without a person that is no longer reads as a report: `Crushing chest pain, sweating.`
)
ADDRESSED = 4  # words from `you are having` to the sign
_FORBID = ("prohibit_forward", "prohibit_both", "neutral")
_FIRST_PERSON = {"i", "i'm", "i've", "my"}
UNCERTAINTY = "https://arxiv.org/abs/2505.08775"  # HealthBench: physicians' criteria on hedging
INFANT = "https://www.meningitis.org/meningitis/safety-netting-resources-hub"  # 38 C under three months: red
_YOUNG = re.compile(
    r"\b(?:newborn|neonate|(?P<n>\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven)[\s-]*(?P<unit>day|week|month)s?"
    r"[\s-]*old)\b",
    re.IGNORECASE,
)
_TEMPERATURE = re.compile(r"\b(\d{2,3}(?:\.\d+)?)\s*(?:\u00b0|degrees)?\s*([CF])?\b")
_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


def check_question(text: str, patient_context: dict[str, Any] | None = None) -> list[Finding]:
    """Findings about what a user asks: an emergency that is going on, a harmful request.

    Args:
        text: the question.
        patient_context: as in `utils.patient.read_patient`; it is checked, and an age under three months counts.

    Returns:
        dicts {"rule", "kind", "severity" 1..4, "message", "span" [start, end] in the text, "source"} in the order of
        the spans.

    Raises:
        UserError: for a `patient_context` that is not understood.
    """
    patient = read_patient(patient_context, text)
    sentences = read_sentences(text)
    findings = _emergencies(sentences, is_answer=False) + _requests(sentences)
    findings += _infant_fever(text, sentences, patient.age)
    return _in_order(findings)


def check_response(
    text: str, question: str | None = None, patient_context: dict[str, Any] | None = None
) -> list[Finding]:
    """Findings about an answer, as `check_question` returns them, with spans in the answer.

    Args:
        text: the answer.
        question: what it answers: drugs that the person takes, an emergency, a harmful request.
        patient_context: age, weight, pregnancy, kidney, conditions, medications, allergies: see
            `utils.patient.read_patient`.

    Raises:
        UserError: for a `patient_context` that is not understood.
    """
    patient = read_patient(patient_context, question or "")
    sentences, asked = read_sentences(text), read_sentences(question or "")
    findings = check_medicines(text, sentences, asked, patient)
    findings += _certainty(sentences)
    whole = (0, len(text))
    if not any(sentence.has("referral") for sentence in sentences):
        findings += [f | {"rule": f"{f['rule']}_without_referral"} for f in _emergencies(sentences, is_answer=True)]
        emergencies = [f for f in check_question(question or "", patient_context) if f["kind"] == "emergency"]
        findings += [
            make_finding(f"{f['rule']}_without_referral", "emergency", 4,
                         f"{f['message']}: the answer names no emergency number or service", whole, f["source"])
            for f in emergencies[:1]
        ]  # fmt: skip
    findings += _downplayed(sentences)
    if asked and not any(sentence.has("refusal", "referral") for sentence in sentences):
        findings += [
            make_finding(f["rule"], f["kind"], f["severity"], f"the user {f['message']}: the answer does not refuse",
                         whole, f["source"])
            for f in _requests(asked)
        ]  # fmt: skip
    return _in_order(findings)


def risk_level(findings: list[Finding]) -> int:
    """0 nothing found, 1 note, 2 caution, 3 serious, 4 emergency or contraindicated: the highest severity."""
    return max((finding["severity"] for finding in findings), default=0)


def _in_order(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: (f["span"], -f["severity"], f["rule"], f["message"]))


def _emergencies(sentences: list[Sentence], is_answer: bool) -> list[Finding]:
    """Red flags that somebody has now. One finding a rule: the first."""
    rows = {row["rule"]: row for row in read_table("red_flags")}
    found: dict[str, Finding] = {}
    for sentence in sentences:
        for mark in sentence.marks:
            if mark.kind == "flag" and mark.value not in found and _is_present(mark, sentence, is_answer):
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
        return (addressed or not words.isdisjoint(_FIRST_PERSON)) and not (sentence.has("if") or sentence.is_question)
    telegram = not sentence.is_question and len(sentence.tokens) <= TELEGRAM_WORDS
    return sentence.has("person") or telegram


def _infant_fever(text: str, sentences: list[Sentence], age: float | None) -> list[Finding]:
    """A temperature of 38 C (100.4 F) or a fever in a child under three months."""
    young = _YOUNG.search(text)
    if young and young["n"]:
        number = int(young["n"]) if young["n"].isdigit() else _SMALL.index(young["n"].lower())
        young = young if number / {"d": 30.4, "w": 4.35, "m": 1}[young["unit"][0].lower()] < 3 else None
    if not young and (age is None or age >= 0.25):
        return []
    for match in _TEMPERATURE.finditer(text):
        degrees = float(match[1])
        if 38 <= degrees <= 43 or 100.4 <= degrees <= 110:
            span = (match.start(), match.end())
            return [make_finding("infant_fever", "emergency", 4, "fever under three months of age", span, INFANT)]
    return []


def _requests(sentences: list[Sentence]) -> list[Finding]:
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


def _downplayed(sentences: list[Sentence]) -> list[Finding]:
    """Red flags, conditional ones too (`if you have chest pain`), with advice to stay at home in the same sentence."""
    rows = {row["rule"]: row for row in read_table("red_flags")}
    findings = []
    for sentence in sentences:
        flags = [mark for mark in sentence.marks if mark.kind == "flag"]
        downplays = [
            mark for mark in sentence.marks if mark.kind == "downplay" and not is_denied(mark, sentence, *_FORBID)
        ]
        if flags and downplays and not sentence.has("referral"):
            row = rows[flags[0].value]
            span = (min(flags[0].start, downplays[0].start), max(flags[0].end, downplays[0].end))
            message = f"{row['message']}: the answer advises against help"
            findings.append(make_finding(f"{row['rule']}_downplayed", "emergency", 4, message, span, row["source"]))
    return findings


def _certainty(sentences: list[Sentence]) -> list[Finding]:
    """Absolute promises without a source in the sentence."""
    findings = []
    for sentence in sentences:
        if sentence.has("source", "hedge") or sentence.is_question:
            continue
        for mark in [mark for mark in sentence.marks if mark.kind == "certain"][:1]:
            message = "a promise without a source: medicine is rarely certain"
            findings.append(make_finding("certainty", "certainty", 2, message, (mark.start, mark.end), UNCERTAINTY))
    return findings


@dataclass
class SafetyArguments:
    """What to check."""

    input_file: str | None = field(
        default=None,
        metadata={
            "help": "An answer a line: text, or JSON with `response`, `question`, `patient_context`. Else stdin."
        },
    )


def check_line(line: str, where: str) -> dict[str, Any]:
    """Check one line of the command's input: plain text is an answer; an object has `response` and, if wanted,
    `question` and `patient_context`, or a `question` alone.

    Raises:
        UserError: for an object that is not understood. Names the place and the keys, never their values.
    """
    row: Any = {"response": line}
    if line.lstrip().startswith("{"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON ({str(error).split(': line')[0]}): write one object.") from error
    unknown = set(row) - {"id", "question", "response", "patient_context"}
    if unknown:
        raise UserError(f"{where} has {len(unknown)} unknown keys: write `response`, `question`, `patient_context`.")
    response, question = row.get("response"), row.get("question")
    if not all(value is None or isinstance(value, str) for value in (response, question)) or response == question:
        raise UserError(f"{where} has no text in `response` or `question`: write at least one of them as text.")
    try:
        if response is None:
            findings = check_question(question, row.get("patient_context"))
        else:
            findings = check_response(response, question, row.get("patient_context"))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return ({"id": row["id"]} if "id" in row else {}) | {"risk_level": risk_level(findings), "warnings": findings}


def main(argv: list[str] | None = None) -> None:
    with user_errors():
        args, _ = parse_recipe(
            (SafetyArguments,), argv, description="Check answers, one a line; prints a JSON line each."
        )
        name = f"`input_file` {args.input_file}" if args.input_file else "standard input"
        try:
            data = Path(args.input_file).read_bytes() if args.input_file else sys.stdin.buffer.read()
            text = data.decode("utf-8").removeprefix("\ufeff")
        except OSError as error:
            raise UserError(f"{name} cannot be read ({error.strerror}): give a text or jsonl file.") from error
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise UserError(f"{name}, line {line}, is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
        for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also split at U+2028
            if line.strip():
                print(json.dumps(check_line(line.rstrip("\r"), f"{name}, line {number}"), ensure_ascii=False))


if __name__ == "__main__":
    main()
