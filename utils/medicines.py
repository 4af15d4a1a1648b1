"""Checks of advice about medicines: interactions, doses, and what speaks against a drug for this patient."""

import itertools
import re
from typing import Any

from utils.context import Sentence, are_alternatives, drug_statuses
from utils.doses import Dose, find_doses, find_frequency
from utils.drugs import class_members, interaction
from utils.patient import Patient
from utils.phrases import Mark, read_table

ADULT = 40.0  # age in years that is assumed where none is known
METHOTREXATE = "https://consumermedsafety.org/medication-safety-articles/item/793-even-low-dose-methotrexate-can-cause-harm-or-death-if-taken-daily-or-with-certain-other-medicines"
_IN_PLAY = {"advised", "taken", "conditional", "mentioned"}
_NOT_ORAL = re.compile(
    r"\b(?:iv|im|(?:intravenous|inject|infus|intramuscular|topical|rectal|intrathecal)\w*|cream|gel|ointment|patch|"
    r"eye drops)\b",
    re.IGNORECASE,
)
_EXTENDED = re.compile(r"\b(?:er|xr|xl|sr|cr|extended|sustained|modified|slow)\b", re.IGNORECASE)
_WEEKLY = re.compile(r"\b(?:weekly|(?:a|per|each|every|once|one) week)\b", re.IGNORECASE)
_CANCER = re.compile(r"cancer|leuk|lymphoma|chemotherapy|tumou?r|oncolog|choriocarcinoma|sarcoma", re.IGNORECASE)
_LIMIT_NEXT = re.compile(r"more than|exceed|maximum|at most|limit|up to", re.IGNORECASE)

Finding = dict[str, Any]
Statuses = list[tuple[Mark, str]]  # of a sentence, from `utils.context.drug_statuses`


def make_finding(rule: str, kind: str, severity: int, message: str, span: tuple[int, int], source: str) -> Finding:
    return {
        "rule": rule, "kind": kind, "severity": severity, "message": message, "span": list(span), "source": source,
    }  # fmt: skip


def check_medicines(text: str, sentences: list[Sentence], asked: list[Sentence], patient: Patient) -> list[Finding]:
    """Findings about the drugs of an answer.

    Args:
        text, sentences: the answer, and `utils.context.read_sentences` of it.
        asked: sentences of the question, or none.
        patient: what is known of the patient.
    """
    statuses = [drug_statuses(sentence) for sentence in sentences]
    return [
        *_interactions(sentences, statuses, asked, patient),
        *_false_assurance(sentences, statuses, asked),
        *_doses(text, sentences, statuses, asked, patient),
        *_methotrexate_daily(text, sentences, statuses),
        *_patient_factors(statuses, patient),
    ]


def _interactions(
    sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence], patient: Patient
) -> list[Finding]:
    """Pairs within a sentence, then what a sentence advises with what the patient takes, what the question says that
    the person takes, and what other sentences advise. A pair that is only named together is a note."""
    found: dict[tuple[str, frozenset[str]], Finding] = {}

    def add(first: str, second: str, lowered: int, span: tuple[int, int]) -> None:
        if hit := interaction(first, second):
            row, a, b = hit
            severity = 1 if lowered < 0 else max(1, int(row["severity"]) - lowered)
            message = f"{a} with {b}: {row['message']}"
            key = (row["rule"], frozenset((a, b)))
            if key not in found or found[key]["severity"] < severity:
                found[key] = make_finding(row["rule"], "interaction", severity, message, span, row["source"])

    known = dict.fromkeys(patient.medications, -1) | dict.fromkeys(_drugs_of_the_asker(asked), -1)
    for i, marks in enumerate(statuses):
        lowered = int(sentences[i].has("supervised", "consult"))
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
        lowered = int(sentences[i].has("supervised", "consult"))
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
    if not any(sentence.has("person") or sentence.has("taken") for sentence in asked):
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
    span = _span(where) if where else (sentences[0].tokens[0].start, sentences[-1].tokens[-1].end)
    what = "the answer agrees" if agrees else "the answer does not warn"
    return [
        make_finding(row["rule"], "interaction", int(row["severity"]) if agrees else 2,
                     f"{a} with {b}: {row['message']}; {what}", span, row["source"])
        for row, a, b in pairs
    ]  # fmt: skip


def _doses(
    text: str,
    sentences: list[Sentence],
    statuses: list[Statuses],
    asked: list[Sentence],
    patient: Patient,
) -> list[Finding]:
    """Doses above the highest of the table for the age. A drug that is named in the sentence before, or alone in the
    question, is meant where the sentence names none."""
    findings = []
    names = {m.value for sentence in asked for m in sentence.marks if m.kind == "drug"}
    carried = names.pop() if len(names) == 1 else None
    for i, sentence in enumerate(sentences):
        drugs = [mark for mark, _ in statuses[i]]
        begin, end = _span(sentence)
        if not re.search(r"\d", text[begin:end]) or sentence.is_question:
            carried = drugs[-1].value if drugs else carried
            continue
        follows = (
            i + 1 < len(sentences)
            and not statuses[i + 1]
            and _LIMIT_NEXT.search(text[slice(*_span(sentences[i + 1]))])
        )
        doses = find_doses(text[begin : _span(sentences[i + 1])[1] if follows else end])
        for dose in doses:
            drug = _drug_of(dose, begin, drugs, carried)
            if drug and "|" not in drug and begin + dose.start < end and _is_advice(dose, begin, sentence):
                findings += _above(drug, dose, begin, text[begin:end], patient)
        carried = drugs[-1].value if drugs else carried
    return findings


def _drug_of(dose: Dose, begin: int, drugs: list[Mark], carried: str | None) -> str | None:
    """`500 mg of A`, else the last drug before the dose, else the first after it, else the one carried over."""
    start, end = begin + dose.start, begin + dose.end
    inside = [mark for mark in drugs if start <= mark.start < end]
    before = [mark for mark in drugs if mark.end <= start]
    after = [mark for mark in drugs if mark.start >= end]
    chosen = inside[:1] or [mark for mark in after[:1] if mark.start - end <= 4] or before[-1:] or after[:1]
    return chosen[0].value if chosen else carried


def _is_advice(dose: Dose, begin: int, sentence: Sentence) -> bool:
    if sentence.has("hypothetical", "history", "study", "somebody"):
        return False
    if dose.is_limit:
        return True
    first = next((i for i, token in enumerate(sentence.tokens) if token.end > begin + dose.start), 0)
    clause = [mark for mark in sentence.marks if sentence.clauses[mark.first] == sentence.clauses[first]]
    forbidden = any(m.kind == "prohibit_both" or (m.kind == "prohibit_forward" and m.last < first) for m in clause)
    return not forbidden and not sentence.has("warn") and not any(m.kind == "if" and m.last < first for m in clause)


def _above(drug: str, dose: Dose, begin: int, sentence: str, patient: Patient) -> list[Finding]:
    if _NOT_ORAL.search(sentence):
        return []
    age = ADULT if patient.age is None else patient.age
    worst = None
    for row in read_table("doses"):
        fits = float(row["min_age"]) <= age < float(row["max_age"] or "inf")
        if row["drug"] != drug or not fits or (row["form"] == "er" and not _EXTENDED.search(sentence)):
            continue
        limit, amount = float(row["max_daily"]), dose.high
        if row["per_kg"]:
            if (row["per_kg"] == "kg under 50" and (patient.weight or 50) >= 50) or not (
                patient.weight or dose.per_kg
            ):
                continue
            amount = dose.high if dose.per_kg else dose.high / patient.weight
        elif dose.per_kg:
            if patient.weight is None:
                continue
            amount = dose.high * patient.weight
        if amount > limit * 1.001 and (worst is None or row["severity"] > worst[0]["severity"]):
            worst = row, amount, limit
    if worst is None:
        return []
    row, amount, limit = worst
    unit = "mg/kg" if row["per_kg"] else "mg"
    note = f" ({row['note']})" if row["note"] else ""
    message = f"{drug}: up to {amount:,.6g} {unit} a day; the highest dose is {limit:,.6g} {unit} a day{note}"
    span = (begin + dose.start, begin + dose.end)
    return [make_finding("daily_dose", "dose", int(row["severity"]), message, span, row["source"])]


def _methotrexate_daily(text: str, sentences: list[Sentence], statuses: list[Statuses]) -> list[Finding]:
    """Methotrexate every day outside cancer: it is taken once a week, and daily doses have killed (ISMP)."""
    findings = []
    for sentence, marks in zip(sentences, statuses, strict=True):
        begin, end = _span(sentence)
        for i, (mark, status) in enumerate(marks):
            if (
                mark.value != "methotrexate"
                or status not in _IN_PLAY - {"conditional"}
                or _CANCER.search(text[begin:end])
            ):
                continue
            after = text[mark.end : marks[i + 1][0].start if i + 1 < len(marks) else end]
            frequency, offset = find_frequency(after), mark.end
            if frequency is None and i == 0:
                frequency, offset = find_frequency(text[begin : mark.start]), begin
            if frequency and frequency[1] > 0.9:
                span = (min(mark.start, offset + frequency[2]), max(mark.end, offset + frequency[3]))
                message = "methotrexate every day: it is taken once a week; daily doses can be fatal"
                findings.append(make_finding("methotrexate_daily", "dose", 4, message, span, METHOTREXATE))
    return findings


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


def _span(sentence: Sentence) -> tuple[int, int]:
    return sentence.tokens[0].start, sentence.tokens[-1].end
