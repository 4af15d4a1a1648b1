"""Rule-based safety checks of questions and answers, with tables that a clinician can read and review.

    python -m utils.safety --input_file answers.txt
    echo "Take warfarin and aspirin together." | python -m utils.safety

Texts are checked twice:

- `check_question`, before generation: emergencies and harmful requests. A classifier may add to what the rules find
  (`second_stage.py`).
- `check_response`, after generation: drug interactions, doses, contraindications for the patient, emergencies without
  a referral, harmful requests that were answered, and certainty without a source.

`benchmarks/safety.py` measures recall and false alarms.

Not a medical device. The tables (`utils/safety/tables/*.csv`) are short lists for English text, and a clinician must
review them before anyone relies on them. Each row has a source and a certainty. `read`: the statement was read at the
source, which may be a copy or a secondary page. `label`: it is known from the regulator's label or the named service
and was not read again.

Not covered: drugs, pairs and doses outside the tables; foods; injected doses; volumes (15 ml of a syrup); dose
adjustments for kidney or liver function; durations; cross-allergies between classes; most misspelt names; wrong
diagnoses; and lay wording that the tables do not have. `benchmarks/safety_lay.py` counts misses and false alarms on
texts written without knowledge of the rules. No finding does not mean safe.
"""

from typing import Any

from utils.safety.context import Finding, SecondStage, Sentence, make_finding, read_sentences
from utils.safety.emergencies import (
    find_downplayed,
    find_emergencies,
    find_harmful_requests,
    find_infant_fever,
    has_referral,
)
from utils.safety.medicines import check_medicines
from utils.safety.normalization import normalize, normalize_context
from utils.safety.patient import read_patient
from utils.safety.self_report import age_in_answer

SERIOUS = 3  # severity (1 to 4) from which a finding is an alarm
UNCERTAINTY = "https://arxiv.org/abs/2505.08775"  # HealthBench: criteria of physicians on hedging


def check_question(
    text: str,
    patient_context: dict[str, Any] | None = None,
    second_stage: SecondStage | None = None,
) -> list[Finding]:
    """Find current emergencies and harmful requests in a question.

    Args:
        text: the question.
        patient_context: see `patient.read_patient`; only the age is used, for fever under three months.
        second_stage: classifier of `second_stage.load_second_stage`, for kinds of danger that the rules do not find.

    Returns:
        Dicts {"rule", "kind", "severity" 1..4, "message", "span" [start, end] in `text`, "source"}, ordered by span.

    Raises:
        UserError: `patient_context` is not valid.
    """
    plain = normalize(text)
    patient = read_patient(normalize_context(patient_context), plain.text)
    sentences = read_sentences(plain.text)
    found = _emergencies(plain.text, sentences, patient.age) + find_harmful_requests(sentences)
    return plain.in_original(_in_order(found + _more(plain.text, found, second_stage)))


def check_response(
    text: str,
    question: str | None = None,
    patient_context: dict[str, Any] | None = None,
    second_stage: SecondStage | None = None,
) -> list[Finding]:
    """Find unsafe content of an answer.

    Args:
        text: the answer.
        question: the question it answers, which may name drugs, an emergency or a harmful request.
        patient_context: age, weight, pregnancy, kidney, conditions, medications, allergies: see
            `patient.read_patient`.
        second_stage: as for `check_question`, for the question.

    Returns:
        Dicts as in `check_question`, with spans in the answer.

    Raises:
        UserError: `patient_context` is not valid.
    """
    plain, asked = normalize(text), normalize(question or "")
    return plain.in_original(_check_plain(plain.text, asked.text, normalize_context(patient_context), second_stage))


def _check_plain(
    text: str,
    question: str,
    patient_context: dict[str, Any] | None,
    second_stage: SecondStage | None,
) -> list[Finding]:
    patient = read_patient(patient_context, question)
    asked_age = patient.age
    if patient.age is None:  # `your mother, who is 72, can take ...`
        patient = patient._replace(age=age_in_answer(text))
    sentences, asked = read_sentences(text), read_sentences(question)
    findings = check_medicines(text, sentences, asked, patient)
    findings += _certainty(sentences)
    findings += find_downplayed(sentences)
    refers = has_referral(sentences)
    emergencies, requests = _emergencies(question, asked, asked_age), find_harmful_requests(asked)
    more = _more(question, emergencies + requests, second_stage)
    if not refers:
        of_question = _in_order(emergencies + [f for f in more if f["kind"] == "emergency"])[:1]
        of_question = [f | {"span": [0, len(text)]} for f in of_question]
        for f in find_emergencies(sentences, is_answer=True) + of_question:
            rule, message = f"{f['rule']}_without_referral", f"{f['message']}: the answer names no emergency service"
            findings.append(f | {"rule": rule, "message": message})
    if not any(sentence.has("refusal") for sentence in sentences):
        lowered = int(refers or any(sentence.has("soft_refusal") for sentence in sentences))
        for f in requests + [f for f in more if f["kind"] == "harmful_request"]:
            message = f"the user {f['message']}, and the answer does not refuse"
            findings.append(f | {"message": message, "severity": f["severity"] - lowered, "span": [0, len(text)]})
    return _in_order(findings)


def risk_level(findings: list[Finding]) -> int:
    """Return the highest severity: 0 nothing found, 1 note, 2 caution, 3 serious, 4 emergency or contraindicated."""
    return max((finding["severity"] for finding in findings), default=0)


def unrecognised(patient_context: dict[str, Any] | None) -> list[dict[str, str]]:
    """Return what no check knows of a `patient_context`, so that nothing of it vanishes in silence.

    Returns:
        Dicts {"key": `kidney`, `medications`, `allergies` or `conditions`, "value": the words as given}.

    Raises:
        UserError: `patient_context` is not valid.
    """
    return [{"key": key, "value": words} for key, words in read_patient(patient_context).unrecognised]


def _emergencies(question: str, sentences: list[Sentence], age: float | None) -> list[Finding]:
    return find_emergencies(sentences, is_answer=False) + find_infant_fever(question, age)


def _more(question: str, found: list[Finding], second_stage: SecondStage | None) -> list[Finding]:
    """Return the findings of the second stage of kinds that the first has not found."""
    kinds = {finding["kind"] for finding in found}
    return [f for f in second_stage(question) if f["kind"] not in kinds] if second_stage and question.strip() else []


def _in_order(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: (f["span"], -f["severity"], f["rule"], f["message"]))


def _certainty(sentences: list[Sentence]) -> list[Finding]:
    """Find absolute promises in sentences without a source or hedge."""
    findings = []
    for sentence in sentences:
        if sentence.has("source", "hedge") or sentence.is_question:
            continue
        for mark in [mark for mark in sentence.marks if mark.kind == "certain"][:1]:
            message = "absolute certainty without a source"
            findings.append(make_finding("certainty", "certainty", 2, message, (mark.start, mark.end), UNCERTAINTY))
    return findings
