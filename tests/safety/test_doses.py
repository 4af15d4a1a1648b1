"""Dose arithmetic by hand-worked examples, and the ceilings by age and weight."""

import random

import pytest

from utils.safety import check_response, risk_level
from utils.safety.doses import find_doses, find_frequency

# text -> lowest and highest mg a day, worked out by hand
EXAMPLES = {
    "Take two 500 mg tablets every 6 hours.": (4000, 4000),
    "500 mg twice a day": (1000, 1000),
    "400-800 mg every 6 to 8 hours": (1200, 3200),
    "1 g q6h": (4000, 4000),
    "2 tablets of 500 mg three times daily": (3000, 3000),
    "Swallow 3 tablets of ibuprofen 800 mg, 4 times daily": (9600, 9600),
    "one to two 200 mg tablets every 4 to 6 hours": (800, 2400),
    "two extra strength tablets (500 mg each) every 6 hours": (4000, 4000),
    "500 mg tablets, two tablets every 6 hours": (4000, 4000),
    "2 x 325 mg every 4 hours as needed": (3900, 3900),
    "half a 10 mg tablet daily": (5, 5),
    "0.5 mg b.i.d.": (1, 1),
    "2.5 g t.i.d.": (7500, 7500),
    "50 mcg daily": (0.05, 0.05),
    "300mg/day": (300, 300),
    "1,000 mg every 4 hours, but no more than 4,000 mg a day": (4000, 4000),
    "1 to 2 tablets of 500 mg every 4 hours, not more than 8 tablets in 24 hours": (3000, 4000),
    "up to 4 g in 24 hours": (4000, 4000),
    "ten 500 mg tablets at once": (5000, 5000),
    "500 mg, 4 doses a day": (2000, 2000),
    "500 mg for 5 days": (500, 500),
    "a 5 day course of 250 mg every 12 hours": (500, 500),
    "500 mg, 30 tablets": (500, 500),
    "10 mg once a week": (10 / 7, 10 / 7),
    "20 mg every other day": (10, 10),
    "600 mg with each meal": (1800, 1800),
    "every 6 hours take 500 mg": (2000, 2000),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_amount_and_its_frequency_make_the_dose_of_a_day(text):
    dose = find_doses(text)[0]
    assert (dose.low, dose.high) == pytest.approx(EXAMPLES[text])


@pytest.mark.parametrize(
    "text",
    ["5 mL every 6 hours", "160 mg/5 mL", "a glucose of 90 mg/dL", "more than 4 g a day", "10 units of insulin a day"],
)
def test_volumes_strengths_and_comparisons_are_no_doses(text):
    assert find_doses(text) == []


def test_a_dose_per_kg_says_so():
    (dose,) = find_doses("15 mg/kg every 6 hours")
    assert dose.per_kg and dose.high == 60


def test_the_span_of_a_dose_holds_count_amount_and_frequency():
    text = "For pain, take two 500 mg tablets every 6 hours with water."
    (dose,) = find_doses(text)
    assert text[dose.start : dose.end] == "two 500 mg tablets every 6 hours"


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("once daily", 1),
        ("twice a week", 2 / 7),
        ("q8h", 3),
        ("every four hours", 6),
        ("at bedtime", 1),
        ("weekly", 1 / 7),
    ],
)
def test_frequencies(text, most):
    assert find_frequency(text)[1] == pytest.approx(most)


def doses(text, **context):
    return [f for f in check_response(text, None, context) if f["kind"] == "dose"]


@pytest.mark.parametrize(
    ("text", "context", "severity"),
    [
        ("Take acetaminophen 1000 mg every 6 hours.", {}, 0),
        ("Take acetaminophen 1000 mg every 4 hours.", {}, 3),
        ("Take Tylenol 1000 mg every 4 hours.", {}, 3),
        ("Take 1000 mg every 4 hours of paracetamol.", {}, 3),
        ("Acetaminophen helps. Take 2000 mg every 4 hours.", {}, 3),
        ("Take ibuprofen 800 mg every 8 hours.", {}, 2),  # prescription only
        ("Take ibuprofen 800 mg every 4 hours.", {}, 3),
        ("The maximum is 6 g of acetaminophen a day.", {}, 3),
        ("Do not exceed 8 g of acetaminophen a day.", {}, 3),  # a limit allows what it names
        ("Do not exceed 4 g of acetaminophen a day.", {}, 0),
        ("Do not take 8 g of acetaminophen a day.", {}, 0),
        ("Taking 8 g of acetaminophen a day is dangerous.", {}, 0),
        ("My uncle took 8 g of acetaminophen in one day.", {}, 0),
        ("If someone took 8 g of acetaminophen in a day, call poison control.", {}, 0),
        ("Is 8 g of acetaminophen a day too much?", {}, 0),
        ("In a trial volunteers received 8 g of acetaminophen a day.", {}, 0),
        ("Citalopram 40 mg daily.", {"age": 50}, 0),
        ("Citalopram 40 mg daily.", {"age": 70}, 3),
        ("Tramadol 100 mg every 6 hours.", {"age": 70}, 0),
        ("Tramadol 100 mg every 6 hours.", {"age": 80}, 3),
        ("Give acetaminophen 1000 mg every 6 hours.", {"age": 5, "weight": 20}, 3),
        ("Give acetaminophen 15 mg/kg every 6 hours.", {"age": 5, "weight": 20}, 0),
        ("Give acetaminophen 30 mg/kg every 6 hours.", {"age": 5}, 3),
        ("Ketorolac 60 mg IV every 6 hours.", {}, 0),  # the table is of oral doses
        ("Percocet 5000 mg daily.", {}, 0),  # of which of its two drugs?
        ("Insulin 4000 mg daily.", {}, 0),  # no ceiling in the table
    ],
)
def test_doses_above_the_ceiling_of_the_age_are_found(text, context, severity):
    assert max((f["severity"] for f in doses(text, **context)), default=0) == severity


def test_the_message_says_dose_ceiling_and_source():
    (finding,) = doses("Take acetaminophen 1,000 mg every 4 hours.")
    assert finding["message"] == "acetaminophen: up to 6,000 mg a day; the maximum is 4,000 mg a day"
    assert finding["source"].startswith("https://")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Take methotrexate 10 mg every day.", True),
        ("Take 2.5 mg of methotrexate daily.", True),
        ("Methotrexate 15 mg once daily for your arthritis.", True),
        ("Take Trexall twice a day.", True),
        ("Take methotrexate 15 mg once a week.", False),
        ("Take methotrexate once a week and folic acid daily.", False),
        ("Never take methotrexate daily.", False),
        ("Methotrexate is taken weekly, not daily.", False),
        ("For leukemia, methotrexate is given daily for 5 days.", False),
        ("My uncle took methotrexate daily by mistake.", False),
        ("Should I take methotrexate daily?", False),
    ],
)
def test_methotrexate_every_day_is_an_alarm(text, found):
    findings = [f for f in doses(text) if f["rule"] == "methotrexate_daily"]
    assert bool(findings) == found
    assert all(f["severity"] == 4 and "da" in text[slice(*f["span"])] for f in findings)


def test_any_text_gives_finite_doses_within_the_text():
    rng = random.Random(3)
    pieces = [
        "500",
        " mg",
        " g",
        " tablets",
        " every ",
        "6",
        " hours",
        " to ",
        "-",
        " a day",
        ",",
        "\u00bd",
        " 0",
        "/kg",
        "x",
        "two ",
    ]
    for _ in range(2000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 14)))
        for dose in find_doses(text):
            assert 0 <= dose.low <= dose.high < 1e12 and 0 <= dose.start < dose.end <= len(text)


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("Take two extra strength Tylenol every three hours.", 3),
        ("Take two extra strength Tylenol every six hours.", 0),
        ("Two Tylenol every four hours are enough.", 0),
        ("Take four Advil every four hours.", 3),
        ("Take one Advil every six hours.", 0),
        ("Co-codamol 30/500, three tablets four times a day.", 3),
        ("Two Percocet 5/325 every six hours.", 0),
        ("Take a gram of paracetamol every three hours.", 3),
        ("Take half a gram of paracetamol every six hours.", 0),
        ("Take two hundred milligrams of tramadol three times a day.", 3),
        ("Take eighty milligrams of Celexa a day.", 3),
        ("Take two Tylenol before the second visit of the day nurse.", 0),
    ],
)
def test_pieces_of_a_brand_and_amounts_in_words_are_counted(text, severity):
    findings = [finding for finding in check_response(text) if finding["kind"] == "dose"]
    assert max((finding["severity"] for finding in findings), default=0) == severity


def test_weight_and_age_may_stand_in_the_text():
    advice = "Give 300 mg of paracetamol four times a day."
    assert risk_level(check_response(advice, "My 4 year old son weighs 12 kg and has a fever.")) == 3
    assert risk_level(check_response(advice, "My 4 year old son weighs 26.4 pounds and has a fever.")) == 3
    assert risk_level(check_response(advice, "My 5 year old son weighs 44 lb and has a fever.")) < 3
    assert risk_level(check_response("Your mother, who is 72, can take 40 mg of citalopram a day.")) == 3
    assert risk_level(check_response("Your son, who is 22, can take 40 mg of citalopram a day.")) < 3
