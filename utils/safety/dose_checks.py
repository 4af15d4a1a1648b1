"""Compare the doses of an answer with the ceilings of `utils/safety/tables/doses.csv`."""

import functools
import re

from utils.safety.ceilings import describe, find_excess, oldest_age
from utils.safety.context import Finding, Sentence, Statuses, make_finding
from utils.safety.doses import Dose, find_doses, find_frequency, find_piece_doses
from utils.safety.drugs import names_of
from utils.safety.forms import form_of
from utils.safety.patient import Patient
from utils.safety.phrases import Mark, read_table
from utils.safety.schedules import find_plan
from utils.safety.self_report import age_at, weight_in

# ISMP: harm and deaths after low-dose methotrexate was taken daily
METHOTREXATE = (
    "https://consumermedsafety.org/medication-safety-articles/item/"
    "793-even-low-dose-methotrexate-can-cause-harm-or-death-if-taken-daily-or-with-certain-other-medicines"
)
_WEEKLY = re.compile(r"\b(?:weekly|(?<!days )(?:a|per|each|every|once|one) week)\b", re.IGNORECASE)
_CANCER = re.compile(r"cancer|leuk|lymphoma|chemotherapy|tumou?r|oncolog|choriocarcinoma|sarcoma", re.IGNORECASE)
_RATIO = re.compile(r"\s*\(?((?<!\d)\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\b(?:\s*mg)?\)?(?!\s*m[lL])")
_PIECES_OR_MG = re.compile(r"\bmg\b|\b(?:tablet|pill|capsule|injection)s?\b", re.IGNORECASE)
STAGES_END = 4.0  # years; a stage of childhood in a sentence is less exact than a known age
_LIMIT_NEXT = re.compile(r"more than|exceed|maximum|at most|limit|up to", re.IGNORECASE)


def check_doses(
    text: str, sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence], patient: Patient
) -> list[Finding]:
    """Find doses above the ceilings for age and weight.

    A dose without a drug in its sentence belongs to the last drug named before, or to the only drug of the question.
    Age and weight of a dose are those of its sentence (`a 3-year-old can have ...`), otherwise those of the patient.
    """
    findings = []
    last_drug, last_form = _only_drug(asked), "oral"
    for i, sentence in enumerate(sentences):
        drugs = [mark for mark, _ in statuses[i]]
        begin, end = sentence.span
        found: list[tuple[str | None, Dose]] = []
        if not sentence.is_question:
            until = end
            if i + 1 < len(sentences) and not statuses[i + 1]:  # `... Do not take more than 8 tablets a day.`
                start, stop = sentences[i + 1].span
                until = stop if _LIMIT_NEXT.search(text[start:stop]) else end
            found += [(_drug_of(dose, begin, drugs, last_drug), dose) for dose in find_doses(text[begin:until])]
            found += _piece_doses(text[begin:end], begin, drugs)
        for drug, dose in found:
            if drug and "|" not in drug and begin + dose.start < end and _is_advice(dose, begin, sentence):
                span = (begin + dose.start, begin + dose.end)
                form = form_of(text, sentence, span, drug, drugs)
                form = last_form if form == "oral" and not drugs else form
                findings += _check(drug, dose, span, form, _person(text[begin:end], dose.start, patient))
        if drugs:
            last_drug, last = drugs[-1].value, (drugs[-1].start, drugs[-1].end)
            last_form = form_of(text, sentence, last, last_drug, drugs)
    known = {finding["message"] for finding in findings}
    return findings + [f for f in _check_plans(text, sentences, asked, patient) if f["message"] not in known]


def _check(
    drug: str, dose: Dose, span: tuple[int, int], form: str, person: tuple[float | None, float | None]
) -> list[Finding]:
    excess = find_excess(drug, dose, *person, form)
    return [describe(drug, excess, dose, span)] if excess else []


def _person(sentence: str, at: int, patient: Patient) -> tuple[float | None, float | None]:
    """Return age and weight of the person that a dose at `at` of a sentence is for. A weight alone tells a child."""
    age, weight = age_at(sentence, at), weight_in(sentence)
    if age is not None and patient.age is not None and patient.age < age < STAGES_END:
        age = patient.age  # `give your toddler ...` of a child whose age is known
    if weight is None:  # the patient's weight is not that of another person in the sentence
        weight = patient.weight if age is None or patient.age is None or abs(age - patient.age) < 1 else None
    age = patient.age if age is None else age
    return (oldest_age(weight) if age is None and weight else age), weight


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
    dose, span = Dose(plan.mg, plan.mg, False, 1.0, False, plan.start, plan.end), (plan.start, plan.end)
    forms = {form_of(text, involved[0], span, drug, [])}
    for sentence in sentences:
        marks = [mark for mark in sentence.marks if mark.kind == "drug"]
        forms |= {form_of(text, sentence, (mark.start, mark.end), drug, marks) for mark in marks}
    form = next((form for form in ("other", "er") if form in forms), "oral")
    return _check(drug, dose, span, form, _person(text, plan.start, patient))


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
