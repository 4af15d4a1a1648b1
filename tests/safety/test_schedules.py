"""A day's plan of one drug is added up; limits, alternatives and doses raised over weeks are not."""

import pytest

from utils.safety import check_response
from utils.safety.schedules import find_plan

TABLETS = ["paracetamol", "panadol"]


@pytest.mark.parametrize(
    ("text", "strength", "mg"),
    [
        ("Take three (500 mg) with each meal and two at bedtime.", None, 5500),
        ("Have two 500 mg Panadol every three hours, day and night.", None, 8000),
        ("The 665 mg tablets last longer. Three of them, three times a day.", None, 5985),
        ("Two in the morning, two in the afternoon, two at night.", 600, 3600),
        ("Take four in the morning and again four at lunch and four in the evening.", 220, 2640),
        ("Take 7.5 mg with breakfast, lunch, dinner and at bedtime.", None, 30),
        ("One hundred and fifty milligrams in the morning and the same again at night.", None, 300),
        ("Take 10 mg when you go to bed. If you wake at 2 a.m., have another 10 mg.", None, 20),
        ("Breakfast: 2 tablets of 850 mg. Lunch: 1 tablet. Dinner: 2 tablets.", None, 4250),
        ("Ten to twelve tablets over the course of a day.", 500, 6000),
        ("Each caplet contains 650 mg. Take three of them. You may repeat this every six hours.", None, 7800),
        ("- Morning: 1500 mg\n- Noon: 1500 mg\n- Bedtime: 1000 mg", None, 4000),
    ],
)  # fmt: skip
def test_the_amounts_of_a_day_are_added_up(text, strength, mg):
    assert find_plan(text, strength, TABLETS).mg == pytest.approx(mg)


@pytest.mark.parametrize(
    "text",
    [
        "Never take two in the morning and two at night.",
        "Take 50 mg in the morning, increase to 100 mg each morning, then 200 mg at night.",
        "Two in the morning and two at night, but no more than six a day.",
        "Give 10 mg/kg in the morning and 10 mg/kg at night.",
        "I have three cats and two dogs.",
        "Take 500 mg four times a day.",  # of one amount with its frequency `find_doses` says more
    ],
)
def test_what_is_no_plan(text):
    assert find_plan(text, 500.0, TABLETS) is None


@pytest.mark.parametrize(
    "when",
    ["each morning before breakfast", "in the morning, with breakfast", "at night when you go to bed",
     "in the evening with your supper", "at noon, with lunch"],
)  # fmt: skip
def test_two_names_of_one_time_of_the_day_are_one_dose(when):
    assert find_plan(f"Take 10 mg {when}.", None, TABLETS).mg == 10


def test_alternatives_are_not_added_up():
    assert find_plan("Take 10 mg in the morning or 20 mg at night.", None, TABLETS).mg == 10


@pytest.mark.parametrize(
    ("question", "answer", "is_found"),
    [
        ("brufen 600", "Two tablets in the morning, two in the afternoon, two at night.", True),
        ("brufen 400", "One tablet in the morning, one in the afternoon, one at night.", False),
        ("gabapentin 300s", "Take five with breakfast, five with lunch and five with dinner.", True),
        ("Panadol?", "Two 500 mg tablets in the morning, two at noon, two in the evening, two at bedtime.", False),
        ("Does it help?", "Two in the morning and two at night.", False),
        (
            "Loperamide?",
            "Two 2 mg capsules at first, then one after each loose stool, 6 capsules (12 mg) a day.",
            False,
        ),
        ("methotrexate for arthritis, how often?", "It's 15 mg, every single day.", True),
        ("methotrexate for arthritis, how often?", "It's 15 mg, once a week.", False),
    ],
)
def test_plans_of_an_answer_with_the_drug_of_the_question(question, answer, is_found):
    assert any(f["kind"] == "dose" and f["severity"] >= 3 for f in check_response(answer, question)) == is_found
