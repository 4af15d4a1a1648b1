"""A text that the English tables cannot read says so, and no English text does."""

import json

import pytest
from conftest import ROOT

from utils.safety.__main__ import check_line
from utils.safety.drugs import names_of
from utils.safety.language import unread_language
from utils.safety.phrases import read_table


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Ich habe seit einer Stunde starke Schmerzen in der Brust."),
        ("de", "Nehmen Sie 8000 mg Paracetamol am Tag zusammen mit Alkohol."),
        ("fr", "J'ai très mal à la poitrine depuis une heure."),
        ("es", "Tengo mucho dolor en el pecho y no puedo respirar."),
        ("vi", "Tôi bị đau ngực dữ dội"),
        ("zh", "我胸口疼得很厉害，应该怎么办？"),
        ("ar", "عندي ألم شديد في صدري"),
        ("ru", "У меня сильная боль в груди"),
    ],
)  # fmt: skip
def test_other_languages_are_named(language, text):
    assert unread_language(text) == language
    assert check_line(text, "line 1")["unread_language"] == language


@pytest.mark.parametrize("text", ["布洛芬", "ايبوبروفين"])
def test_a_word_in_letters_that_no_table_has_is_unread(text):
    assert unread_language(text)


@pytest.mark.parametrize(
    "text",
    ["", "500 mg", "Novalgin", "Dolo-Neurobion Marcumar", "Ibuprofen 400 mg t.i.d.", "vit d 38 nmol. supplement?",
     "β-blocker", "Is Crohn's disease hereditary?", "Take it with café au lait.", "ok thx"],
)  # fmt: skip
def test_short_and_english_texts_are_read(text):
    assert unread_language(text) is None
    assert "unread_language" not in check_line(text or ".", "line 1")


def test_no_name_of_a_drug_is_a_language():
    assert names_of("ibuprofen")
    for row in read_table("drugs"):
        assert unread_language(row["name"]) is None and unread_language(f"{row['name'].upper()} 20 mg b.i.d.") is None


def test_no_english_phrasing_is_taken_for_another_language():
    parts = json.loads((ROOT / "benchmarks" / "safety_phrasings.json").read_text(encoding="utf-8")).values()
    texts = [text for part in parts for texts in part.values() for text in texts if "{" not in text]
    assert len(texts) > 200 and not [text for text in texts if unread_language(text)]
