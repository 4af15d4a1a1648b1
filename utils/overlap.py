"""The tokens that ROUGE and BLEU compare, for texts in any script.

rouge-score reads a to z and digits alone, so equal Chinese or Arabic texts would score 0. References in another script
are compared by the words of `utils.words`, and BLEU takes sacrebleu's tokenizer for the script.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import regex
from fontTools.unicodedata import script, script_name
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from utils.words import SENTENCES, UNSPACED, split_words

# A to z are 98 % of the letters in German and 97 % in French: rouge-score would cut every tenth word in two
MIN_A_TO_Z = 0.99
MIN_UNSPACED = 0.1  # share of letters in scripts without spaces from which BLEU compares characters
LETTER = regex.compile(r"\p{L}")
A_TO_Z = regex.compile(r"[A-Za-z]")
A_TO_Z_OR_DIGIT = regex.compile(r"[A-Za-z0-9]")
LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")
UNSPACED_NOT_HAN = regex.compile(rf"(?!\p{{Han}})(?:{UNSPACED.pattern}|\p{{Katakana}})")
INVISIBLE = regex.compile(r"\p{Cf}")


class Tokenizers(NamedTuple):
    """What ROUGE and BLEU compare.

    rouge: `rouge-score`, its own tokenizer (a to z and digits), or `unicode`, the words of `utils.words` in one case.
    bleu: the name of sacrebleu's tokenizer.
    reason: the letters of the references, which decide.
    """

    rouge: str
    bleu: str
    reason: str


def choose_tokenizers(references: Iterable[str]) -> Tokenizers:
    """Choose tokenizers by the letters of the references, so that all systems are compared in one way.

    English keeps rouge-score's tokenizer and 13a, the defaults of the libraries: where a to z are 99 % of the letters,
    and no reference has letters but none that rouge-score reads. Elsewhere BLEU compares characters (`char`) in
    Japanese, Thai and other scripts without spaces, characters of Chinese (`zh`), or words without their punctuation
    in Unicode (`intl`).
    """
    letters: Counter[str] = Counter()
    unread = 0
    for text in references:
        found = LETTER.findall(text)
        letters.update(found)
        unread += bool(found) and not A_TO_Z_OR_DIGIT.search(text)
    total = max(letters.total(), 1)
    others = sum(count for letter, count in letters.items() if not A_TO_Z.match(letter)) / total
    if others <= 1 - MIN_A_TO_Z and not unread:
        return Tokenizers("rouge-score", "13a", f"{1 - others:.1%} of the letters in the references are a to z")

    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[script_name(script(letter))] += count
    unspaced = sum(count for letter, count in letters.items() if UNSPACED_NOT_HAN.match(letter))
    bleu = "char" if unspaced >= MIN_UNSPACED * total else "zh" if scripts["Han"] >= MIN_UNSPACED * total else "intl"
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in scripts.most_common(3))
    return Tokenizers("unicode", bleu, f"{others:.1%} of the letters in the references are not a to z ({shares})")


class RougeTokenizer:
    """Splits texts for `RougeScorer`. A text without words is split into its symbols."""

    def __init__(self, name: str, use_stemmer: bool) -> None:
        self.default = DefaultTokenizer(use_stemmer) if name == "rouge-score" else None

    def tokenize(self, text: str) -> list[str]:
        words = self.default.tokenize(text) if self.default else unicode_words(text)
        return words or [symbol for symbol in text if not symbol.isspace()]


def unicode_words(text: str) -> list[str]:
    """Return the words of a text without differences that are not of wording: case, width (NFKC), invisible joiners,
    and the dot of i, since the capitals of Turkish give `i` and dotless `i` back in the wrong way."""
    words = (unicodedata.normalize("NFKC", word).casefold() for word in split_words(text.replace("_", " ")))
    return [INVISIBLE.sub("", word).replace("i\u0307", "i").replace("\u0131", "i") for word in words]


def rouge_scorer(rouge_types: Sequence[str], tokenizers: Tokenizers, use_stemmer: bool) -> RougeScorer:
    """Return rouge-score's scorer. Porter stemming is for English, so `unicode` goes without it."""
    return RougeScorer(list(rouge_types), tokenizer=RougeTokenizer(tokenizers.rouge, use_stemmer))


def split_lines(text: str, tokenizers: Tokenizers) -> str:
    """Return a text with one sentence per line for ROUGE-Lsum: the lines of the text for rouge-score's tokenizer, as
    in its package, and the sentences of any script for `unicode`. Lines without words are left out."""
    lines, letter = text.split("\n"), A_TO_Z_OR_DIGIT
    if tokenizers.rouge == "unicode":
        lines, letter = SENTENCES.findall(text), LETTER_OR_DIGIT
    return "\n".join(line.replace("\n", " ") for line in lines if letter.search(line)) or " ".join(lines)
