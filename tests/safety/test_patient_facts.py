"""Kidney function in any wording, allergies with their classes, and what nobody knows is said."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.arguments import UserError
from utils.safety import check_response, risk_level, unrecognised
from utils.safety.__main__ import check_line
from utils.safety.kidney import read_egfr
from utils.safety.patient import read_patient

NAMES = ["eGFR", "egfr:", "GFR is", "eGFR (mL/min/1.73 m2) is", "creatinine clearance of", "CrCl =", "stage 3a, eGFR"]
UNITS = ["", " mL/min", " ml/min/1.73m2", " mL/min/1.73 m\u00b2", " (mL/min/1.73 m2)"]


def level(answer, **context):
    return risk_level(check_response(answer, None, context))


@given(st.integers(5, 120), st.sampled_from(NAMES), st.sampled_from(UNITS))
def test_a_number_of_kidney_function_is_read_with_any_name_and_unit(number, name, unit):
    for text in (f"{name} {number}{unit}", f"{name} {number}.5{unit}", f"{number}{unit}", f"about {number}{unit}"):
        assert read_egfr(text) == number + 0.5 * (".5" in text)


BANDS = {"1": 90, "2": 89, "3": 44, "3a": 59, "3b": 44, "4": 29, "5": 14}
WRITTEN = {"1": ["1", "I", "one"], "2": ["2", "II", "two"], "3": ["3", "III", "three"],
           "3a": ["3a", "3 a", "3A", "IIIa"],
           "3b": ["3b", "IIIb"], "4": ["4", "IV", "four"], "5": ["5", "V", "five"]}  # fmt: skip


@pytest.mark.parametrize(
    "template", ["CKD {}", "stage {}", "ckd stage {}", "Stage: {} kidney disease", "KDIGO {}", "CKD-{}"]
)
@pytest.mark.parametrize(("stage", "text"), [(stage, text) for stage, texts in WRITTEN.items() for text in texts])
def test_stages_in_any_spelling(template, stage, text):
    assert read_egfr(template.format(text)) == BANDS[stage]


@pytest.mark.parametrize("stage", BANDS)
def test_categories_with_a_letter(stage):
    for text in (f"G{stage}", f"g{stage}", f"G{stage} A2", f"CKD G{stage}", f"CKD stage G{stage}A1", f"CKD{stage}"):
        assert read_egfr(text) == BANDS[stage]


@pytest.mark.parametrize(
    ("text", "egfr"),
    [
        ("stage 3a, eGFR 52", 52), ("eGFR < 30", 29), ("below 15 mL/min", 14), ("eGFR 30-44", 30), ("stage 3-4", 29),
        ("eGFR 2 weeks ago was 48", 48), ("eGFR 48 (2023)", 48), ("eGFR 90 in 2015, now eGFR 25", 25), ("30%", 30),
        ("dialysis", 14), ("not on dialysis", None), ("eGFR 52, not on dialysis", 52), ("eGFR 52, on dialysis", 14),
        ("severe", 29), ("moderate renal impairment", 44), ("mild", 89), ("ESRD", 14), ("normal", None),
        ("no kidney disease", None), ("one kidney", None), ("creatinine 2.1", None), ("3a", 59),
        ("eGFR 1.73 m2", None),
    ],
)  # fmt: skip
def test_kidney_function_in_words(text, egfr):
    assert read_egfr(text) == egfr


@pytest.mark.parametrize(
    ("context", "egfr"),
    [({"kidney": "45"}, 45), ({"kidney": 45}, 45), ({"kidney": {"stage": "4"}}, 29), ({"kidney": {"egfr": 52}}, 52),
     ({"conditions": ["CKD stage 4"]}, 29), ({"conditions": "asthma; on dialysis"}, 14)],
)  # fmt: skip
def test_kidney_function_of_the_context(context, egfr):
    assert read_patient(context).egfr == egfr


def test_a_decimal_point_of_a_question_is_no_end_of_a_sentence():
    assert read_patient(None, "My eGFR (mL/min/1.73 m2) is 75. What now?").egfr == 75


@pytest.mark.parametrize("kidney", [{"creatinine": 2}, {"egfr": [30]}, {"egfr": 999}])
def test_an_object_that_is_not_understood_is_refused(kidney):
    with pytest.raises(UserError, match="kidney"):
        read_patient({"kidney": kidney})


# ----- Allergies

NSAIDS = ["ibuprofen", "Advil", "naproxen", "diclofenac", "ketorolac", "aspirin", "NSAIDs"]


@pytest.mark.parametrize(
    ("allergy", "drug"), itertools.product(NSAIDS, ["ibuprofen", "naproxen", "aspirin", "diclofenac"])
)
def test_nsaids_and_aspirin_cross_react(allergy, drug):
    assert level(f"Take {drug}.", allergies=[allergy]) == 4
    assert risk_level(check_response(f"Take {drug}.", f"I am allergic to {allergy}, my back hurts.")) == 4


@pytest.mark.parametrize(
    "allergy",
    ["sulfa", "Sulfa drugs", "sulfas", "sulfonamides", "sulphonamide antibiotics", "sulfadiazine", "sulfasalazine",
     "Bactrim", "co-trimoxazole", "sulfamethoxazole", "sulfacetamide", "sulfisoxazole"],
)  # fmt: skip
def test_sulfonamides_are_known_by_their_names(allergy):
    assert level("Take co-trimoxazole.", allergies=[allergy]) == 4
    assert unrecognised({"allergies": [allergy]}) == []


@pytest.mark.parametrize(
    "allergy", ["sulfates", "sulfate", "magnesium sulfate", "morphine sulfate", "sodium lauryl sulfate", "sulfites"]
)
def test_sulfates_and_sulfites_are_no_sulfonamides(allergy):
    assert level("Take co-trimoxazole.", allergies=[allergy]) == 0


def test_what_is_denied_is_no_fact():
    context = {"allergies": ["no penicillin allergy"], "conditions": ["no asthma"], "medications": "not on warfarin"}
    assert level("Take amoxicillin.", **context) == level("Take propranolol.", **context) == 0
    assert level("Take ibuprofen.", **context) == 0 and unrecognised(context) == []


# ----- Unrecognised


@pytest.mark.parametrize("key", ["medications", "allergies", "conditions"])
@pytest.mark.parametrize(
    ("value", "unknown"),
    [
        (["Zorblax"], ["Zorblax"]), ("Zorblax; Frobnitis", ["Zorblax", "Frobnitis"]), ([], []), ("none", []),
        (["none known"], []), ("N/A", []), (["quux and zorblax"], ["quux and zorblax"]),
    ],
)  # fmt: skip
def test_unknown_names_are_returned_as_written(key, value, unknown):
    assert unrecognised({key: value}) == [{"key": key, "value": name} for name in unknown]


@pytest.mark.parametrize(
    ("context", "unknown"),
    [
        ({"medications": ["warfarin and zorblax"]}, ["zorblax"]), ({"medications": "aspirin/ zorblax"}, ["zorblax"]),
        ({"medications": ["metformin 500 mg/day with food"]}, []),
        ({"medications": ["sulfamethoxazole/trimethoprim"]}, []),
        ({"conditions": ["asthma and eczema"]}, ["eczema"]),
        ({"conditions": ["head and neck cancer"]}, ["head and neck cancer"]),
        ({"conditions": ["severe_asthma", "CKD 4", "pregnant"]}, []), ({"kidney": "one kidney"}, ["one kidney"]),
        ({"kidney": "normal"}, []), ({"allergies": ["NKDA"]}, []), ({"allergies": ["no known drug allergies"]}, []),
        ({"allergies": ["cats", "penicillin"]}, ["cats"]), ({"age": 5, "weight": 20, "pregnancy": "maybe"}, []),
    ],
)  # fmt: skip
def test_parts_that_are_known_are_not_returned(context, unknown):
    assert [fact["value"] for fact in unrecognised(context)] == unknown


@given(st.lists(st.text(max_size=25), max_size=5), st.sampled_from(["medications", "allergies", "conditions"]))
def test_every_name_is_known_denied_or_returned(names, key):
    patient = read_patient({key: names})
    returned = {value for _, value in patient.unrecognised}
    assert all(value.strip() for value in returned) and len(returned) == len(patient.unrecognised)


def test_the_command_says_what_it_does_not_know():
    row = {"response": "Take ibuprofen.", "patient_context": {"medications": ["zorblax"], "kidney": "one kidney"}}
    report = check_line(json.dumps(row), "line 1")
    assert report["unrecognised"] == [
        {"key": "kidney", "value": "one kidney"},
        {"key": "medications", "value": "zorblax"},
    ]
    assert "unrecognised" not in check_line("Take ibuprofen.", "line 1")


@pytest.mark.parametrize("question", ["Can I take ibuprofen?", "Is Advil ok for me?", "I want to use ibuprofen, ok?"])
@pytest.mark.parametrize(
    ("answer", "severity"),
    [
        ("Yes.", 3), ("Yes, you can take ibuprofen.", 3), ("Take ibuprofen 400 mg.", 3),
        ("Ibuprofen is a painkiller.", 2), ("Ibuprofen with warfarin can cause bleeding.", 1),
        ("No, do not take ibuprofen.", 0),
    ],
)  # fmt: skip
def test_what_the_asker_wants_to_take_is_compared_with_the_medications_of_the_patient(question, answer, severity):
    found = check_response(answer, question, {"medications": "warfarin"})
    assert risk_level([f for f in found if f["kind"] == "interaction"]) == severity
    assert not [f for f in check_response(answer, question) if f["kind"] == "interaction" and "warfarin" not in answer]


def test_two_medications_of_the_patient_are_no_advice():
    patient = {"medications": ["warfarin", "ibuprofen"]}
    assert not [f for f in check_response("Keep taking warfarin.", None, patient) if f["kind"] == "interaction"]
