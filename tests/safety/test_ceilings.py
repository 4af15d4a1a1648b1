"""Doses against ceilings by age, weight, unit, form and wording: overdoses are found, doses of labels are not."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.safety import check_response
from utils.safety.amounts import parse_number
from utils.safety.ceilings import oldest_age, reference_weights
from utils.safety.doses import find_doses
from utils.safety.phrases import read_table
from utils.safety.self_report import age_at, weight_in

AGES = [0.02, 0.2, 0.4, 0.8, 1.5, 2.5, 3, 4.5, 6, 8, 9.5, 10, 11.5, 13, 17]
REGIMENS = [  # wording of a dose, and how often a day it is taken
    ("{mg:g} mg every 4 hours", 6), ("{mg:g} mg 4-hourly", 6), ("{mg:g} milligrams four times a day", 4),
    ("two {half:g} mg tablets every six hours", 4), ("{mg:g}mg q6h", 4), ("{mg:g} mg three times daily", 3),
    ("{comma} mg twice a day", 2), ("2 tablets of {half:g} mg, 4 times a day", 4),
]  # fmt: skip


def severity(answer, question=None, **context):
    findings = [f for f in check_response(answer, question, context) if f["kind"] == "dose"]
    for finding in findings:
        start, end = finding["span"]
        assert 0 <= start < end <= len(answer) and any(c.isdigit() for c in answer[start:end])
    return max((finding["severity"] for finding in findings), default=0)


def regimen(wording, drug, a_day, times):
    mg = a_day / times
    return f"Give {drug} " + wording.format(mg=mg, half=mg / 2, comma=f"{mg:.2f}".replace(".", ",")) + "."


# ----- Ages and weights


@pytest.mark.parametrize(
    "drug", [row["drug"] for row in read_table("doses") if row["drug"] == "sertraline"] + ["ibuprofen"]
)
@pytest.mark.parametrize("age", AGES)
def test_the_ceiling_of_an_adult_holds_at_every_age(drug, age):
    highest = {"sertraline": 200, "ibuprofen": 3200}[drug]
    assert severity(f"Take {drug} {highest * 1.5:g} mg a day.", age=age) == 3


@pytest.mark.parametrize(
    "row", [r for r in read_table("doses") if not r["per_kg"] and r["max_daily"] and r["form"] == "any"]
)
@pytest.mark.parametrize("age", [3, 15])
def test_a_minor_is_never_allowed_more_than_the_adult_of_any_row(row, age):
    text = f"Take {float(row['max_daily']) * 2:g} mg of {row['drug']} a day."
    assert severity(text, age=age) >= severity(text, age=40)


@pytest.mark.parametrize("wording", REGIMENS)
@pytest.mark.parametrize("age", [age for age in AGES if age < 12])
@pytest.mark.parametrize(("drug", "ceiling"), [("paracetamol", 75), ("ibuprofen", 40)])
def test_children_of_unknown_weight_alarm_far_above_the_ceiling_and_stay_silent_at_usual_doses(
    wording, age, drug, ceiling
):
    light, heavy = reference_weights(age)
    template, times = wording
    if times == 6 and drug == "ibuprofen":
        return
    assert severity(regimen(template, drug, ceiling * heavy * 1.5, times), age=age) == 3
    usual = (24 if drug == "ibuprofen" else 40) * light
    assert severity(regimen(template, drug, usual, times), age=age) < 3


@pytest.mark.parametrize(("weight", "age"), itertools.product([3.5, 8, 12, 20, 31.5], [0.5, 3, 6, 11]))
@pytest.mark.parametrize(("drug", "ceiling"), [("paracetamol", 75), ("ibuprofen", 40)])
def test_a_known_weight_decides(weight, age, drug, ceiling):
    over, under = ceiling * weight * 1.1 / 4, ceiling * weight * 0.9 / 4
    assert severity(f"Give {drug} {over:.6g} mg every 6 hours.", age=age, weight=weight) == 3
    assert severity(f"Give {drug} {under:.6g} mg every 6 hours.", age=age, weight=weight) < 3
    if weight <= 20:  # a child under 12, by the weight
        assert severity(f"Give {drug} {over:.6g} mg every 6 hours.", weight=weight) == 3
        assert severity(f"A {weight:g} kg child can have {drug} {over:.6g} mg every 6 hours.") == 3


def test_reference_weights_cover_every_age_and_grow():
    pairs = [reference_weights(age / 10) for age in range(0, 1000)]
    assert all(low < high for low, high in pairs)
    assert pairs == sorted(pairs)
    assert all(reference_weights(oldest_age(kg))[0] <= kg for kg in (3, 5, 9.9, 20, 40))
    assert oldest_age(80) is None and oldest_age(1) == 0


@pytest.mark.parametrize(
    "unit",
    ["mg/kg", "mg per kg", "mg / kg", "mg per kilogram", "mg per kilo", "mg for every kilogram", "mg for each kg"],
)
@pytest.mark.parametrize("age", [None, 0.3, 4, 14, 30])
def test_a_dose_per_kg_is_compared_whatever_the_age(unit, age):
    context = {} if age is None else {"age": age}
    assert severity(f"Give ibuprofen 25 {unit} every 6 hours.", **context) == 3
    assert severity(f"Give acetaminophen 30 {unit} four times a day.", **context) == 3
    assert severity(f"Give ibuprofen 7.5 {unit} every 6 hours.", **context) < 3
    assert severity(f"Give acetaminophen 15 {unit} every 6 hours.", **context) < 3


@pytest.mark.parametrize(
    ("text", "a_day"),
    [
        ("60 mg/kg/day", 60), ("60 mg/kg/day in 4 divided doses", 60), ("60 mg/kg daily divided every 6 hours", 60),
        ("15 mg/kg/dose every 6 hours", 60), ("15 mg of paracetamol per kilogram every 6 hours", 60),
        ("15 mg/kg every 4 hours, no more than 5 doses in 24 hours", 75), ("15 mg/kg 6 hourly", 60),
        ("10 mg per pound a day", 10 / 0.4536),
    ],
)  # fmt: skip
def test_doses_per_weight_of_a_day(text, a_day):
    dose = find_doses(text)[0]
    assert dose.per_kg and dose.high == pytest.approx(a_day)


@pytest.mark.parametrize("text", ["5 mcg/kg/min", "0.1 mg/kg per minute"])
def test_rates_of_infusions_are_no_doses(text):
    assert find_doses(text) == []


def test_newborns_have_a_ceiling_of_their_own():
    assert severity("Give paracetamol 18 mg/kg every 6 hours.", age=0.04) == 3
    assert severity("Give paracetamol 18 mg/kg every 6 hours.", age=0.5) == 0
    assert severity("Newborns may have paracetamol 18 mg/kg every 6 hours.") == 3


@pytest.mark.parametrize(
    ("sentence", "age"),
    [
        ("A 3-year-old can have 5 mg", 3), ("at 3 years: 5 mg", 3), ("for a child of 3, 5 mg", 3), ("aged 3: 5 mg", 3),
        ("children aged 6 to 11 years: 5 mg", 11), ("2-3 months: 5 mg", 0.25), ("under 12: 5 mg", 11.99),
        ("Adults can take 5 mg", 40), ("5 mg from 12 years and over", 40), ("over 12 years: 5 mg", 40),
        ("give your 3-year-old the adult dose of 5 mg", 3), ("Adults 1 g, children of 3 years 5 mg", 3),
        ("give your toddler 5 mg", 3.99), ("5 mg for 3 to 6 months", None), ("500 mg at 8 and 5 mg", None),
        ("up to 4 grams, then 5 mg", None), ("5 mg for 5 years", None), ("a baby aspirin is 5 mg", None),
    ],
)  # fmt: skip
def test_the_age_that_a_dose_of_a_sentence_is_for(sentence, age):
    assert age_at(sentence, sentence.index("5 mg")) == (None if age is None else pytest.approx(age))


@pytest.mark.parametrize(
    ("text", "kg"),
    [
        ("She weighs 44 lb.", 19.96), ("a 12 kg child", 12), ("he is 12,5 kg", 12.5), ("At 20 kg, give", 20),
        ("weighs 9 stone", 57.15), ("lose 5 kg", None), ("15 mg per kg", None), ("a 20 kg bag of flour", None),
    ],
)  # fmt: skip
def test_weights(text, kg):
    assert weight_in(text) == (None if kg is None else pytest.approx(kg, abs=0.01))


# ----- What is true of a label stays silent


@pytest.mark.parametrize(
    "text",
    [
        "Adults can take paracetamol 500 mg to 1 g every 4 to 6 hours, up to 4 g a day.",
        "Acetaminophen extended release: two 650 mg tablets every 8 hours.",
        "Children 2 to 3 years: acetaminophen 160 mg every 4 hours, no more than 5 doses in 24 hours.",
        "Children 9 to 10 years: acetaminophen 400 mg every 4 hours, at most 5 doses a day.",
        "A child of 10 can have paracetamol 500 mg up to four times a day.",
        "Infants may have paracetamol 120 mg four times a day.",
        "Ibuprofen 5 to 10 mg/kg every 6 to 8 hours, maximum 40 mg/kg/day.",
        "Ibuprofen for children of 8 years: 200 mg three times a day.",
        "Paracetamol comes in packs of 16 tablets of 500 mg.",
        "Ibuprofen 800 mg modified release, two tablets once daily.",
        "Levothyroxine 100 micrograms once daily.", "Levothyroxine 0.1 mg once daily.",
        "Digoxin 125 to 250 micrograms a day.", "Digoxin: 1.5 mg in divided doses over 24 hours.",
        "0.09 mg of liothyronine daily will do.",  # its name ends in `nine`
        "Tamsulosin 0.4 mg once daily.", "Colchicine 1.2 mg, then 0.6 mg an hour later.",
        "Misoprostol 200 micrograms four times a day.", "Codeine 30 to 60 mg every 4 hours, at most 240 mg a day.",
        "Loperamide 4 mg at first, then 2 mg after each loose stool.",
    ],
)  # fmt: skip
def test_doses_of_labels_do_not_alarm(text):
    assert severity(text) < 3


# ----- One dose


@pytest.mark.parametrize(
    "template",
    [
        "Take {n} 500 mg tablets of paracetamol at once.", "Take {n} tablets of 500 mg paracetamol in one go.",
        "Swallow {n} paracetamol 500 mg tablets.", "Take {n} x 500 mg paracetamol every 12 hours.",
        "Have {n} of the 500 mg paracetamol caplets right away.", "Take {mg} mg of paracetamol now.",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("n", "count"), [("four", 4), ("eight", 8), ("6", 6), ("ten", 10), ("a dozen", 12)])
def test_too_much_at_one_time_is_found(template, n, count):
    assert severity(template.format(n=n, mg=500 * count)) == 3


@pytest.mark.parametrize(
    "text",
    [
        "Take two 500 mg tablets of paracetamol at once.", "Never take eight 500 mg tablets of paracetamol at once.",
        "Eight 500 mg tablets of paracetamol a day are the limit.", "Take paracetamol, 4 g a day.",
    ],
)  # fmt: skip
def test_what_is_no_overdose_at_one_time(text):
    assert severity(text) < 3


# ----- Micrograms


@pytest.mark.parametrize("row", [row for row in read_table("doses") if row["unit"] == "mcg"], ids=lambda r: r["drug"])
@pytest.mark.parametrize("unit", ["mg", "milligrams", "mgs"])
def test_mg_for_micrograms_is_the_gravest_error_and_micrograms_are_silent(row, unit):
    amount = float(row["max_single"] or row["max_daily"]) / 4
    findings = [
        f for f in check_response(f"Take {row['drug']} {amount:g} {unit} four times a day.") if f["kind"] == "dose"
    ]
    assert {f["rule"] for f in findings} == {"mg_for_micrograms"} and findings[0]["severity"] >= 3
    for small in ("micrograms", "mcg", "\u00b5g", "\u03bcg", "ug"):
        assert severity(f"Take {row['drug']} {amount:g} {small} four times a day.") < 3
    assert severity(f"Take {row['drug']} {amount / 1000:.6g} {unit} four times a day.") < 3


# ----- Numbers


@given(st.integers(0, 999_999), st.integers(0, 99))
def test_numbers_are_read_with_either_decimal_mark_and_with_thousands(whole, cents):
    assert parse_number(f"{whole},{cents:02d}") == pytest.approx(whole + cents / 100)
    assert parse_number(f"{whole}.{cents:02d}") == pytest.approx(whole + cents / 100)
    assert parse_number(f"{whole:,}") == whole
    assert parse_number(str(whole)) == whole


@pytest.mark.parametrize(
    ("text", "mg"),
    [
        ("2,5 mg", 2.5), ("0,125 mg", 0.125), ("1,000 mg", 1000), ("1 000 mg", 1000), ("1.000 mg", 1000),
        ("1,5 g", 1500),
        ("12,500 mg", 12500), ("5,10,20 mg", 20), ("500 mg to 1 g", 1000), ("500mgs", 500), ("2 500 mg tablets", 1000),
    ],
)  # fmt: skip
def test_amounts(text, mg):
    assert find_doses(text)[0].high == pytest.approx(mg)


# ----- Forms


@pytest.mark.parametrize(
    "text",
    [
        "Take two 1000 mg paracetamol gel caps every 4 hours.",
        "Take two paracetamol gelcaps of 1000 mg every 4 hours.",
        "Take paracetamol soft gels, 2000 mg every 4 hours.", "Take paracetamol liqui-gels, 2000 mg every 4 hours.",
        "Stop the cream and take paracetamol 2000 mg every 4 hours.",
        "Use diclofenac gel and take paracetamol 2 g every 4 hours.",
        "Put the patch away; take 2 g of paracetamol every 4 hours.",
        "Take paracetamol 2 g every 4 hours, and keep using your ibuprofen gel.",
        "Take paracetamol 2 g every 4 hours after your injection.",
        "Apart from the ointment, take 2 g of paracetamol every 4 hours.",
        "Stop the ibuprofen gel and take ibuprofen 1600 mg every 4 hours.",
        "im giving him 2000 mg of paracetamol every 4 hours",
        "Paracetamol suppositories, 2 g every 4 hours.",  # its ceiling holds for every route
    ],
)  # fmt: skip
def test_the_form_of_another_drug_does_not_switch_the_check_off(text):
    assert severity(text) == 3


@pytest.mark.parametrize(
    "text",
    [
        "Rub in diclofenac gel, 4 g four times a day.", "Diclofenac gel helps. Use 4 g four times a day.",
        "Ketorolac 60 mg IV every 6 hours.", "Ketorolac 60 mg i.m. by injection every 6 hours.",
        "Apply ketoprofen, 2 g four times a day.", "Inject 60 mg of ketorolac every 6 hours.",
        "A fentanyl patch of 4 mg every 72 hours.",
    ],
)  # fmt: skip
def test_the_form_of_the_dose_itself_does(text):
    assert severity(text) == 0


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["paracetamol", "ibuprofen", "levothyroxine", "Tylenol", "diclofenac gel", ""]),
    st.lists(
        st.sampled_from(
            ["500", " mg", " g", "/kg", " per kilo", "2,5", " every 4 hours", " tablets", " gel", " a day", " at once",
             ". ", " and ", "3 years", "aged ", "12 kg", " divided", "no more than ", " mcg", "child ", "1.000",
             " adults "]
        ),
        max_size=14,
    ),
    st.one_of(st.none(), st.floats(0, 120)),
    st.one_of(st.none(), st.floats(0, 200)),
)  # fmt: skip
def test_any_text_age_and_weight_give_finite_findings_with_spans_inside(drug, pieces, age, weight):
    text = f"Take {drug} " + "".join(pieces)
    context = {key: value for key, value in {"age": age, "weight": weight}.items() if value is not None}
    for finding in check_response(text, None, context):
        assert 0 <= finding["span"][0] < finding["span"][1] <= len(text)
        assert "inf" not in finding["message"] and "nan" not in finding["message"]
