"""Names of drugs -> generic names, classes and interacting pairs, all from `utils/safety/tables`.

A brand is its generic names (Percocet: oxycodone and acetaminophen); a class that is named as such (`NSAIDs`) is a
member of its class. Interactions between two classes hold for each drug of the one with each of the other.
Names with the certainty `read` were found in public dictionaries of drug names, the others are known from labels.
"""

import functools
import itertools

from utils.safety.phrases import Phrases, compile_phrases, find_phrases, read_table, tokenize


@functools.cache
def drug_phrases() -> list[tuple[str, str, str]]:
    """(name, "drug", generic names joined by `|`) for `utils.safety.phrases.compile_phrases`."""
    return [(row["name"], "drug", row["generic"]) for row in read_table("drugs")]


@functools.cache
def names_of(generic: str) -> tuple[str, ...]:
    """Every name of drugs.csv that stands for a generic name alone, in the order of the table."""
    return tuple(row["name"] for row in read_table("drugs") if row["generic"] == generic)


@functools.cache
def class_members() -> dict[str, frozenset[str]]:
    """Class -> generic names; a generic name is also a class of one."""
    members: dict[str, set[str]] = {}
    for row in read_table("drugs"):
        for generic in row["generic"].split("|"):
            members.setdefault(generic, set()).add(generic)
    for row in read_table("classes"):
        members.setdefault(row["class"], set()).add(row["generic"])
    return {name: frozenset(generics) for name, generics in members.items()}


@functools.cache
def interactions() -> dict[frozenset[str], dict[str, str]]:
    """Pair of generic names -> its row of interactions.csv; of several the most severe, then the first."""
    pairs: dict[frozenset[str], dict[str, str]] = {}
    for row in read_table("interactions"):
        for pair in itertools.product(class_members()[row["a"]], class_members()[row["b"]]):
            known = pairs.get(frozenset(pair))
            if len(set(pair)) == 2 and (known is None or known["severity"] < row["severity"]):
                pairs[frozenset(pair)] = row
    return pairs


def interaction(ours: str, theirs: str) -> tuple[dict[str, str], str, str] | None:
    """The most severe interaction between two names as in `drug_phrases` (generics joined by `|`), and its drugs.
    None where there is none, and between parts of one product."""
    found = [
        (interactions()[frozenset((a, b))], a, b)
        for a in ours.split("|")
        for b in theirs.split("|")
        if frozenset((a, b)) in interactions() and a not in theirs.split("|") and b not in ours.split("|")
    ]
    return max(found, key=lambda item: item[0]["severity"], default=None)


@functools.cache
def _names() -> Phrases:
    return compile_phrases(drug_phrases())


def drugs_in(text: str) -> list[str]:
    """Drugs that a text names, as in `drug_phrases`."""
    return [mark.value for mark in find_phrases(_names(), tokenize(text))]
