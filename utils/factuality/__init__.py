"""Find hallucinations and omissions of a summary, with their spans.

ROUGE does not notice an invented dose. This package compares the numbers, drugs, findings and diagnoses of two texts.
For those in both, it compares whether they are affirmed or denied, whether they concern the patient or the family, and
on which side of the body they are. It uses rules and word lists only, so every finding can be checked by eye.

Limits: it does not see claims without a number or a listed name (`utils/factuality/medical_terms.py`), nor words that
occur in both texts but are combined wrongly.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from utils.factuality.assertions import Span, assertion_at, find_scopes
from utils.factuality.medical_terms import Term, find_terms, is_kind_of
from utils.factuality.quantities import Quantity, find_quantities, is_supported
from utils.factuality.words import Word, split_words, stem

KINDS = ("number", "drug", "finding", "negation", "person", "laterality")

# Words without content about the patient: English stop words and words of any dialogue or note
STOP_WORDS = ENGLISH_STOP_WORDS | frozenset(
    "did does doing having patient pt doctor dr mr mrs ms guest family clinician say says said state states stated "
    "report reports reported okay ok yes yeah um uh oh hi hello thanks thank i'm i've don't it's that's history year "
    "years".split()
)
# Added to the denominator of the hallucination share, so that one new word in a summary of two is not 50 %.
# Correlation with 200 expert scores on the half of MTS-Dialog's validation dialogues used to choose it: 0.21 for 0,
# 0.44 for 3, 0.46 for 5 and for 8; on the other half 0.23 for 5 (benchmarks/factuality.py).
SUPPORTED_WORDS = 5

# statistic -> kind of finding that it counts
INVENTED = {
    "hallucinated_numbers": "number",
    "hallucinated_drugs": "drug",
    "hallucinated_findings": "finding",
    "negation_flips": "negation",
    "wrong_person": "person",
    "wrong_laterality": "laterality",
}
OMITTED = {"omitted_numbers": "number", "omitted_drugs": "drug", "omitted_findings": "finding"}

SIDE = re.compile(r"\b(left|right|both|bilateral(?:ly)?)\b", re.IGNORECASE)
BODY_PARTS = frozenset(
    map(
        stem,
        "abdomen ankle arm armpit axilla back breast buttock calf carotid cheek chest ear elbow eye extremity face "
        "femur finger flank foot feet forearm groin hand head heel hip humerus iliac kidney knee leg lobe lung neck "
        "ovary quadrant rib scapula shin shoulder side testicle thigh thumb tibia toe tonsil wrist".split(),
    )
)


class Facts(NamedTuple):
    """Content of a text. `assertions` has (status, person) of each term, `sides` has (side, body part stem, span)."""

    text: str
    words: list[Word]
    terms: list[Term]
    assertions: list[tuple[str, str]]
    quantities: list[Quantity]
    sides: list[tuple[str, str, Span]]


def find_hallucinations(source: str, summary: str) -> list[dict[str, Any]]:
    """Find claims of a summary that its source does not support.

    Returns:
        A list of `{"kind", "text", "span", "detail"}` in the order of the spans: `kind` is one of `KINDS`, `text` is
        `summary[span[0]:span[1]]`, and `detail` says what the source has instead.

    Raises:
        UserError: a package of medical names is not installed.
    """
    return _differences(_read(summary), _read(source), "the source")


def find_omissions(reference: str, summary: str) -> list[dict[str, Any]]:
    """Find claims of a reference that the summary lacks, as `find_hallucinations`, with spans in the reference."""
    return _differences(_read(reference), _read(summary), "the summary")


def factuality_statistics(
    summaries: Sequence[str], references: Sequence[str], sources: Sequence[str]
) -> dict[str, np.ndarray]:
    """Compute row statistics of hallucinations and omissions, each an array [rows, 2] as in `utils.metrics`.

    Args:
        summaries, references, sources: one text per row.

    Returns:
        omission: share of the reference's content that the summary lacks or contradicts, in 0..1. The content is the
            set of words without stop words, plus each number and term a second time, since they matter most.
        hallucination: the same share of the summary's content against the source, with `SUPPORTED_WORDS`.
        hallucinated_numbers, hallucinated_drugs, hallucinated_findings, negation_flips, wrong_person,
        wrong_laterality, omitted_numbers, omitted_drugs, omitted_findings: number per summary.
        any_hallucination: share of summaries with at least one of the first six.

    Raises:
        UserError: a package of medical names is not installed.
    """
    names = ["omission", "hallucination", *INVENTED, *OMITTED, "any_hallucination"]
    rows: dict[str, list[float]] = {name: [] for name in names}
    for summary, reference, source in zip(summaries, references, sources, strict=True):
        facts, wanted, known = _read(summary), _read(reference), _read(source)
        hallucinations, omissions = (
            _differences(facts, known, "the source"),
            _differences(wanted, facts, "the summary"),
        )
        rows["omission"].append(_missing_share(wanted, facts, omissions))
        rows["hallucination"].append(_missing_share(facts, known, hallucinations, SUPPORTED_WORDS))
        for kinds, differences in ((INVENTED, hallucinations), (OMITTED, omissions)):
            for name, kind in kinds.items():
                rows[name].append(sum(difference["kind"] == kind for difference in differences))
        rows["any_hallucination"].append(bool(hallucinations))
    return {name: np.column_stack([values, np.ones(len(values))]) for name, values in rows.items()}


def _read(text: str) -> Facts:
    words = split_words(text)
    terms, scopes = find_terms(text), find_scopes(text)
    assertions = [assertion_at(scopes, term.start) for term in terms]
    return Facts(text, words, terms, assertions, find_quantities(text), _find_sides(words))


def _find_sides(words: list[Word]) -> list[tuple[str, str, Span]]:
    """Find sides with their body part: the nearest one within three words after, otherwise within four before."""
    sides = []
    for i, word in enumerate(words):
        if SIDE.fullmatch(word.text):
            after = [w for w in words[i + 1 : i + 4] if w.stem in BODY_PARTS]
            before = [w for w in words[max(0, i - 4) : i] if w.stem in BODY_PARTS]
            if after or before:
                part = after[0] if after else before[-1]
                side = {"bilateral": "both", "bilaterally": "both"}.get(word.lower, word.lower)
                sides.append((side, part.stem, (min(word.start, part.start), max(word.end, part.end))))
    return sides


def _differences(claims: Facts, known: Facts, where: str) -> list[dict[str, Any]]:
    numbers = list({quantity[:3]: quantity for quantity in known.quantities}.values())  # one of each value
    found = [
        ("number", (quantity.start, quantity.end), f"{where} has no such number")
        for quantity in claims.quantities
        if quantity.is_claim and not is_supported(quantity, numbers)
    ]
    stems = {word.stem for word in known.words}
    said: dict[str, set[tuple[str, str]]] = {}
    for term, assertion in zip(known.terms, known.assertions, strict=True):
        said.setdefault(term.concept, set()).add(assertion)
    for term, (status, person) in zip(claims.terms, claims.assertions, strict=True):
        span = (term.start, term.end)
        if not set(term.stems) <= stems and not any(is_kind_of(concept, term.concept) for concept in said):
            found.append((term.kind, span, f"{where} does not name it"))
        statuses, people = zip(*said[term.concept], strict=True) if term.concept in said else ((), ())
        if {status, *statuses} == {"present", "absent"} and status not in statuses:
            has = "denied" if status == "present" else "affirmed"
            found.append(("negation", span, f"{has} in {where}"))
        if people and person != "unknown" and not {person, "unknown"} & set(people):
            has = "the patient" if person == "family" else "the family"
            found.append(("person", span, f"of {has} in {where}"))
    for side, part, span in claims.sides:
        known_sides = {s for s, p, _ in known.sides if p == part}
        several = any(word.stem == part and (word.lower.endswith("s") or word.lower == "feet") for word in known.words)
        if "both" in known_sides or {"left", "right"} <= known_sides or (side == "both" and several):
            continue
        if known_sides and side not in known_sides:
            found.append(("laterality", span, f"{min(known_sides)} in {where}"))
        elif not known_sides and part in stems and side not in {word.lower for word in known.words}:
            found.append(("laterality", span, f"{where} gives no side"))
    return [
        {"kind": kind, "text": claims.text[span[0] : span[1]], "span": list(span), "detail": detail}
        for kind, span, detail in sorted(found, key=lambda finding: (finding[1], finding[0]))
    ]


def _missing_share(claims: Facts, known: Facts, differences: list[dict[str, Any]], supported: int = 0) -> float:
    """Return the share of a text's content that another text lacks; `supported` is added to the denominator."""
    in_numbers = {place for quantity in claims.quantities for place in range(quantity.start, quantity.end)}
    words = {
        word.stem
        for word in claims.words
        if word.lower not in STOP_WORDS and not word.lower.isdigit() and word.start not in in_numbers
    }
    stems, concepts = {word.stem for word in known.words}, {term.concept for term in known.terms}
    for term in claims.terms:
        if any(is_kind_of(concept, term.concept) for concept in concepts):
            stems |= set(term.stems)
    wrong = {tuple(difference["span"]) for difference in differences}
    claimed = {(quantity.start, quantity.end) for quantity in claims.quantities if quantity.is_claim}
    claimed |= {(term.start, term.end) for term in claims.terms} | wrong  # sides count only if they are wrong
    missing = len(words - stems) + len(wrong)
    return missing / (len(words) + len(claimed) + supported) if missing else 0.0
