"""Words are found in every script, and those of English as before: by white space, and by letters and digits."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils import words
from utils.metrics.summaries import first_words
from utils.words import count_words, split_words, word_pieces

ENGLISH = st.text("abc XYZ019_ .,;:'\u2019!?()-%/<>µ²½éß\n\t\u00a0\u2028")
ANY = st.text() | st.text("ab9 .。、_心肌梗死のアーｱﾞไข้สูงកមនြန်བོད་ꆈꌠ한\u200c\u200d\u0301\u0e48\ud800\U00020bb7\n")


@given(ENGLISH)
def test_english_is_split_as_the_standard_library_splits_it(text: str):
    assert split_words(text) == re.findall(r"\w+", text)
    assert split_words(text, punctuation=True) == re.findall(r"\w+|[^\w\s]", text)
    assert count_words(text) == len(text.split()) == len(word_pieces(text))


def test_the_short_way_finds_the_words_of_the_long_one_for_each_of_its_characters():
    simple = [character for character in map(chr, range(0x2300)) if not words.NOT_SIMPLE.search(character)]
    assert len(simple) > 1000
    for character in simple:
        for text in (character, f"a{character}b", f"1{character}_{character}", f"é {character}"):
            assert words.SIMPLE_WORD.findall(text) == words.WORD.findall(text), ascii(text)
            assert words.SIMPLE_WORD_OR_MARK.findall(text) == words.WORD_OR_MARK.findall(text), ascii(text)
            assert not words.UNSPACED.search(text)


@given(ANY)
def test_pieces_make_up_the_text_and_hold_a_word_each(text: str):
    pieces = word_pieces(text)
    assert "".join(pieces) == text or not text.strip()
    assert count_words(text) == len(pieces)
    assert all(piece.strip() for piece in pieces)
    assert count_words(first_words(text, 3)) <= 3


@given(ANY)
def test_no_letter_gets_lost(text: str):
    letters = "".join(split_words(text))
    assert [c for c in letters if c.isalnum()] == [c for c in text if c.isalnum()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("高血压患者每天服用aspirin 100mg。", ["高血压", "患者", "每天", "服用", "aspirin", "100mg"]),
        ("咳が続く患者にイブプロフェンを投与", ["咳", "が", "続く", "患者", "に", "イブプロフェン", "を", "投与"]),
        ("ปวดศีรษะมาก", ["ปวด", "ศีรษะ", "มาก"]),
        ("អ្នកជំងឺមានគ្រុនក្តៅ", ["អ្នកជំងឺ", "មាន", "គ្រុនក្តៅ"]),
        ("ຄົນເຈັບມີໄຂ້", ["ຄົນເຈັບ", "ມີ", "ໄຂ້"]),
        ("मरीज को बुखार है।", ["मरीज", "को", "बुखार", "है"]),
        ("بیمار تب می\u200cکند", ["بیمار", "تب", "می\u200cکند"]),
        ("환자는 열이 있다", ["환자는", "열이", "있다"]),
        ("ནད་པ", ["ནད", "པ"]),
        ("ꆈꌠꉙ", ["ꆈ", "ꌠ", "ꉙ"]),  # ICU has no dictionary of Yi
    ],
)
def test_words_of_a_script(text: str, words: list[str]):
    assert split_words(text) == words
    assert count_words(text) == len(words)


def test_a_number_or_a_name_within_chinese_is_one_piece():
    assert word_pieces("体温38.5℃，查COVID-19 两次") == ["体温", "38.5℃，", "查", "COVID-19 ", "两次"]
    assert first_words("体温38.5℃，查COVID-19 两次", 3) == "体温38.5℃，查"


@pytest.mark.parametrize("part", [" ", "。 ", " 大", "大", "。", "アー", "a\u0301", "\u200d", "1ไ"])
def test_hostile_texts_take_linear_time(part: str):
    text = part * 20_000
    assert "".join(word_pieces(text)) == text or not text.strip()
    assert len(split_words(text)) <= 2 * len(text)
