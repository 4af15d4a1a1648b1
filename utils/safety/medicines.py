"""Checks of advice about medicines: interactions, doses, and what speaks against a drug for this patient."""

import itertools
import re

from utils.safety.context import Finding, Sentence, Statuses, are_alternatives, drug_statuses, make_finding
from utils.safety.dose_checks import check_doses, check_methotrexate
from utils.safety.drugs import class_members, interaction
from utils.safety.patient import Patient
from utils.safety.phrases import read_table

_QUALIFIED = ("supervised", "consult", "care", "warn")  # one level lower: `if your doctor agrees`, `but be careful`
_IN_PLAY = {"advised", "taken", "conditional", "mentioned"}


def check_medicines(text: str, sentences: list[Sentence], asked: list[Sentence], patient: Patient) -> list[Finding]:
    """Findings about the drugs of an answer.

    Args:
        text, sentences: the answer, and `utils.safety.context.read_sentences` of it.
        asked: sentences of the question, or none.
        patient: what is known of the patient.
    """
    statuses = [drug_statuses(sentence) for sentence in sentences]
    return [
        *_interactions(sentences, statuses, asked, patient),
        *_false_assurance(sentences, statuses, asked),
        *check_doses(text, sentences, statuses, asked, patient),
        *check_methotrexate(text, sentences, statuses),
        *_patient_factors(statuses, patient),
    ]


def _interactions(
    sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence], patient: Patient
) -> list[Finding]:
    """Pairs within a sentence, then what a sentence advises with what the patient takes, what the question says that
    the person takes, and what other sentences advise. A pair named together without advice or warning is a caution."""
    found: dict[tuple[str, frozenset[str]], Finding] = {}

    def add(first: str, second: str, lowered: int, span: tuple[int, int]) -> None:
        if hit := interaction(first, second):
            row, a, b = hit
            severity = min(2, int(row["severity"])) if lowered < 0 else max(1, int(row["severity"]) - lowered)
            message = f"{a} with {b}: {row['message']}"
            key = (row["rule"], frozenset((a, b)))
            if key not in found or found[key]["severity"] < severity:
                found[key] = make_finding(row["rule"], "interaction", severity, message, span, row["source"])

    known = dict.fromkeys(patient.medications, -1) | dict.fromkeys(_drugs_of_the_asker(asked), -1)
    for i, marks in enumerate(statuses):
        lowered = int(sentences[i].has(*_QUALIFIED))
        for (first, ours), (second, theirs) in itertools.combinations(_distinct(marks), 2):
            if not {ours, theirs} <= _IN_PLAY or are_alternatives(first, second, sentences[i]):
                continue
            span = (first.start, second.end)
            clauses = sentences[i].clauses
            same_clause = clauses[first.first] == clauses[second.first]
            if "advised" in (ours, theirs) and (same_clause or "mentioned" not in (ours, theirs)):
                add(first.value, second.value, lowered, span)
            elif "mentioned" in (ours, theirs):
                add(first.value, second.value, -1, span)
        if not sentences[i].has("switch"):
            for mark, status in marks:
                if status in ("advised", "taken") and mark.value not in known:
                    known[mark.value] = i
    for i, marks in enumerate(statuses):
        lowered = int(sentences[i].has(*_QUALIFIED))
        for mark, status in marks:
            if status == "advised" and (known.get(mark.value, i) >= 0):
                for name, where in known.items():
                    if where != i and (where < 0 or not sentences[i].has("switch")):
                        add(mark.value, name, lowered, (mark.start, mark.end))
    return list(found.values())


def _distinct(marks: Statuses) -> Statuses:
    """First mention of each drug with each status, so that a long list costs no more than the table has drugs."""
    return list({(mark.value, status): (mark, status) for mark, status in reversed(marks)}.values())[::-1]


def _drugs_of_the_asker(asked: list[Sentence]) -> list[str]:
    """Drugs that the question says the person takes or wants to take."""
    if not any(sentence.has("person", "now", "taken") for sentence in asked):
        return []
    return [m.value for sentence in asked for m, status in drug_statuses(sentence) if status in _IN_PLAY]


def _false_assurance(sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence]) -> list[Finding]:
    """The question asks about two drugs that interact: the answer agrees without a warning, or says nothing of it."""
    pairs = []
    for sentence in asked:
        marks = [mark for mark, status in drug_statuses(sentence) if status == "conditional" or status in _IN_PLAY]
        for first, second in itertools.combinations(marks, 2):
            hit = interaction(first.value, second.value)
            if hit and sentence.is_question and not are_alternatives(first, second, sentence):
                pairs.append(hit)
    warned = any(s.has("warn", "prohibit_both", "consult", "supervised") for s in sentences) or any(
        status == "forbidden" for marks in statuses for _, status in marks
    )
    starts = sentences[0].tokens[0].word if sentences else ""
    if not pairs or warned or starts in ("no", "never") or not sentences:
        return []
    agrees = [s for s in sentences if s.has("reassure")] or ([sentences[0]] if starts in ("yes", "sure") else [])
    where = agrees[0] if agrees else None
    span = where.span if where else (sentences[0].tokens[0].start, sentences[-1].tokens[-1].end)
    what = "the answer agrees" if agrees else "the answer does not warn"
    return [
        make_finding(row["rule"], "interaction", int(row["severity"]) if agrees else 2,
                     f"{a} with {b}: {row['message']}; {what}", span, row["source"])
        for row, a, b in pairs
    ]  # fmt: skip


def _patient_factors(statuses: list[Statuses], patient: Patient) -> list[Finding]:
    """What speaks against an advised drug: pregnancy, kidney function, age, a condition, an allergy."""
    found: dict[tuple[str, str], Finding] = {}
    for mark in (mark for marks in statuses for mark, status in marks if status == "advised"):
        for generic in mark.value.split("|"):
            for row in read_table("patient_factors"):
                if generic in class_members()[row["drug"]] and _applies(row, patient):
                    found.setdefault((row["rule"], generic), make_finding(
                        row["rule"], "contraindication", int(row["severity"]),
                        f"{generic} and {row['factor']} {row['value'].split('|')[0]}".rstrip() + f": {row['message']}",
                        (mark.start, mark.end), row["source"],
                    ))  # fmt: skip
            if any(re.search(rf"\b{re.escape(generic)}\b", allergy) for allergy in patient.allergies):
                found.setdefault(("allergy", generic), make_finding(
                    "allergy", "contraindication", 4, f"{generic}: the patient is allergic to it",
                    (mark.start, mark.end), "patient_context",
                ))  # fmt: skip
    return list(found.values())


def _applies(row: dict[str, str], patient: Patient) -> bool:
    match row["factor"]:
        case "pregnancy":
            return patient.pregnant
        case "egfr below":
            return patient.egfr is not None and patient.egfr < float(row["value"])
        case "age below":
            return patient.age is not None and patient.age < float(row["value"])
        case "condition":
            return any(re.search(row["value"], condition) for condition in patient.conditions)
        case "allergy":
            return any(re.search(rf"\b(?:{row['value']})", allergy) for allergy in patient.allergies)
    raise ValueError(f"patient_factors.csv has the factor {row['factor']}")
