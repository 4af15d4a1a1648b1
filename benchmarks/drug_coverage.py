"""Which of the most prescribed drugs of two countries the safety tables know, and what they check of each.

    python -m benchmarks.drug_coverage

`benchmarks/prescribed_drugs.csv` has 200 drugs of the USA, in the order of the ClinCalc DrugStats of 2023 (from the
Medical Expenditure Panel Survey), and 200 of England. Of those of England the first ten were read as published; the
others (`memory`) are compiled from memory of the Prescription Cost Analysis, without ranks, and some of them may lie
behind the first 200. Parts of a combination are separated by `; `.
"""

import csv
import json
from pathlib import Path
from typing import Any

from utils.safety.drugs import class_members, drugs_in, interactions
from utils.safety.phrases import read_table

LIST = Path(__file__).with_name("prescribed_drugs.csv")


def prescribed() -> list[dict[str, str]]:
    """Return the rows of the list."""
    with LIST.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def coverage_of(name: str) -> dict[str, Any]:
    """Return what the tables have on a drug.

    Returns:
        `generic`: generic names, none if a part is not recognised; `classes`; `names`: how many names stand for it or
        for products with it; `pairs`: drugs that it interacts with; whether it has a `dose` and a `patient` row.
    """
    parts = [drugs_in(part) for part in name.split("; ")]
    generics = sorted({generic for found in parts for value in found for generic in value.split("|")})
    if not all(parts):
        generics = []
    has = {table: class_members_of(table) for table in ("doses", "patient_factors")}
    own = set(generics)
    return {
        "generic": generics,
        "classes": sorted({row["class"] for row in read_table("classes") if row["generic"] in own}),
        "names": sum(not own.isdisjoint(row["generic"].split("|")) for row in read_table("drugs")),
        "pairs": len({other for pair in interactions() if pair & own for other in pair - own}),
        "dose": not own.isdisjoint(has["doses"]),
        "patient": not own.isdisjoint(has["patient_factors"]),
    }


def class_members_of(table: str) -> set[str]:
    """Return the generic names that the `drug` column of a table covers."""
    return {generic for row in read_table(table) for generic in class_members()[row["drug"]]}


def coverage() -> dict[str, Any]:
    """Return the coverage of every drug of the list, with counts for each country."""
    drugs = [{key: row[key] for key in ("country", "rank", "name")} | coverage_of(row["name"]) for row in prescribed()]
    results: dict[str, Any] = {}
    for country in dict.fromkeys(drug["country"] for drug in drugs):
        own = [drug for drug in drugs if drug["country"] == country]
        known = [drug for drug in own if drug["generic"]]
        results[country] = {
            "drugs": len(own),
            "recognised": len(known),
            "with_interactions": sum(drug["pairs"] > 0 for drug in known),
            "with_a_highest_dose": sum(drug["dose"] for drug in known),
            "with_contraindications": sum(drug["patient"] for drug in known),
            "not_recognised": [drug["name"] for drug in own if not drug["generic"]],
            "by_name_alone": [d["name"] for d in known if not (d["pairs"] or d["dose"] or d["patient"])],
        }
    return results | {"coverage": drugs, "command": "python -m benchmarks.drug_coverage"}


if __name__ == "__main__":
    found = coverage()
    Path("benchmarks/results/drug_coverage.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "coverage"}, indent=2))
