"""Look up generic names, classes and interactions of drugs in `utils/safety/tables`.

A brand maps to its generic names (Percocet: oxycodone and acetaminophen). A class name in a text (`NSAIDs`) counts as
a member of the class. An interaction between two classes applies to every pair of their drugs. A name without a
generic name is no drug, though it contains one (`alcohol withdrawal`). Names with certainty `read` were found in
public dictionaries of drug names, the others are known from labels.
"""

import functools
import itertools

from utils.safety.phrases import Mark, Phrases, compile_phrases, find_phrases, read_table, tokenize


@functools.cache
def drug_phrases() -> list[tuple[str, str, str]]:
    """Return (name, kind, generic names joined by `|`) for `utils.safety.phrases.compile_phrases`.

    The kind is `drug`, or `no_drug` for a name that contains a drug and is none; the longest match counts.
    """
    kinds = {True: "drug", False: "drug:no_drug"}
    return [(row["name"], kinds[bool(row["generic"])], row["generic"]) for row in read_table("drugs")]


@functools.cache
def names_of(generic: str) -> tuple[str, ...]:
    """Return the names in drugs.csv whose only generic name is this one, in the order of the table."""
    return tuple(row["name"] for row in read_table("drugs") if row["generic"] == generic)


@functools.cache
def class_members() -> dict[str, frozenset[str]]:
    """Return the generic names of each class. A generic name is also a class with itself as the only member."""
    members: dict[str, set[str]] = {}
    for row in read_table("drugs"):
        for generic in filter(None, row["generic"].split("|")):
            members.setdefault(generic, set()).add(generic)
    for row in read_table("classes"):
        members.setdefault(row["class"], set()).add(row["generic"])
    return {name: frozenset(generics) for name, generics in members.items()}


@functools.cache
def interactions() -> dict[frozenset[str], dict[str, str]]:
    """Map each pair of generic names to its row of interactions.csv: the most severe one, then the first.

    A row of a drug with itself, which two products contain, has a set of one name. In a row of a class with itself the
    name of the class (`NSAIDs`) makes no pair with its members.
    """
    pairs: dict[frozenset[str], dict[str, str]] = {}
    for row in read_table("interactions"):
        ours, theirs = class_members()[row["a"]], class_members()[row["b"]]
        same = row["a"] == row["b"]
        if same and len(ours) > 1:
            ours = theirs = frozenset(name for name in ours if row["a"] not in names_of(name))
        for a, b in itertools.product(ours, theirs):
            known = pairs.get(frozenset((a, b)))
            if (a != b or (same and len(ours) == 1)) and (known is None or known["severity"] < row["severity"]):
                pairs[frozenset((a, b))] = row
    return pairs


def interaction(ours: str, theirs: str) -> tuple[dict[str, str], str, str] | None:
    """Find the most severe interaction between two drugs, each given as generic names joined by `|`.

    Returns:
        (row of interactions.csv, generic name of `ours`, generic name of `theirs`), or None if there is none.
        An ingredient that both products contain counts only where the table has a row for two such products.
    """
    if ours == theirs:
        return None
    first, second = ours.split("|"), theirs.split("|")
    found = [
        (interactions()[pair], a, b)
        for a, b in itertools.product(first, second)
        if (pair := frozenset((a, b))) in interactions() and (a == b or (a not in second and b not in first))
    ]
    return max(found, key=lambda item: item[0]["severity"], default=None)


@functools.cache
def _names() -> Phrases:
    return compile_phrases(drug_phrases())


def marks_of_drugs(text: str) -> list[Mark]:
    """Return the marks of the drugs that a text names, in order."""
    return [mark for mark in find_phrases(_names(), tokenize(text)) if mark.kind == "drug"]


def drugs_in(text: str) -> list[str]:
    """Return the drugs that a text names, each as generic names joined by `|`."""
    return [mark.value for mark in marks_of_drugs(text)]
