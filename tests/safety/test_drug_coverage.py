"""The list of the most prescribed drugs, the table of their coverage, and the page agree."""

import json
from collections import Counter

import pytest
from conftest import ROOT

from benchmarks.drug_coverage import coverage, coverage_of, prescribed

TABLE = json.loads((ROOT / "benchmarks" / "results" / "drug_coverage.json").read_text(encoding="utf-8"))


def test_the_table_is_made_from_the_list_and_the_tables_as_they_are():
    assert coverage() == TABLE
    assert [row["name"] for row in prescribed()] == [row["name"] for row in TABLE["coverage"]]


def test_the_list_has_two_hundred_drugs_of_each_country_and_says_what_was_not_read():
    rows = prescribed()
    assert Counter(row["country"] for row in rows) == {"USA": 200, "England": 200}
    assert max(Counter((row["country"], row["name"]) for row in rows).values()) == 1
    for row in rows:
        assert (row["certainty"] == "read") == bool(row["rank"]) == bool(row["year"])
        assert row["source"].startswith("https://")


def test_every_drug_is_covered_or_named():
    page = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    for row in TABLE["coverage"]:
        checked = row["pairs"] or row["dose"] or row["patient"]
        assert checked or row["name"] in page, row["name"]
        if row["generic"]:
            assert row["classes"] and row["names"] >= 2, row["name"]
        else:
            assert row["name"] in TABLE[row["country"]]["not_recognised"]


@pytest.mark.parametrize(
    ("name", "recognised"),
    [("atorvastatin", True), ("fluticasone; salmeterol", True), ("atorvastatin; nothing", False), ("calcium", False)],
)
def test_a_combination_is_recognised_with_all_of_its_parts(name, recognised):
    assert bool(coverage_of(name)["generic"]) == recognised
