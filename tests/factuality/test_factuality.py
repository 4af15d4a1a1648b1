"""What a summary invents and leaves out: `utils.factuality`."""

import csv
import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

from utils.factuality import KINDS, OMITTED, factuality_statistics, find_hallucinations, find_omissions
from utils.factuality.medical_terms import PACKAGES, load_terms
from utils.metrics.intervals import evaluate_statistics

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="packages are not installed"
)
MTS_DIALOG = Path(__file__).parents[3] / "shared" / "data" / "mts_dialog"
needs_data = pytest.mark.skipif(not MTS_DIALOG.is_dir(), reason="shared data is absent")

DIALOGUE = """Doctor: How old are you?
Patient: I'm fifty seven.
Doctor: Any fever or chills?
Patient: No.
Doctor: What brings you here?
Patient: My left knee. The knee pain began two weeks ago, and I have asthma.
Patient: I take Tylenol, five hundred M G twice a day.
Doctor: Does anyone in your family have diabetes?
Patient: Yes, my mother. She had a stroke, too."""

RIGHT = [
    "The patient is 57 years old.",
    "She denies fever and chills.",
    "Left knee pain for 14 days, and asthma.",
    "Acetaminophen 0.5 g b.i.d.",
    "Her mother had diabetes and a stroke.",
    "No fever. No chills.",
    "Pain in her left knee.",
    "She is on Tylenol.",
]
WRONG = [
    ("The patient is a 67-year-old.", "number", "67-year-old"),
    ("Knee pain for two months.", "number", "two months"),
    ("Tylenol 500 mcg.", "number", "500 mcg"),
    ("Tylenol q.d.", "number", "q.d."),
    ("She takes warfarin.", "drug", "warfarin"),
    ("She has pneumonia.", "finding", "pneumonia"),
    ("History of gout and asthma.", "finding", "gout"),
    ("Complains of fever.", "negation", "fever"),
    ("No asthma.", "negation", "asthma"),
    ("Denies Tylenol.", "negation", "Tylenol"),
    ("The patient has diabetes.", "person", "diabetes"),
    ("Her father has asthma.", "person", "asthma"),
    ("Right knee pain.", "laterality", "Right knee"),
    ("Pain in both knees.", "laterality", "both knees"),
]


def found(findings: list[dict]) -> list[tuple[str, str]]:
    return [(finding["kind"], finding["text"]) for finding in findings]


@pytest.mark.parametrize("summary", RIGHT)
def test_what_the_dialogue_says_in_other_words_is_no_invention(summary):
    assert find_hallucinations(DIALOGUE, summary) == []


@pytest.mark.parametrize(("summary", "kind", "text"), WRONG)
def test_each_kind_of_invention_is_found_where_it_stands(summary, kind, text):
    findings = find_hallucinations(DIALOGUE, summary)
    assert found(findings) == [(kind, text)]
    start, end = findings[0]["span"]
    assert summary[start:end] == text and findings[0]["detail"]


def test_every_kind_is_tested_and_no_other_is_found():
    assert {kind for _, kind, _ in WRONG} == set(KINDS)


def test_a_side_that_the_source_does_not_give_is_found_and_one_of_both_is_not():
    (finding,) = find_hallucinations("My shoulder hurts.", "Left shoulder pain.")
    assert finding["kind"] == "laterality" and "no side" in finding["detail"]
    assert find_hallucinations("Both knees hurt.", "Left knee pain.") == []
    assert find_hallucinations("The left knee hurts. The right knee, too.", "Bilateral knee pain.") == []
    assert find_hallucinations("These knees hurt.", "Bilateral knee pain.") == []
    assert find_hallucinations("Doctor: Which shoulder? Patient: The left.", "Left shoulder.") == []


def test_an_omission_has_its_place_in_the_reference():
    reference = "Asthma, on albuterol 90 mcg. No fever."
    findings = find_omissions(reference, "He has fever.")
    assert found(findings) == [
        ("finding", "Asthma"), ("drug", "albuterol"), ("number", "90 mcg"), ("negation", "fever"),
    ]  # fmt: skip
    assert [reference[slice(*finding["span"])] for finding in findings] == [f["text"] for f in findings]
    assert find_omissions(reference, "Fever denied. Has asthma and takes albuterol, ninety micrograms.")[:1] != [
        ("finding", "Asthma")
    ]


def test_a_more_general_word_is_no_invention_but_an_omission():
    assert find_hallucinations("He has a migraine.", "Headache.") == []
    assert found(find_omissions("He has a migraine.", "Headache.")) == [("finding", "migraine")]
    assert found(find_hallucinations("He has a headache.", "Migraine.")) == [("finding", "Migraine")]


def test_where_the_source_says_both_nothing_is_flipped():
    source = "Doctor: Any cough? Patient: No. Well, at night I have a cough."
    assert find_hallucinations(source, "He has a cough.") == find_hallucinations(source, "No cough.") == []


def test_findings_come_in_the_order_of_the_text():
    starts = [f["span"][0] for f in find_hallucinations("", "Gout, 12 mg of warfarin for the 3 years of pneumonia.")]
    assert starts == sorted(starts) and len(starts) == 5


@pytest.mark.parametrize("text", ["", " \n", "?", "\U0001f600 \u0130\u00df", "Doctor:", "no", "5", "\ufeff5 mg\x00"])
def test_empty_and_odd_texts(text):
    assert find_hallucinations(text, text) == find_omissions(text, text) == []
    assert find_hallucinations(text, "") == [] and find_omissions("", text) == []
    statistics = factuality_statistics([""], [text], [text])
    assert all(np.isfinite(values).all() for values in statistics.values())


@pytest.mark.parametrize(
    "text", ["no pain and mother has left knee 5 mg ", "Doctor: pain? ", "one ", "A B ", "(- ", "pain? um", "mm"]
)
def test_a_long_text_takes_seconds_not_minutes(text):
    start = time.process_time()
    find_hallucinations(text * 500, text * 500)
    assert time.process_time() - start < 10  # 0.3 s measured


def test_statistics_count_what_is_found():
    summaries = ["She has gout and takes warfarin 5 mg. No asthma. Right knee.", "Left knee pain and asthma.", ""]
    references = ["Left knee pain. Asthma. Tylenol 500 mg."] * 3
    statistics = factuality_statistics(summaries, references, [DIALOGUE] * 3)
    values = {name: column[:, 0].tolist() for name, column in statistics.items()}
    assert all((column[:, 1] == 1).all() and column.shape == (3, 2) for column in statistics.values())
    assert (
        values["hallucinated_findings"] == values["hallucinated_drugs"] == values["hallucinated_numbers"] == [1, 0, 0]
    )
    assert values["negation_flips"] == values["wrong_laterality"] == [1, 0, 0]
    assert values["wrong_person"] == [0, 0, 0]
    assert values["any_hallucination"] == [1, 0, 0]
    assert values["omitted_numbers"] == values["omitted_drugs"] == [1, 1, 1]
    assert values["hallucination"][0] > 0.3 and values["hallucination"][1:] == [0, 0]
    assert values["omission"][1] < values["omission"][0] and values["omission"][2] == 1


def test_omission_is_the_share_of_content_that_is_missing():
    # the words left, knee, pain and the term "knee pain", of which pain and the term are missing
    statistics = factuality_statistics(["Left knee."], ["Left knee pain."], [""])
    assert statistics["omission"][0, 0] == pytest.approx(2 / 4)
    # gout and its word, over these two and 5 supported ones
    statistics = factuality_statistics(["Gout."], [""], ["Nothing."])
    assert statistics["hallucination"][0, 0] == pytest.approx(2 / 7)


def test_statistics_go_through_the_intervals():
    statistics = factuality_statistics(RIGHT * 3, RIGHT * 3, [DIALOGUE] * 24)
    results = evaluate_statistics(statistics, np.arange(24), "test")
    assert results["test_any_hallucination"] == 0 and results["test_omission"] == 0
    assert set(OMITTED) < set(statistics)


@pytest.mark.real_data
@needs_data
def test_a_text_invents_and_omits_nothing_of_itself():
    with (MTS_DIALOG / "validation.csv").open(encoding="utf-8-sig", newline="") as stream:
        texts = [row[column] for row in csv.DictReader(stream) for column in ("section_text", "dialogue")]
    assert len(texts) == 200
    for text in texts:
        assert find_hallucinations(text, text) == find_omissions(text, text) == []
    statistics = factuality_statistics(texts, texts, texts)
    assert all(values[:, 0].sum() == 0 for values in statistics.values())


@pytest.mark.real_data
@needs_data
def test_a_hundred_dialogues_take_under_two_seconds_of_processor_time_and_spans_are_exact():
    with (MTS_DIALOG / "validation.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    notes, dialogues = [row["section_text"] for row in rows], [row["dialogue"] for row in rows]
    load_terms()
    start = time.process_time()
    factuality_statistics(notes, notes, dialogues)
    assert time.process_time() - start < 2  # 0.3 s measured
    pairs = list(zip(notes, dialogues, strict=True))
    findings = [(note, finding) for note, dialogue in pairs for finding in find_hallucinations(dialogue, note)]
    assert len(findings) > 30
    assert all(note[slice(*finding["span"])] == finding["text"] for note, finding in findings)
    assert all(finding["kind"] in KINDS for _, finding in findings)
