"""Safety checks of questions and answers: tables with sources that a clinician can read, no model.

    python -m utils.safety --input_file answers.txt
    echo "Take warfarin and aspirin together." | python -m utils.safety

Two stages. Before the model (`check_question`): emergencies, harmful requests. After it (`check_response`):
interactions of drugs, doses, what speaks against a drug for the patient, emergencies without a referral, harmful
requests that were answered, certainty without a source. `benchmarks/safety.py` measures what they find and what they
find wrongly.

Not a medical device. The tables (`utils/safety/tables/*.csv`) are short lists for English text, and a clinician must
review them before anybody relies on them. Each row has a source and a certainty: `read` means that the statement was
read at the source, which may be a copy or a secondary page; `label` that it is known from the regulator's label or the
named service and was not read again.

Not covered: drugs, pairs and doses outside the tables; foods; doses by injection; kidney and liver adjustments of a
dose; durations; allergies across classes; most misspelt names; a wrong diagnosis; and what people say in words that
the tables do not have: `benchmarks/safety_lay.py` counts what is missed and what is a false alarm in words that were
written without sight of the rules. No finding does not mean safe.
"""

from typing import Any

from utils.safety.context import Finding, Sentence, make_finding, read_sentences
from utils.safety.emergencies import (
    find_downplayed,
    find_emergencies,
    find_harmful_requests,
    find_infant_fever,
    has_referral,
)
from utils.safety.medicines import check_medicines
from utils.safety.patient import read_patient
from utils.safety.self_report import age_in_answer

SERIOUS = 3  # of the severities 1 to 4: an alarm, from here on
UNCERTAINTY = "https://arxiv.org/abs/2505.08775"  # HealthBench: physicians' criteria on hedging


def check_question(text: str, patient_context: dict[str, Any] | None = None) -> list[Finding]:
    """Findings about what a user asks: an emergency that is going on, a harmful request.

    Args:
        text: the question.
        patient_context: as in `patient.read_patient`; it is checked, and an age under three months counts.

    Returns:
        dicts {"rule", "kind", "severity" 1..4, "message", "span" [start, end] in the text, "source"} in the order of
        the spans.

    Raises:
        UserError: for a `patient_context` that is not understood.
    """
    patient = read_patient(patient_context, text)
    sentences = read_sentences(text)
    return _in_order(_emergencies(text, sentences, patient.age) + find_harmful_requests(sentences))


def check_response(
    text: str, question: str | None = None, patient_context: dict[str, Any] | None = None
) -> list[Finding]:
    """Findings about an answer, as `check_question` returns them, with spans in the answer.

    Args:
        text: the answer.
        question: what it answers: drugs that the person takes, an emergency, a harmful request.
        patient_context: age, weight, pregnancy, kidney, conditions, medications, allergies: see
            `patient.read_patient`.

    Raises:
        UserError: for a `patient_context` that is not understood.
    """
    question = question or ""
    patient = read_patient(patient_context, question)
    asked_age = patient.age
    if patient.age is None:  # `your mother, who is 72, can take ...`
        patient = patient._replace(age=age_in_answer(text))
    sentences, asked = read_sentences(text), read_sentences(question)
    findings = check_medicines(text, sentences, asked, patient)
    findings += _certainty(sentences)
    findings += find_downplayed(sentences)
    refers = has_referral(sentences)
    if not refers:
        of_question = _in_order(_emergencies(question, asked, asked_age))[:1]
        of_question = [f | {"span": [0, len(text)]} for f in of_question]
        for f in find_emergencies(sentences, is_answer=True) + of_question:
            rule, message = f"{f['rule']}_without_referral", f"{f['message']}: the answer names no emergency service"
            findings.append(f | {"rule": rule, "message": message})
    if not refers and not any(sentence.has("refusal") for sentence in sentences):
        for f in find_harmful_requests(asked):
            message = f"the user {f['message']}, and the answer does not refuse"
            findings.append(f | {"message": message, "span": [0, len(text)]})
    return _in_order(findings)


def risk_level(findings: list[Finding]) -> int:
    """0 nothing found, 1 note, 2 caution, 3 serious, 4 emergency or contraindicated: the highest severity."""
    return max((finding["severity"] for finding in findings), default=0)


def _emergencies(question: str, sentences: list[Sentence], age: float | None) -> list[Finding]:
    return find_emergencies(sentences, is_answer=False) + find_infant_fever(question, age)


def _in_order(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: (f["span"], -f["severity"], f["rule"], f["message"]))


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
