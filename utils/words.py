"""The words and sentences of a text in any script.

Words are runs of letters, marks and digits. Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer,
Burmese) are cut by the dictionaries of ICU, the Unicode library; where it has none, each character is a word.
"""

import re

import regex
from icu4py.breakers import WordBreaker

KNOWN_TO_ICU = regex.compile(r"[\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]")
# Line_Break=SA: the other scripts of South East Asia in which only a dictionary would find the ends of words
UNSPACED = regex.compile(
    rf"[{KNOWN_TO_ICU.pattern[1:-1]}\p{{Bopomofo}}\p{{Yi}}\p{{Javanese}}\p{{Balinese}}\p{{Line_Break=SA}}]"
)
# One word, as in rule WB13 of UAX 29: ICU's dictionary would cut the name of a drug into syllables
# Characters of which `re` finds the same words as WORD below, many times faster: Latin, Greek, Cyrillic without marks,
# and the usual dashes, quotation marks, currencies, arrows and operators
SIMPLE = r"\x00-\x1b\x20-\u02e9\u02ec-\u02ff\u0370-\u0482\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2190-\u22ff"
NOT_SIMPLE = re.compile(f"[^{SIMPLE}]")
SIMPLE_WORD, SIMPLE_WORD_OR_MARK = re.compile(r"\w+"), re.compile(r"\w+|[^\w\s]")
KATAKANA = r"\p{Katakana}[\p{Katakana}\p{M}\u30fc\uff70\uff9e\uff9f]*"
# `\w` of `re` breaks words at marks, such as the vowel signs of Hindi and Thai, and at the joiners in Persian words
WORD = regex.compile(rf"{KATAKANA}|(?:(?!\p{{Katakana}})[\p{{L}}\p{{N}}_][\p{{M}}\u200c\u200d]*)+")
WORD_OR_MARK = regex.compile(rf"{WORD.pattern}|[^\p{{L}}\p{{N}}\p{{M}}_\s]")
# A line break ends a sentence, too, and so do the full stops of other scripts, which no space follows
SENTENCES = regex.compile(r"(?V1)\s*\S.*?(?:[.!?]+(?=\s|$)|[\p{STerm}--[.!?]]+\p{Pe}*|$)", regex.MULTILINE)
PIECE = re.compile(r"(?:\A\s*)?\S+\s*")
RUN = regex.compile(
    rf"{KATAKANA}|(?:{UNSPACED.pattern}[\p{{M}}\u30fc]*)+|(?:(?!\p{{Katakana}}|{UNSPACED.pattern}).)+", regex.DOTALL
)


def split_words(text: str, punctuation: bool = False) -> list[str]:
    r"""Return the words of a text as written. Those of English are what `\w+` finds.

    Args:
        text: any text.
        punctuation: also return each punctuation mark and symbol.
    """
    if not NOT_SIMPLE.search(text):
        return (SIMPLE_WORD_OR_MARK if punctuation else SIMPLE_WORD).findall(text)
    found = (WORD_OR_MARK if punctuation else WORD).findall(text)
    return [word for run in found for word in cut_run(run)] if UNSPACED.search(text) else found


def tfidf_words(text: str) -> list[str]:
    """Return the words of two or more letters, as scikit-learn finds them in English, and in scripts without spaces
    all words, where scikit-learn would see a whole sentence as one."""
    return [word for word in split_words(text) if len(word) > 1 or UNSPACED.match(word)]


def word_pieces(text: str) -> list[str]:
    """Cut a text into one piece per word: at white space and, in scripts without spaces, where a word begins. Joined,
    the pieces are the text."""
    if not UNSPACED.search(text):
        return PIECE.findall(text)
    starts, place, has_word = [0], 0, False
    for run in RUN.findall(text):
        for piece in cut_run(run) if UNSPACED.search(run) else PIECE.findall(run) or [run]:
            is_word = bool(WORD.search(piece))  # else punctuation or space, which belong to the piece before
            if is_word and has_word:
                starts.append(place)
            has_word, place = has_word or is_word, place + len(piece)
    return [text[start:end] for start, end in zip(starts, [*starts[1:], place], strict=True)]


def count_words(text: str) -> int:
    """Return the number of words: of `text.split()` or, in scripts without spaces, of `word_pieces`."""
    has_spaces = not NOT_SIMPLE.search(text) or not UNSPACED.search(text)
    return len(text.split() if has_spaces else word_pieces(text))


def cut_run(run: str) -> list[str]:
    """Cut a run of letters at the ends of its words, if its script has no spaces."""
    if not UNSPACED.search(run):
        return [run]
    words: list[str] = []
    for word in WordBreaker(run, "en"):  # which dictionary depends on the script, not on the locale
        is_known = KNOWN_TO_ICU.search(word) or not UNSPACED.search(word)
        words += [word] if is_known else regex.findall(r"\X", word)
    return words
