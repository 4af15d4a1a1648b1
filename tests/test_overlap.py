"""ROUGE and BLEU in any script: equal texts score 1, different ones less, and English stays what it was."""

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from utils.metrics.statistics import ROUGE_TYPES, reduce_sums, text_statistics
from utils.overlap import RougeTokenizer, choose_tokenizers, unicode_words

# language -> a text and another one that shares some words with it, and the tokenizer of BLEU
TEXTS = {
    "Chinese": ("患者发热三天，伴有咳嗽。没有胸痛。", "患者咳嗽三天，没有发热，应当就医。", "zh"),
    "Chinese with English names": ("每天服用aspirin 100mg，监测INR。", "每天服用warfarin 5mg，监测INR。", "zh"),
    "Japanese": ("三日前から発熱と咳が続いている。", "発熱はなく、咳が三日続いている。", "char"),
    "Thai": ("ผู้ป่วยมีไข้สูงและไอมาสามวัน", "ผู้ป่วยไม่มีไข้แต่ไอมาสามวัน", "char"),
    "Khmer": ("អ្នកជំងឺមានគ្រុនក្តៅនិងក្អក", "អ្នកជំងឺមានឈឺក្បាលនិងក្អក", "char"),
    "Korean": ("환자는 사흘 동안 열이 있고 기침을 한다.", "환자는 열이 없고 기침을 한다.", "intl"),
    "Arabic": ("يعاني المريض من الحمى والسعال منذ ثلاثة أيام.", "لا يعاني المريض من الحمى منذ أيام؟", "intl"),
    "Persian": ("بیمار سه روز است که تب دارد و سرفه می\u200cکند.", "بیمار تب ندارد و سرفه نمی\u200cکند.", "intl"),
    "Hindi": ("मरीज को तीन दिन से बुखार और खांसी है।", "मरीज को बुखार नहीं है, खांसी है।", "intl"),
    "Russian": ("У пациента три дня лихорадка и кашель.", "У пациента нет лихорадки, есть кашель.", "intl"),
    "Greek": ("Ο ασθενής έχει πυρετό και βήχα.", "Ο ασθενής δεν έχει πυρετό, έχει βήχα.", "intl"),
    "German": ("Der Patient hat Übelkeit und häufig Kopfschmerzen.", "Der Patient hat häufig Übelkeit.", "intl"),
    "Turkish": ("Hastanın üç gündür ateşi ve öksürüğü var.", "Hastanın ateşi yok, öksürüğü var.", "intl"),
    "English": ("The patient has had a fever for three days.", "The patient has no fever.", "13a"),
}
OVERLAP = (*ROUGE_TYPES, "bleu")


def scores(predictions: list[str], references: list[str]) -> dict[str, float]:
    statistics = text_statistics(predictions, references)
    return {name: float(reduce_sums(name, statistics[name].sum(axis=0))) for name in OVERLAP}


@pytest.mark.parametrize("language", TEXTS)
def test_equal_texts_score_one_and_others_between(language: str):
    text, other, bleu = TEXTS[language]
    tokenizers = choose_tokenizers([text])
    assert tokenizers[:2] == ("rouge-score" if language == "English" else "unicode", bleu)
    assert scores([text], [text]) == dict.fromkeys(OVERLAP, pytest.approx(1.0))
    mixed = scores([other], [text])
    assert 0 < mixed["rouge1"] < 1 and 0 < mixed["rougeL"] < 1 and 0 < mixed["bleu"] < 1
    swapped = text_statistics([text], [other], tokenizers=tokenizers)["rouge1"]
    assert swapped[0, 0] == pytest.approx(mixed["rouge1"])  # F1 does not depend on the direction
    assert set(scores([""], [text]).values()) == {0.0}
    first, *_, last = unicode_words(text)
    reversed_ = " ".join(reversed(unicode_words(text)))
    moved = text_statistics([reversed_], [text], tokenizers=tokenizers)
    assert moved["rouge1"][0, 0] == pytest.approx(1, abs=0.15) and moved["rougeL"][0, 0] < 0.7 and first != last


@given(st.lists(st.text("abc XYZ 09 .,-_'()\n", min_size=1), min_size=1, max_size=4), st.booleans())
def test_texts_of_a_to_z_score_as_rouge_score_and_sacrebleu_do(texts: list[str], use_stemmer: bool):
    predictions = [text + " a" for text in reversed(texts)]
    references = [text + " b" for text in texts]
    statistics = text_statistics(predictions, references, use_stemmer)
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer)
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        expected = scorer.score(reference, prediction)
        assert {n: statistics[n][row, 0] for n in ROUGE_TYPES} == {n: s.fmeasure for n, s in expected.items()}
    bleu = reduce_sums("bleu", statistics["bleu"].sum(axis=0))
    assert bleu == pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score / 100)


@given(st.text("abcXYZ09 .,-_'()\n"))
def test_unicode_words_of_a_to_z_are_those_of_rouge_score(text: str):
    assert unicode_words(text) == RougeTokenizer("rouge-score", False).default.tokenize(text)


@given(st.text(), st.text())
def test_scores_are_between_zero_and_one_and_of_equal_texts_one(prediction: str, reference: str):
    statistics = text_statistics([prediction, reference], [reference, reference])
    for name in ROUGE_TYPES:
        assert ((statistics[name][:, 0] >= 0) & (statistics[name][:, 0] <= 1)).all()
    if reference.strip():
        assert statistics["rouge1"][1, 0] == statistics["rougeL"][1, 0] == 1


def test_one_reference_that_rouge_score_cannot_read_is_not_scored_zero():
    english = [f"The patient has {name}." for name in ("a fever", "gout", "scurvy", "a cough", "pain")] * 40
    assert choose_tokenizers(english)[:2] == ("rouge-score", "13a")
    assert choose_tokenizers([*english, "Sjögren's"])[0] == "rouge-score"  # read in part, as before
    assert choose_tokenizers([*english, "发热"])[0] == "unicode"
    assert choose_tokenizers([*english, "38.5", "++"])[0] == "rouge-score"
    assert scores(["++", "🙂"], ["++", "🙂"])["rouge1"] == 1 and scores(["--"], ["++"])["rouge1"] == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("İLAÇ ALLERJİSİ ILIK", "ilaç allerjisi ılık"),
        ("ΠΌΝΟΣ", "πόνος"),
        ("STRASSE", "Straße"),
        ("ＣＲＰ １０", "CRP 10"),
        ("ｱｽﾋﾟﾘﾝ", "アスピリン"),
        ("می\u200cرود", "می\u200cرود\u200e"),
        ("cafe\u0301", "café"),
    ],
)
def test_case_width_and_composition_are_no_difference(one: str, other: str):
    assert unicode_words(one) == unicode_words(other)


def test_rouge_lsum_ends_sentences_in_every_script():
    text, moved = "没有发热。患者咳嗽。", "患者咳嗽。没有发热。"
    statistics = text_statistics([moved], [text])
    assert statistics["rougeLsum"][0, 0] == 1 > statistics["rougeL"][0, 0]
    for text in ("मरीज को बुखार है। खांसी नहीं है।", "هل تشعر بألم؟ لا أشعر بألم۔", "咳はない！熱がある。"):
        assert len(text_statistics([text], [text])["rougeLsum"]) == 1
