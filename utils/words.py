"""The words of a text in any script.

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
KATAKANA = r"\p{Katakana}[\p{Katakana}\p{M}\u30fc\uff70\uff9e\uff9f]*"
# `\w` of `re` breaks words at marks, such as the vowel signs of Hindi and Thai, and at the joiners in Persian words
WORD = regex.compile(rf"{KATAKANA}|(?:(?!\p{{Katakana}})[\p{{L}}\p{{N}}_][\p{{M}}\u200c\u200d]*)+")
WORD_OR_MARK = regex.compile(rf"{WORD.pattern}|[^\p{{L}}\p{{N}}\p{{M}}_\s]")
PIECE = re.compile(r"\s*\S+(?:\s+\Z)?")
RUN = regex.compile(
    rf"{KATAKANA}|(?:{UNSPACED.pattern}[\p{{M}}\u30fc]*)+|(?:(?!\p{{Katakana}}|{UNSPACED.pattern}).)+", regex.DOTALL
)


def split_words(text: str, punctuation: bool = False) -> list[str]:
    r"""Return the words of a text as written. Those of English are what `\w+` finds.

    Args:
        text: any text.
        punctuation: also return each punctuation mark and symbol.
    """
    found = (WORD_OR_MARK if punctuation else WORD).findall(text)
    return [word for run in found for word in _cut(run)] if UNSPACED.search(text) else found


def word_pieces(text: str) -> list[str]:
    """Cut a text into one piece per word: at white space and, in scripts without spaces, where a word begins. Joined,
    the pieces are the text."""
    if not UNSPACED.search(text):
        return PIECE.findall(text)
    pieces: list[str] = []
    for run in RUN.findall(text):
        for piece in _cut(run) if UNSPACED.search(run) else PIECE.findall(run) or [run]:
            if pieces and not (WORD.search(piece) and WORD.search(pieces[-1])):
                pieces[-1] += piece  # punctuation and space belong to the word beside them
            else:
                pieces.append(piece)
    return pieces


def count_words(text: str) -> int:
    """Return the number of words: of `text.split()` or, in scripts without spaces, of `word_pieces`."""
    return len(word_pieces(text) if UNSPACED.search(text) else text.split())


def _cut(run: str) -> list[str]:
    """Cut a run of letters at the ends of its words, if its script has no spaces."""
    if not UNSPACED.search(run):
        return [run]
    words: list[str] = []
    for word in WordBreaker(run, "en"):  # which dictionary depends on the script, not on the locale
        is_known = KNOWN_TO_ICU.search(word) or not UNSPACED.search(word)
        words += [word] if is_known else regex.findall(r"\X", word)
    return words
