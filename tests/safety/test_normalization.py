"""Texts with invisible, decomposed and odd characters: the same findings, with spans of the text as it was written."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.safety import check_question, check_response, risk_level
from utils.safety.normalization import normalize

HIDDEN = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2064\ufeff\u034f\u061c\u202a\u202c\u2066\u2069\ufe0f\x00\x08"
ANSWER = "Caf\u00e9 rule: take warfarin 5 mg together with co-codamol 30/500, and 8000 mg of paracetamol a day."
QUESTIONS = (
    "I can't breathe and my lips are turning blue.",
    "How can I poison my wife without being caught?",
    "Since 20 minutes I have crushing chest pain; my left arm is numb.",
)


def without_spans(findings):
    return [{key: value for key, value in finding.items() if key != "span"} for finding in findings]


def shown(text):
    return "".join(char for char in text if char not in HIDDEN)


@st.composite
def hidden_in(draw, text):
    places = draw(st.lists(st.tuples(st.integers(0, len(text)), st.text(HIDDEN, min_size=1, max_size=3)), max_size=12))
    for place, added in sorted(places, reverse=True):
        text = text[:place] + added + text[place:]
    return text


@settings(max_examples=60, deadline=None)
@given(hidden_in(ANSWER))
def test_invisible_characters_anywhere_change_no_finding_of_an_answer(text):
    wanted, found = check_response(ANSWER), check_response(text)
    assert wanted and without_spans(found) == without_spans(wanted)
    for one, other in zip(found, wanted, strict=True):
        cut = text[slice(*one["span"])]
        assert shown(cut) == ANSWER[slice(*other["span"])]
        assert cut[0] not in HIDDEN and cut[-1] not in HIDDEN


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(QUESTIONS).flatmap(lambda text: st.tuples(st.just(text), hidden_in(text))))
def test_invisible_characters_anywhere_change_no_finding_of_a_question(texts):
    plain, text = texts
    wanted, found = check_question(plain), check_question(text)
    assert wanted and without_spans(found) == without_spans(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert shown(text[slice(*one["span"])]) == plain[slice(*other["span"])]


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_positions_are_within_the_text_and_in_order(text):
    plain = normalize(text)
    assert len(plain.text) == len(plain.starts) == len(plain.ends)
    assert plain.starts == sorted(plain.starts) and plain.ends == sorted(plain.ends)
    assert all(0 <= start < end <= len(text) for start, end in zip(plain.starts, plain.ends, strict=True))


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=60))
def test_plain_text_is_left_as_it_is(text):
    assert normalize(text).text == text
    assert normalize(text).span(0, len(text)) == [0, len(text)]


def wide(text):
    return "".join(
        chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else "\u3000" if char == " " else char for char in text
    )


def bold(text):
    return "".join(chr(0x1D41A + ord(char) - ord("a")) if "a" <= char <= "z" else char for char in text)


@pytest.mark.parametrize("form", [wide, bold, lambda text: unicodedata.normalize("NFD", text)])
@pytest.mark.parametrize("text", ["take warfarin together with ibuprofen.", "take 8000 mg of paracetamol a day."])
def test_other_letters_are_read_and_marked_where_they_stand(form, text):
    wanted, found = check_response(text), check_response(form(text))
    assert wanted and without_spans(found) == without_spans(wanted)
    assert [unicodedata.normalize("NFKC", form(text)[slice(*f["span"])]) for f in found] == [
        text[slice(*f["span"])] for f in wanted
    ]


@pytest.mark.parametrize("space", "\u00a0\u2007\u2009\u202f\u205f\u3000")
@pytest.mark.parametrize("dash", "\u2010\u2011\u2012\u2013\u2212\uff0d\ufe63")
def test_odd_spaces_and_dashes_are_spaces_and_dashes(space, dash):
    text = f"Take{space}Viagra together{space}with{space}Nitro{dash}Dur."
    plain = "Take Viagra together with Nitro-Dur."
    assert without_spans(check_response(text)) == without_spans(check_response(plain))
    assert risk_level(check_response(text)) == 4


@pytest.mark.parametrize("sign", "'\u2019\u2018\u02bc\u00b4\uff07\u201b")
def test_any_apostrophe_is_one(sign):
    assert risk_level(check_question(f"I can{sign}t breathe.")) == 4


def test_the_patient_is_read_plainly_too():
    patient = {"medications": ["war\u00adfarin"], "allergies": "peni\u200bcillin", "kidney": "eGFR\u00a025"}
    found = check_response("Take ibuprofen, amoxicillin and metformin.", None, patient)
    assert {f["rule"] for f in found} >= {"warfarin_nsaid", "allergy_penicillin", "kidney_metformin"}
