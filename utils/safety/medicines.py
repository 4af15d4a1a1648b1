"""Check advice about medicines: interactions, doses, and contraindications for the patient."""

import itertools
import re

from utils.safety.context import Finding, Sentence, Statuses, are_alternatives, drug_statuses, make_finding
from utils.safety.dose_checks import check_doses, check_methotrexate
from utils.safety.drugs import class_members, drugs_in, interaction
from utils.safety.patient import Patient
from utils.safety.phrases import Mark, read_table
from utils.safety.warnings import Objections, find_objections

# Cues that lower the severity by one: `if your doctor agrees`, `but be careful`
_QUALIFIED = ("supervised", "consult", "care", "warn")
_YES = ("yes", "yep", "yeah", "sure", "absolutely", "certainly", "definitely", "ok", "okay")
_IN_PLAY = {"advised", "taken", "conditional", "mentioned"}
MAX_ASKED = 100  # drugs of a question that are paired; the number of pairs grows with the square
Pairs = dict[tuple[str, frozenset[str]], Finding]  # (rule, the two drugs) -> finding


def check_medicines(text: str, sentences: list[Sentence], asked: list[Sentence], patient: Patient) -> list[Finding]:
    """Find unsafe advice about the drugs of an answer.

    Args:
        text, sentences: the answer, and its sentences from `utils.safety.context.read_sentences`.
        asked: sentences of the question, or an empty list.
        patient: what is known about the patient.

    Returns:
        Findings of interactions, doses and contraindications.
    """
    statuses = [drug_statuses(sentence) for sentence in sentences]
    objections = find_objections(sentences, statuses, asked)
    agreements = _agreements(sentences, objections)
    pairs = _interactions(sentences, statuses, asked, patient)
    for key, finding in _false_assurance(sentences, statuses, asked, objections, agreements, patient).items():
        if key not in pairs or pairs[key]["severity"] < finding["severity"]:
            pairs[key] = finding
    return [
        *pairs.values(),
        *check_doses(text, sentences, statuses, asked, patient),
        *check_methotrexate(text, sentences, statuses, asked),
        *_patient_factors(statuses, asked, patient, objections, agreements),
    ]


def _interactions(
    sentences: list[Sentence], statuses: list[Statuses], asked: list[Sentence], patient: Patient
) -> Pairs:
    """Find interactions within a sentence, and of an advised drug with others that are taken or advised.

    Those are the medications of the patient, the drugs that the asker takes according to the question, and the drugs
    of other sentences. A pair that is only mentioned, without advice or warning, is a caution.
    """
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
            if status != "advised" or mark.value in patient.medications:
                continue
            # What the asker wants to take is compared with the other drugs of the question by `_false_assurance`
            others = known if known.get(mark.value, i) >= 0 else dict.fromkeys(patient.medications, -1)
            for name, where in others.items():
                if where != i and (where < 0 or not sentences[i].has("switch")):
                    add(mark.value, name, lowered, (mark.start, mark.end))
    return found


def _distinct(marks: Statuses) -> Statuses:
    """Keep the first mention of each drug with each status, which bounds the cost of long lists."""
    return list({(mark.value, status): (mark, status) for mark, status in reversed(marks)}.values())[::-1]


def _drugs_of_the_asker(asked: list[Sentence]) -> list[str]:
    """Return the drugs that the asker takes or wants to take, according to the question."""
    if not any(sentence.has("person", "now", "taken") for sentence in asked):
        return []
    return [m.value for sentence in asked for m, status in drug_statuses(sentence) if status in _IN_PLAY]


def _agreements(sentences: list[Sentence], objections: Objections) -> list[Sentence]:
    """Return the sentences in which an answer agrees to what was asked; none if it refuses."""
    agrees = [s for i, s in enumerate(sentences) if s.has("reassure") or _says_yes(s, is_first=not i)]
    return [] if objections.refuses else agrees


def _says_yes(sentence: Sentence, is_first: bool) -> bool:
    """Return whether a sentence begins with a `yes`; behind other sentences only with a pause: `Sure, ...`."""
    words = [token.word for token in sentence.tokens[:2]]
    return words[0] in _YES and (is_first or len(words) == 1 or not words[1][0].isalnum())


def _agreement(agreements: list[Sentence], names: set[str]) -> Sentence | None:
    """Return the first agreement that is about one of the drugs, or about what was asked, but not about others."""
    for sentence in agreements:
        drugs = {generic for m in sentence.marks if m.kind == "drug" for generic in (m.value, *m.value.split("|"))}
        if not drugs or not drugs.isdisjoint(names):
            return sentence
    return None


def _false_assurance(
    sentences: list[Sentence],
    statuses: list[Statuses],
    asked: list[Sentence],
    objections: Objections,
    agreements: list[Sentence],
    patient: Patient,
) -> Pairs:
    """Find interactions between drugs of the question, or with drugs of the answer or the patient, that the answer
    does not prohibit.

    The full severity applies if the answer agrees to the question, otherwise it is a caution. A warning lowers it by
    one; a prohibition removes the finding, unless the answer agrees.
    """
    if not sentences:
        return {}
    ours = [(mark, i) for i, sentence in enumerate(asked) for mark in _asked_drugs(sentence)]
    ours = list({(mark.value, i): (mark, i) for mark, i in ours}.values())[:MAX_ASKED]
    theirs = {mark.value for marks in statuses for mark, status in marks if status in _IN_PLAY}
    theirs |= set(patient.medications)
    pairs = [
        (first.value, second.value)
        for (first, i), (second, j) in itertools.combinations(ours, 2)
        if i != j or not are_alternatives(first, second, asked[i])
    ]
    pairs += [  # an answer may say what a product of the question contains
        (first.value, second)
        for (first, _), second in itertools.product(ours, sorted(theirs))
        if set(first.value.split("|")).isdisjoint(second.split("|"))
    ]
    found: Pairs = {}
    for pair in dict.fromkeys(pairs):
        hit = interaction(*pair)
        if not hit:
            continue
        row, a, b = hit
        agreement = _agreement(agreements, {a, b, *pair})
        if not agreement and objections.prohibit({a, b, *pair}):
            continue
        warns = objections.warn({a, b, *pair}, row["message"])
        severity = max(1, (int(row["severity"]) if agreement else 2) - warns)
        what = "the answer agrees" if agreement else "the answer warns" if warns else "the answer does not warn"
        message = f"{a} with {b}: {row['message']}; {what}"
        where = agreement.span if agreement else (sentences[0].tokens[0].start, sentences[-1].tokens[-1].end)
        finding = make_finding(row["rule"], "interaction", severity, message, where, row["source"])
        found.setdefault((row["rule"], frozenset((a, b))), finding)
    return found


def _asked_drugs(sentence: Sentence) -> list[Mark]:
    """Return the drugs of a sentence of the question, for any person, unless they are no longer taken."""
    if sentence.has("hypothetical", "study", "stopped"):
        return []
    return [mark for mark in sentence.marks if mark.kind == "drug"]


def _patient_factors(
    statuses: list[Statuses],
    asked: list[Sentence],
    patient: Patient,
    objections: Objections,
    agreements: list[Sentence],
) -> list[Finding]:
    """Find contraindications for the patient: pregnancy, kidney function, age, conditions, allergies.

    Advised drugs count, and drugs of the question that the answer agrees to. So do drugs that it only mentions, as a
    caution, unless it prohibits them; a warning lowers that by one.
    """
    meant = [(mark.value, (mark.start, mark.end), status) for marks in statuses for mark, status in marks]
    of_question = {mark.value for sentence in asked if sentence.is_question for mark in _asked_drugs(sentence)}
    for name in sorted(of_question):
        if agreement := _agreement(agreements, {name, *name.split("|")}):
            meant.append((name, agreement.span, "agreed"))
    # where each drug is first advised, otherwise where it is first named
    first: dict[str, tuple[tuple[int, int], str]] = {}
    for name, span, status in sorted(meant, key=lambda drug: ("advised", "agreed", drug[2]).index(drug[2])):
        said = status in ("advised", "agreed")
        if said or (status in _IN_PLAY and not objections.prohibit({name, *name.split("|")})):
            first.setdefault(name, (span, status))
    allergens = {generic for text in patient.allergies for name in drugs_in(text) for generic in name.split("|")}
    found: dict[tuple[str, str], Finding] = {}
    for name, (span, status) in first.items():
        for generic in name.split("|"):
            for row in read_table("patient_factors"):
                if generic in class_members()[row["drug"]] and _applies(row, patient, allergens):
                    message = f"{generic} and {row['name']}: {row['message']}"
                    severity = _severity(
                        int(row["severity"]), status, objections, name, f"{row['message']} {row['name']}"
                    )
                    finding = make_finding(row["rule"], "contraindication", severity, message, span, row["source"])
                    found.setdefault((row["rule"], generic), finding)
            if generic in allergens:
                message = f"{generic}: the patient is allergic to it"
                severity = _severity(4, status, objections, name, "allergic")
                finding = make_finding("allergy", "contraindication", severity, message, span, "patient_context")
                found.setdefault(("allergy", generic), finding)
    return list(found.values())


def _severity(highest: int, status: str, objections: Objections, name: str, danger: str) -> int:
    """Return the severity of a finding: in full for advised drugs, lowered by one where the answer warns of others."""
    if status == "advised":
        return highest
    warns = objections.warn({name, *name.split("|")}, danger)
    return max(1, (highest if status == "agreed" else 2) - warns)


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
        case "age from":
            return patient.age is not None and patient.age >= float(row["value"])
        case "allergy":
            named = any(re.search(rf"\b(?:{row['value']})", allergy) for allergy in patient.allergies)
            return named or not class_members()[row["drug"]].isdisjoint(allergens)
    raise ValueError(f"patient_factors.csv has the factor {row['factor']}")
