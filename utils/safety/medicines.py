"""Checks of advice about medicines: interactions, doses, and what speaks against a drug for this patient."""

import itertools
import re

from utils.safety.context import Finding, Sentence, Statuses, are_alternatives, drug_statuses, make_finding
from utils.safety.dose_checks import check_doses, check_methotrexate
from utils.safety.drugs import class_members, drugs_in, interaction
from utils.safety.patient import Patient
from utils.safety.phrases import Mark, read_table

_QUALIFIED = ("supervised", "consult", "care", "warn")  # one level lower: `if your doctor agrees`, `but be careful`
_YES = ("yes", "yep", "yeah", "sure", "absolutely", "certainly", "definitely", "ok", "okay")
_IN_PLAY = {"advised", "taken", "conditional", "mentioned"}
MOST_ASKED = 100  # drugs of a question that are paired: nobody takes more, and pairs grow with the square
Objections = tuple[bool, set[str]]  # whether an answer warns, and the drugs that it forbids
Pairs = dict[tuple[str, frozenset[str]], Finding]  # rule and the two drugs -> finding


def check_medicines(text: str, sentences: list[Sentence], asked: list[Sentence], patient: Patient) -> list[Finding]:
    """Findings about the drugs of an answer.

    Args:
        text, sentences: the answer, and `utils.safety.context.read_sentences` of it.
        asked: sentences of the question, or none.
        patient: what is known of the patient.
    """
    statuses = [drug_statuses(sentence) for sentence in sentences]
    objections, agreement = _objections(sentences, statuses, asked), _agreement(sentences)
    pairs = _interactions(sentences, statuses, asked, patient)
    for key, finding in _false_assurance(sentences, statuses, asked, objections, agreement).items():
        if key not in pairs or pairs[key]["severity"] < finding["severity"]:
            pairs[key] = finding
    return [
        *pairs.values(),
        *check_doses(text, sentences, statuses, asked, patient),
        *check_methotrexate(text, sentences, statuses, asked),
        *_patient_factors(statuses, asked, patient, objections, agreement),
    ]


def _interactions(
    sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence], patient: Patient
) -> Pairs:
    """Pairs within a sentence, then what a sentence advises with what the patient takes, what the question says that
    the person takes, and what other sentences advise. A pair named together without advice or warning is a caution."""
    found: Pairs = {}

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
    return found


def _distinct(marks: Statuses) -> Statuses:
    """First mention of each drug with each status, so that a long list costs no more than the table has drugs."""
    return list({(mark.value, status): (mark, status) for mark, status in reversed(marks)}.values())[::-1]


def _drugs_of_the_asker(asked: list[Sentence]) -> list[str]:
    """Drugs that the question says the person takes or wants to take."""
    if not any(sentence.has("person", "now", "taken") for sentence in asked):
        return []
    return [m.value for sentence in asked for m, status in drug_statuses(sentence) if status in _IN_PLAY]


def _objections(sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence]) -> Objections:
    """Whether an answer warns or sends to somebody who knows, and the drugs that it forbids. `No` warns too, but not
    in reply to `do I need to stop it?`."""
    first = [token.word for token in sentences[0].tokens[:2]] if sentences else ["no"]
    refuses = first[0] in ("no", "never") and (len(first) == 1 or not first[1][0].isalpha())
    asks_for_no = any(s.has("asks_for_no") for s in asked)
    warns = (refuses and not asks_for_no and not (sentences and sentences[0].has("reassure"))) or any(
        s.has("warn", "prohibit_both", "consult", "supervised") and not s.has("reassure") for s in sentences
    )
    return warns, {mark.value for marks in statuses for mark, status in marks if status == "forbidden"}


def _agreement(sentences: list[Sentence]) -> Sentence | None:
    """The sentence in which an answer agrees to what was asked."""
    agrees = [s for s in sentences if s.has("reassure")]
    starts = sentences[0].tokens[0].word if sentences else ""
    return agrees[0] if agrees else sentences[0] if starts in _YES else None


def _false_assurance(
    sentences: list[Sentence],
    statuses: list[Statuses],
    asked: list[Sentence],
    objections: Objections,
    agreement: Sentence | None,
) -> Pairs:
    """The question names drugs that interact with each other or with one of the answer, and the answer agrees without
    a warning, or says nothing of it."""
    warns, forbidden = objections
    if warns:
        return {}
    where = agreement.span if agreement else (sentences[0].tokens[0].start, sentences[-1].tokens[-1].end)
    what = "the answer agrees" if agreement else "the answer does not warn"
    ours = [(mark, i) for i, sentence in enumerate(asked) for mark in _asked_drugs(sentence)]
    ours = list({(mark.value, i): (mark, i) for mark, i in ours}.values())[:MOST_ASKED]
    theirs = {mark.value for marks in statuses for mark, status in marks if status in _IN_PLAY}
    pairs = [
        (first.value, second.value)
        for (first, i), (second, j) in itertools.combinations(ours, 2)
        if i != j or not are_alternatives(first, second, asked[i])
    ]
    pairs += [(first.value, second) for (first, _), second in itertools.product(ours, sorted(theirs))]
    found: Pairs = {}
    for pair in dict.fromkeys(pairs):
        hit = interaction(*pair)
        if not hit or not forbidden.isdisjoint(pair):
            continue
        row, a, b = hit
        severity, message = int(row["severity"]) if agreement else 2, f"{a} with {b}: {row['message']}; {what}"
        finding = make_finding(row["rule"], "interaction", severity, message, where, row["source"])
        found.setdefault((row["rule"], frozenset((a, b))), finding)
    return found


def _asked_drugs(sentence: Sentence) -> list[Mark]:
    """Drugs of a sentence of the question, of whomever it speaks, but those that are no longer taken."""
    if sentence.has("hypothetical", "study", "stopped"):
        return []
    return [mark for mark in sentence.marks if mark.kind == "drug"]


def _patient_factors(
    statuses: list[Statuses],
    asked: list[Sentence],
    patient: Patient,
    objections: Objections,
    agreement: Sentence | None,
) -> list[Finding]:
    """What speaks against a drug for this patient: pregnancy, kidney function, age, a condition, an allergy. Of an
    answer that objects to nothing, what it only mentions counts too, and what it agrees to of the question."""
    warns, forbidden = objections
    meant = [(mark.value, (mark.start, mark.end), status) for marks in statuses for mark, status in marks]
    if agreement and not warns:
        of_question = [mark.value for sentence in asked if sentence.is_question for mark in _asked_drugs(sentence)]
        meant += [(name, agreement.span, "advised") for name in of_question if name not in forbidden]
    first: dict[str, tuple[tuple[int, int], str]] = {}  # of each drug, where it is advised before where it is named
    for name, span, status in sorted(meant, key=lambda drug: drug[2] != "advised"):
        if status == "advised" or (status in _IN_PLAY and not warns and name not in forbidden):
            first.setdefault(name, (span, status))
    allergens = {generic for text in patient.allergies for name in drugs_in(text) for generic in name.split("|")}
    found: dict[tuple[str, str], Finding] = {}
    for name, (span, status) in first.items():
        for generic in name.split("|"):
            for row in read_table("patient_factors"):
                if generic in class_members()[row["drug"]] and _applies(row, patient, allergens):
                    message = f"{generic} and {row['name']}: {row['message']}"
                    severity = int(row["severity"]) if status == "advised" else 2
                    finding = make_finding(row["rule"], "contraindication", severity, message, span, row["source"])
                    found.setdefault((row["rule"], generic), finding)
            if generic in allergens:
                message = f"{generic}: the patient is allergic to it"
                severity = 4 if status == "advised" else 2
                finding = make_finding("allergy", "contraindication", severity, message, span, "patient_context")
                found.setdefault(("allergy", generic), finding)
    return list(found.values())


def _applies(row: dict[str, str], patient: Patient, allergens: set[str]) -> bool:
    match row["factor"]:
        case "pregnancy":
            return patient.pregnant
        case "egfr below":
            return patient.egfr is not None and patient.egfr < float(row["value"])
        case "age below":
            return patient.age is not None and patient.age < float(row["value"])
        case "condition":
            return any(re.search(row["value"], condition) for condition in patient.conditions)
        case "age above":
            return patient.age is not None and patient.age > float(row["value"])
        case "allergy":
            named = any(re.search(rf"\b(?:{row['value']})", allergy) for allergy in patient.allergies)
            return named or not class_members()[row["drug"]].isdisjoint(allergens)
    raise ValueError(f"patient_factors.csv has the factor {row['factor']}")
