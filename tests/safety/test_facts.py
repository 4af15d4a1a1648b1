"""What the tables say about drugs: thresholds, pairs of each class, and words that are no pair."""

import pytest

from utils.safety import check_response, risk_level
from utils.safety.drugs import interaction


def level(answer, question=None, **context):
    return risk_level(check_response(answer, question, context or None))


def severity(first, second):
    found = interaction(first, second)
    return int(found[0]["severity"]) if found else 0


@pytest.mark.parametrize(
    ("answer", "age", "expected"),
    [
        ("Take citalopram 40 mg once a day.", 60, 0),
        ("Take citalopram 40 mg once a day.", 61, 3),
        ("Take tramadol 100 mg four times a day.", 75, 0),
        ("Take tramadol 100 mg four times a day.", 76, 3),
        ("Take diazepam at night.", 64, 0),
        ("Take diazepam at night.", 65, 2),
        ("Take diphenhydramine at night.", 65, 2),
        ("Take zolpidem at night.", 65, 2),
        ("Take doxycycline for ten days.", 7, 2),
        ("Take minocycline for ten days.", 7, 3),
        ("Take tetracycline for ten days.", 8, 0),
    ],
)
def test_ages_are_those_of_the_source(answer, age, expected):
    assert level(answer, age=age) == expected


@pytest.mark.parametrize(("egfr", "expected"), [(14, 4), (15, 3), (29, 3), (30, 0)])
def test_dabigatran_is_stopped_or_lowered_in_kidney_disease(egfr, expected):
    assert level("Take dabigatran.", kidney=egfr) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Take tadalafil 40 mg once a day for pulmonary hypertension.", 2),
        ("Take tadalafil 60 mg once a day.", 3),
        ("In alcohol withdrawal take chlordiazepoxide 50 mg four times a day.", 2),
        ("Take chlordiazepoxide 100 mg four times a day.", 3),
    ],
)
def test_the_ceiling_is_that_of_the_highest_use(answer, expected):
    assert level(answer) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("rifabutin", "darunavir", 2),
        ("rifampin", "darunavir", 4),
        ("bosentan", "ritonavir", 3),
        ("sumatriptan", "phenelzine", 4),
        ("eletriptan", "phenelzine", 2),
        ("naratriptan", "tranylcypromine", 2),
        ("lamotrigine", "valproate", 3),
    ],
)
def test_pairs_that_are_dosed_are_not_forbidden(first, second, expected):
    assert severity(first, second) == severity(second, first) == expected


@pytest.mark.parametrize(
    "text", ["In alcohol withdrawal take diazepam.", "Wipe with rubbing alcohol and take diazepam.", "Take diazepam."]
)
def test_words_that_contain_a_drug_are_none(text):
    assert level(text) == 0
    assert level("Take diazepam with alcohol.") == 3
