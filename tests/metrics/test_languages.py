"""The languages of texts are identified where they are clear, and English is claimed of nothing else."""

import pytest

from utils.metrics.languages import identify_languages, is_english, reads_english

TEXTS = {
    "en": ["The patient has had a fever for three days.", "No chest pain or shortness of breath was reported."],
    "de": ["Die Patientin klagt seit drei Tagen über Fieber.", "Kein Hinweis auf eine Lungenentzündung."],
    "zh": ["患者发热三天，伴有咳嗽。", "没有胸痛和呼吸困难。"],
    "ja": ["三日前から発熱と咳が続いている。", "胸の痛みはありません。"],
    "fa": ["بیمار سه روز است که تب دارد.", "درد قفسه سینه وجود ندارد."],
    "hi": ["मरीज को तीन दिन से बुखार है।", "सीने में दर्द नहीं है।"],
    "th": ["ผู้ป่วยมีไข้สูงมาสามวัน", "ไม่มีอาการเจ็บหน้าอก"],
    "ru": ["У пациента три дня высокая температура и сильный кашель.", "Боли в груди и одышки нет, давление в норме."],
    "tr": ["Hastanın üç gündür ateşi var.", "Göğüs ağrısı yok."],
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_language_is_identified(language: str):
    assert identify_languages(TEXTS[language]) == [language]
    assert reads_english(TEXTS[language][0], None) == (language == "en")
    assert reads_english(TEXTS[language][0], "en")


def test_several_languages_are_listed_and_a_few_quotations_are_not():
    assert set(identify_languages(TEXTS["de"] * 10 + TEXTS["en"] * 10)) == {"de", "en"}
    assert identify_languages(TEXTS["de"] * 40 + TEXTS["en"]) == ["de"]
    assert not is_english(["de", "en"], "rouge-score")


@pytest.mark.parametrize("texts", [[], [""], ["12 mg", "++"], ["pain"], ["Aorta", "Vena cava"], ["\ud800"]])
def test_nothing_is_claimed_of_too_little(texts: list[str]):
    assert identify_languages(texts) == []
    assert is_english([], "rouge-score") and not is_english([], "unicode")
