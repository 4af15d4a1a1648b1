"""Words, names and numbers of a text, and what is said about them: the parts of `utils.factuality`."""

import importlib.util
import time

import pytest

from utils.arguments import UserError
from utils.factuality import medical_terms
from utils.factuality.assertions import assertion_at, find_scopes, split_sentences
from utils.factuality.medical_terms import find_terms, is_kind_of, load_terms
from utils.factuality.quantities import find_quantities, is_supported
from utils.factuality.words import read_lay_terms, split_words, stem

needs_lists = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in medical_terms.PACKAGES), reason="packages are not installed"
)


def concepts(text: str) -> dict[str, str]:
    return {text[term.start : term.end].lower(): term.concept for term in find_terms(text)}


def only_concept(text: str) -> str:
    (concept,) = concepts(text).values()
    return concept


def said(text: str, name: str) -> tuple[str, str]:
    return assertion_at(find_scopes(text), text.index(name))


# ----- Words


def test_words_stand_where_they_say_and_spelt_letters_are_one_word():
    text = "He took 500 M G of Tylenol\u2019s best, E K G; na\u00efve caf\u00e9 I am."
    words = split_words(text)
    assert [text[word.start : word.end] for word in words] == [word.text for word in words]
    assert [word.lower for word in words] == ("he took 500 mg of tylenol's best ekg na\u00efve caf\u00e9 i am".split())


def test_stems_join_forms_and_meanings_but_not_an_inflammation_with_its_organ():
    assert stem("vomited") == stem("vomiting") == stem("vomits")
    assert stem("diabetic") == stem("diabetes")
    assert stem("mom") == stem("mother") != stem("father")
    assert stem("prostatitis") != stem("prostate")


def test_no_lay_word_has_two_meanings():
    words = [
        stem_of for kind, names in read_lay_terms() if kind == "word" for stem_of in {stem(name) for name in names}
    ]
    assert len(words) == len(set(words)) > 40
    kinds = {kind for kind, _ in read_lay_terms()}
    assert kinds == {"finding", "word", "drug"}


# ----- Names


@needs_lists
def test_names_of_a_finding_have_one_meaning():
    names = ["Fever", "fevers", "pyrexia"]
    assert {only_concept(f"She has {name}.") for name in names} == {"HP:0001945"}
    assert (
        only_concept("high blood pressure") == only_concept("hypertension") == only_concept("on HTN") == "HP:0000822"
    )
    assert only_concept("pains in my chest") == only_concept("chest pain")


@needs_lists
def test_names_of_a_drug_have_one_meaning():
    assert only_concept("Tylenol") == only_concept("acetaminophen") == only_concept("paracetamol")
    assert only_concept("COUMADIN") == only_concept("warfarin")
    assert only_concept("Vicodin") == only_concept("hydrocodone")
    assert only_concept("Tylenol") != only_concept("warfarin")


@needs_lists
def test_the_longest_name_wins_and_none_is_inside_another():
    assert list(concepts("Low back pain, then nausea.")) == ["low back pain", "nausea"]
    assert list(concepts("atrial fibrillation")) == ["atrial fibrillation"]


@needs_lists
def test_a_name_does_not_reach_over_a_mark_or_an_and():
    assert "chest pain" not in concepts("My chest, pain elsewhere.")
    assert list(concepts("nausea and vomiting")) == ["nausea", "vomiting"]


@needs_lists
@pytest.mark.parametrize(
    "text",
    [
        "The other one is more important than before, even in the evening.",
        "Get rid of the act, aim for a date and order some more patches.",
        "He lives alone and wants to eat corn with his mouth.",
        "It was a cut and dry case in a capital.",
        "",
        "...",
    ],
)
def test_everyday_words_are_no_names(text):
    assert find_terms(text) == []


@needs_lists
def test_an_abbreviation_counts_only_in_capitals():
    assert concepts("History of MI.") and not concepts("do re mi")
    assert only_concept("He has C O P D.") == only_concept("COPD")


@needs_lists
def test_kinds_follow_the_ontology():
    assert is_kind_of(only_concept("migraine"), only_concept("headache"))
    assert is_kind_of(only_concept("chest pain"), only_concept("pain"))
    assert not is_kind_of(only_concept("pain"), only_concept("chest pain"))
    assert not is_kind_of(only_concept("fever"), only_concept("pain"))


@needs_lists
def test_lists_load_in_two_seconds_of_processor_time_and_once():
    load_terms.cache_clear()
    start = time.process_time()
    findings, drugs, _ = load_terms()
    assert time.process_time() - start < 4  # 1.0 s measured; twice that is the aim, four the limit on a slow machine
    assert len(findings) > 40_000 and len(drugs) > 10_000
    assert load_terms()[0] is findings


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(medical_terms, "PACKAGES", {"no_such_lists": "no-such-lists==1.0"})
    with pytest.raises(UserError, match="`no_such_lists`.*`pip install --no-deps no-such-lists==1.0`"):
        medical_terms._package_folder("no_such_lists")


# ----- Numbers


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("I'm twenty six.", 26), ("twenty-six", 26), ("one twenty two per minute", 122), ("one oh one", 101),
        ("two thousand eight", 2008), ("nineteen eighty four", 1984), ("two thousand five hundred", 2500),
        ("twenty-five hundred", 2500), ("one hundred and one point four", 101.4), ("ninety nine point six", 99.6),
        ("five and a half", 5.5), ("1-1/2 packs", 1.5), ("1,000", 1000), (".5", 0.5), ("0.50", 0.5), ("80s", 80),
        ("the eighties", 80), ("5th", 5), ("twelfth grade", 12), ("three hundred thousand", 300_000), ("twice", 2),
        ("\u0663 days", 3),
    ],
)  # fmt: skip
def test_numbers_are_read_as_words_and_digits(text, reading):
    (quantity,) = find_quantities(text)
    assert reading in quantity.readings


@pytest.mark.parametrize("text", ["B12 and HbA1c", "Oh, and a point", "1. Pain. 2. Fever. 3.", "no number", ""])
def test_names_list_marks_and_plain_words_are_no_numbers(text):
    assert find_quantities(text) == []


@pytest.mark.parametrize("text", ["no one", "the first of two", "once, zero"])
def test_small_words_claim_nothing(text):
    assert not any(quantity.is_claim for quantity in find_quantities(text))


@pytest.mark.parametrize(
    ("claim", "known"),
    [
        ("500 mg", "half a gram: 0.5 g"), ("0.5 g", "500 mg"), ("40 mg", "forty M G"),
        ("26-year-old", "twenty six"), ("14 days", "two weeks"), ("12 months", "a year"), ("68 kg", "150 pounds"),
        ("b.i.d.", "twice a day"), ("every 6 hours", "four times a day"), ("q8h", "t.i.d."), ("q.d.", "each morning"),
        ("q.d.", "one pill"), ("01/10/09", "January tenth two thousand nine"), ("1992", "in ninety two"),
        ("one week", "in a week"), ("120/80", "one twenty over eighty"),
        ("7 pounds 3 ounces", "seven pounds three ounces"), ("100 \u00b5g", "100 mcg"), ("0.1 mg", "100 \u03bcg"),
        ("three times a day", "three times daily"), ("twice daily", "b.i.d."), ("weekly", "once a week"),
        ("15 mg weekly", "15 mg once a week"), ("15 mg/week", "15 mg a week"), ("q.o.d.", "every other day"),
        ("every 8 to 12 hours", "every 12 hours"), ("5 mg/kg/day", "5 mg per kg a day"),
        ("7 mmol/L", "7 mmol per litre"),
        ("2 tablets twice daily", "two pills, twice a day"), ("72 bpm", "72 beats per minute"),
        ("38 \u00b0C", "100.4 \u00b0F"), ("38 degrees", "38 degrees Celsius"), ("5 times weekly", "five days a week"),
        ("90 mL/min/1.73 m2", "90 ml per minute per 1.73 m2"), ("3 weeks", "every three weeks, for three weeks"),
    ],
)  # fmt: skip
def test_one_number_said_in_two_ways_is_supported(claim, known):
    for quantity in find_quantities(claim):
        assert is_supported(quantity, find_quantities(known)), quantity


@pytest.mark.parametrize(
    ("claim", "known"),
    [
        ("500 mg", "500 mL"), ("500 mg", "50 mg"), ("500 mg", "500 g"), ("2 weeks", "2 days"), ("q.d.", "b.i.d."),
        ("b.i.d.", "every day"), ("67-year-old", "fifty seven"), ("7.3 pounds", "seven pounds three ounces"),
        ("06/18/06", "nineteenth June"), ("2008", "eight"), ("5", ""), ("every 6 hours", "every 8 hours"),
        ("100 \u00b5g", "100 mg"), ("100 \u03bcg", "100 mg"), ("100 mcg", "100"), ("40 mg", "forty"),
        ("once a week", "once a day"), ("once a day", "once a week"), ("weekly", "daily"),
        ("15 mg a day", "15 mg a week"),
        ("15 mg/day", "15 mg/week"), ("twice daily", "daily"), ("daily", "twice daily"), ("monthly", "weekly"),
        ("every other day", "every day"), ("5 mg/kg", "5 mg"), ("5 mg", "5 mg/kg"), ("5 mg/kg", "5 mg/kg/hour"),
        ("7 mmol/L", "7 mg"), ("7 mmol/L", "7 mg/dL"), ("2 tablets", "2 mg"), ("2 puffs", "2 tablets"),
        ("2 tablets", "2"),
        ("5 teaspoons", "5 tablespoons"), ("10 units", "10 mL"), ("38 \u00b0C", "38 \u00b0F"), ("90 mL/min", "90 mL"),
    ],
)  # fmt: skip
def test_another_number_is_not_supported(claim, known):
    assert not all(is_supported(quantity, find_quantities(known)) for quantity in find_quantities(claim))


# ----- Affirmed or denied, and of whom


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("She denies fever, chills, or cough.", "cough"),
        ("No evidence of pneumonia.", "pneumonia"),
        ("Pneumonia was ruled out.", "Pneumonia"),
        ("He doesn\u2019t have pain.", "pain"),
        ("Negative for melena.", "melena"),
        ("FEVER: none.", "FEVER"),
        ("As for gout there is none.", "gout"),
        ("She quit smoking.", "smoking"),
        ("Doctor: Do you have any cough or fever.\nPatient: No.", "fever"),
        ("He is a non-cigarette smoker.", "smoker"),
        ("Doctor: Any chest pain?\nPatient: No.", "chest pain"),
        ("Doctor: Any chest pain? Patient: Um, nope. Doctor: Okay.", "chest pain"),
        ("Doctor: Any cough? Any fever?\nPatient: Not really.", "cough"),
        ("Doctor: How about headaches?\nPatient: I haven't.", "headaches"),
    ],
)
def test_denied(text, name):
    assert said(text, name)[0] == "absent"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("She denies fever but has nausea.", "nausea"),
        ("No fever, and he has a cough.", "cough"),
        ("No, I have a cough.", "cough"),
        ("There was no change in the nodule.", "nodule"),
        ("The pain is not improving, pain persists.", "pain"),
        ("No fever. Pain.", "Pain"),
        ("Doctor: Any chest pain?\nPatient: Yes.", "chest pain"),
        ("Doctor: Do you have asthma?\nPatient: Oh, yeah, since childhood.", "asthma"),
        ("Doctor: How long have you had this cough?\nPatient: No idea.", "cough"),
        ("Doctor: Any cough?\nPatient: No.\nPatient: My back hurts, pain.", "pain"),
    ],
)
def test_affirmed(text, name):
    assert said(text, name)[0] == "present"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Doctor: Any chest pain?\nPatient: My leg is swollen.", "chest pain"),
        ("Any chest pain?", "chest pain"),
        ("X-ray to rule out pneumonia.", "pneumonia"),
        ("Call if you have fever.", "fever"),
    ],
)
def test_only_asked(text, name):
    assert said(text, name)[0] == "unknown"


@pytest.mark.parametrize(
    ("text", "name", "person"),
    [
        ("Her mother had diabetes.", "diabetes", "family"),
        ("Family history of stroke.", "stroke", "family"),
        ("Diabetes in her father.", "Diabetes", "family"),
        ("My mom has gout, but I have asthma.", "gout", "family"),
        ("My mom has gout, but I have asthma.", "asthma", "patient"),
        ("The mother of the patient had gout.", "gout", "family"),
        ("Remarkable for gout.", "gout", "unknown"),
        ("Patient has gout.", "gout", "patient"),
        ("The parents deny any vomiting in him.", "vomiting", "patient"),
        ("Lives with his wife and has gout.", "gout", "patient"),
        ("Brought in by his mother with fever.", "fever", "patient"),
        ("My mother says I have asthma.", "asthma", "patient"),
        ("Mother has gout. Has a cough.", "cough", "unknown"),
        ("Doctor: How did your mother die?\nPatient: She had lung cancer.", "lung cancer", "family"),
        ("Doctor: Anything in the family?\nPatient: No.\nDoctor: Any stroke?", "stroke", "unknown"),
        ("Doctor: Anything in the family?\nPatient: No.\nDoctor: Have you had a stroke?", "stroke", "patient"),
    ],
)
def test_whose_it_is(text, name, person):
    assert said(text, name)[1] == person


def test_sentences_cover_the_text_without_labels_and_keep_titles_whole():
    text = "Doctor: I am Dr. Luna. How are you?\nPatient: 98.6 degrees! Good.\nGI: Denies nausea"
    sentences = split_sentences(text)
    assert [text[s.start : s.end].strip() for s in sentences] == [
        "I am Dr. Luna.", "How are you?", "98.6 degrees!", "Good.", "Denies nausea",
    ]  # fmt: skip
    assert [s.speaker for s in sentences] == ["doctor", "doctor", "patient", "patient", "gi"]
    assert [s.turn for s in sentences] == [1, 1, 2, 2, 3]


def test_letters_that_grow_when_small_move_no_place():
    text = "\u0130\u0130\u0130 No fever. Cough."
    assert said(text, "fever")[0] == "absent" and said(text, "Cough")[0] == "present"
