"""Compare the doses of an answer with the maximum daily doses in `utils/safety/tables/doses.csv`."""

import functools
import re

from utils.safety.context import Finding, Sentence, Statuses, make_finding
from utils.safety.doses import Dose, find_doses, find_frequency, find_piece_doses
from utils.safety.drugs import names_of
from utils.safety.patient import Patient
from utils.safety.phrases import Mark, read_table
from utils.safety.schedules import find_plan

ADULT = 40.0  # default age in years
# ISMP: harm and deaths after low-dose methotrexate was taken daily
METHOTREXATE = (
    "https://consumermedsafety.org/medication-safety-articles/item/"
    "793-even-low-dose-methotrexate-can-cause-harm-or-death-if-taken-daily-or-with-certain-other-medicines"
)
_NOT_ORAL = re.compile(
    r"\b(?:iv|im|(?:intravenous|inject|infus|intramuscular|topical|rectal|intrathecal)\w*|cream|gel|ointment|patch|"
    r"eye drops)\b",
    re.IGNORECASE,
)
_EXTENDED = re.compile(r"\b(?:er|xr|xl|sr|cr|extended|sustained|modified|slow)\b", re.IGNORECASE)
_WEEKLY = re.compile(r"\b(?:weekly|(?<!days )(?:a|per|each|every|once|one) week)\b", re.IGNORECASE)
_CANCER = re.compile(r"cancer|leuk|lymphoma|chemotherapy|tumou?r|oncolog|choriocarcinoma|sarcoma", re.IGNORECASE)
_RATIO = re.compile(r"\s*\(?((?<!\d)\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\b(?:\s*mg)?\)?(?!\s*m[lL])")
_PIECES_OR_MG = re.compile(r"\bmg\b|\b(?:tablet|pill|capsule|injection)s?\b", re.IGNORECASE)
_LIMIT_NEXT = re.compile(r"more than|exceed|maximum|at most|limit|up to", re.IGNORECASE)


def check_doses(
    text: str, sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence], patient: Patient
) -> list[Finding]:
    """Find doses above the maximum daily dose for the age.

    A dose without a drug in its sentence belongs to the last drug named before, or to the only drug of the question.
    """
    findings = []
    last_drug = _only_drug(asked)
    for i, sentence in enumerate(sentences):
        drugs = [mark for mark, _ in statuses[i]]
        begin, end = sentence.span
        if sentence.is_question:
            last_drug = drugs[-1].value if drugs else last_drug
            continue
        until = end
        if i + 1 < len(sentences) and not statuses[i + 1]:  # `... Do not take more than 8 tablets a day.`
            start, stop = sentences[i + 1].span
            until = stop if _LIMIT_NEXT.search(text[start:stop]) else end
        for dose in find_doses(text[begin:until]):
            drug = _drug_of(dose, begin, drugs, last_drug)
            if drug and "|" not in drug and begin + dose.start < end and _is_advice(dose, begin, sentence):
                findings += _check_maximum(drug, dose, begin, text[begin:end], patient)
        for drug, dose in _piece_doses(text[begin:end], begin, drugs):
            if _is_advice(dose, begin, sentence):
                findings += _check_maximum(drug, dose, begin, text[begin:end], patient)
        last_drug = drugs[-1].value if drugs else last_drug
    known = {finding["message"] for finding in findings}
    return findings + [f for f in _check_plans(text, sentences, asked, patient) if f["message"] not in known]


def _only_drug(sentences: list[Sentence]) -> str | None:
    """Return the drug that the sentences name if there is exactly one."""
    names = {mark.value for sentence in sentences for mark in sentence.marks if mark.kind == "drug"}
    return names.pop() if len(names) == 1 else None


def _check_plans(text: str, sentences: list[Sentence], asked: list[Sentence], patient: Patient) -> list[Finding]:
    """Find day plans above the maximum dose, if answer and question name exactly one drug."""
    drug = _only_drug([*asked, *sentences])
    if drug is None or "|" in drug:
        return []
    words = " ".join(token.word for sentence in asked for token in sentence.tokens)
    plan = find_plan(text, _strength(f"{words} {text.lower()}", drug), [name.split()[0] for name in names_of(drug)])
    involved = [s for s in sentences if plan and s.span[0] < plan.end and s.span[1] > plan.start]
    not_advice = ("hypothetical", "history", "study", "somebody", "warn", "prohibit_both")
    if plan is None or any(s.is_question or s.has(*not_advice) for s in involved):
        return []
    dose = Dose(plan.mg, plan.mg, False, 1.0, False, plan.start, plan.end)
    return _check_maximum(drug, dose, 0, text, patient)


@functools.cache
def _strength_patterns(drug: str) -> tuple[re.Pattern, re.Pattern]:
    """Return patterns of a strength after a name (`brufen 600`, `gabapentin 300s`) or before it (`500 mg tablets`)."""
    name = f"(?:{'|'.join(re.escape(name) for name in names_of(drug))})"
    after = r"(?: (?:er|sr|xr|cr|xl))? (\d{1,4}(?:\.\d)?)(?:s| ?mg)?\b(?! ?(?:times|tab|cap|hr|hour|x))"
    return re.compile(rf"\b{name}{after}"), re.compile(rf"\b(\d{{1,4}}) ?mg (?:{name}|tablet|tab|cap|pill)")


def _strength(text: str, drug: str) -> float | None:
    """Return mg per piece as stated in a lower-case text, otherwise the usual strength of a brand that it names."""
    behind_name, before_piece = _strength_patterns(drug)
    if told := behind_name.search(text) or before_piece.search(text):
        return float(told[1])
    usual = [row for row in read_table("strengths") if re.search(rf"\b{re.escape(row['name'])}\b", text)]
    return float(max(usual, key=lambda row: len(row["name"]))["mg"]) if usual else None


def _piece_doses(sentence: str, begin: int, drugs: list[Mark]) -> list[tuple[str, Dose]]:
    """Find (drug, dose) of counted pieces: brands with a usual strength, and each part of `co-codamol 30/500`."""
    strengths = {row["name"]: float(row["mg"]) for row in read_table("strengths")}
    products, names = [], []
    for mark in drugs:
        start, end = mark.start - begin, mark.end - begin
        name = sentence[start:end].lower()
        if ratio := _RATIO.match(sentence[end:]):
            combined = mark.value.split("|") if "|" in mark.value else []
            parts = [(drug, float(mg)) for drug, mg in zip(combined, ratio.groups(), strict=False)]
        else:
            extra = "extra strength" in sentence[max(0, start - 16) : end + 16].lower()
            usual = strengths.get(f"extra strength {name}" if extra else name)
            parts = [(mark.value, usual)] if usual else []
        for drug, mg in parts:
            products.append((start, end + (ratio.end() if ratio else 0), mg))
            names.append(drug)
    return [(names[i], dose) for dose, i in find_piece_doses(sentence, products)]


def _drug_of(dose: Dose, begin: int, drugs: list[Mark], last_drug: str | None) -> str | None:
    """Return the drug of a dose: inside (`500 mg of A`), directly after, last before, first after, or `last_drug`."""
    start, end = begin + dose.start, begin + dose.end
    inside = [mark for mark in drugs if start <= mark.start < end]
    before = [mark for mark in drugs if mark.end <= start]
    after = [mark for mark in drugs if mark.start >= end]
    chosen = inside[:1] or [mark for mark in after[:1] if mark.start - end <= 4] or before[-1:] or after[:1]
    return chosen[0].value if chosen else last_drug


def _is_advice(dose: Dose, begin: int, sentence: Sentence) -> bool:
    if sentence.has("hypothetical", "history", "study", "somebody"):
        return False
    if dose.is_limit:
        return True
    first = next((i for i, token in enumerate(sentence.tokens) if token.end > begin + dose.start), 0)
    clause = [mark for mark in sentence.marks if sentence.clauses[mark.first] == sentence.clauses[first]]
    forbidden = any(m.kind == "prohibit_both" or (m.kind == "prohibit_forward" and m.last < first) for m in clause)
    return not forbidden and not sentence.has("warn") and not any(m.kind == "if" and m.last < first for m in clause)


def _check_maximum(drug: str, dose: Dose, begin: int, sentence: str, patient: Patient) -> list[Finding]:
    if _NOT_ORAL.search(sentence):
        return []
    age = ADULT if patient.age is None else patient.age
    worst = None
    for row in read_table("doses"):
        fits = float(row["min_age"]) <= age < float(row["max_age"] or "inf")
        if row["drug"] != drug or not fits or (row["form"] == "er" and not _EXTENDED.search(sentence)):
            continue
        limit, amount = float(row["max_daily"]), dose.high
        if row["per_kg"] == "kg under 50" and (patient.weight or 50) >= 50:
            continue
        if bool(row["per_kg"]) != dose.per_kg:
            if not patient.weight:
                continue
            amount = dose.high / patient.weight if row["per_kg"] else dose.high * patient.weight
        if amount > limit * 1.001 and (worst is None or row["severity"] > worst[0]["severity"]):
            worst = row, amount, limit
    if worst is None:
        return []
    row, amount, limit = worst
    unit = "mg/kg" if row["per_kg"] else "mg"
    note = f" ({row['note']})" if row["note"] else ""
    message = f"{drug}: up to {amount:,.6g} {unit} a day; the maximum is {limit:,.6g} {unit} a day{note}"
    span = (begin + dose.start, begin + dose.end)
    return [make_finding("daily_dose", "dose", int(row["severity"]), message, span, row["source"])]


def check_methotrexate(
    text: str, sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence]
) -> list[Finding]:
    """Find daily methotrexate outside cancer: it is taken once a week, and daily doses have been fatal (ISMP)."""
    findings = []
    asked_alone = _only_drug(asked) == "methotrexate"
    for sentence, marks in zip(sentences, statuses, strict=True):
        begin, end = sentence.span
        if _CANCER.search(text[begin:end]) or _WEEKLY.search(text[begin:end]):
            continue
        places = [
            (mark.start, mark.end, marks[i + 1][0].start if i + 1 < len(marks) else end, i == 0)
            for i, (mark, status) in enumerate(marks)
            if mark.value == "methotrexate" and status in ("advised", "taken", "mentioned")
        ]
        if asked_alone and not any(statuses) and _PIECES_OR_MG.search(text[begin:end]) and not sentence.has("warn"):
            places = [(begin, begin, end, True)]  # `It's 15 mg, every day` without a name
        for start, stop, until, is_first in places:
            frequency, offset = find_frequency(text[stop:until]), stop
            if frequency is None and is_first:
                frequency, offset = find_frequency(text[begin:start]), begin
            if frequency and frequency[1] > 0.9:
                span = (min(start, offset + frequency[2]), max(stop, offset + frequency[3]))
                message = "methotrexate every day: it is taken once a week; daily doses can be fatal"
                findings.append(make_finding("methotrexate_daily", "dose", 4, message, span, METHOTREXATE))
    return findings
