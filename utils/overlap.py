"""The tokens that ROUGE and BLEU compare, for texts in any script.

rouge-score reads a to z and digits alone, so equal Chinese or Arabic texts would score 0. References in another script
are compared by the words of `utils.words`, and BLEU takes sacrebleu's tokenizer for the script.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import regex
from fontTools.unicodedata import script, script_name
from transformers import AutoConfig

from utils.arguments import UserError
from utils.hub import why_not_loaded
from utils.words import SENTENCES, UNSPACED, split_words

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

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
        from rouge_score.tokenizers import DefaultTokenizer  # here: it imports nltk, which only scoring needs

        self.default = DefaultTokenizer(use_stemmer) if name == "rouge-score" else None

    def tokenize(self, text: str) -> list[str]:
        words = self.default.tokenize(text) if self.default else unicode_words(text)
        return words or [symbol for symbol in text if not symbol.isspace()]


def unicode_words(text: str) -> list[str]:
    """Return the words of a text without differences that are not of wording: case, width (NFKC), invisible joiners,
    and the dot of i, since the capitals of Turkish give `i` and dotless `i` back in the wrong way."""
    words = (unicodedata.normalize("NFKC", word).casefold() for word in split_words(text.replace("_", " ")))
    return [INVISIBLE.sub("", word).replace("i\u0307", "i").replace("\u0131", "i") for word in words]


def rouge_scorer(rouge_types: Sequence[str], tokenizers: Tokenizers, use_stemmer: bool) -> "RougeScorer":
    """Return rouge-score's scorer. Porter stemming is for English, so `unicode` goes without it."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(rouge_types), tokenizer=RougeTokenizer(tokenizers.rouge, use_stemmer))


def split_lines(text: str, tokenizers: Tokenizers) -> str:
    """Return a text with one sentence per line for ROUGE-Lsum: the lines of the text for rouge-score's tokenizer, as
    in its package, and the sentences of any script for `unicode`. Lines without words are left out."""
    lines, letter = text.split("\n"), A_TO_Z_OR_DIGIT
    if tokenizers.rouge == "unicode":
        lines, letter = SENTENCES.findall(text), LETTER_OR_DIGIT
    return "\n".join(line.replace("\n", " ") for line in lines if letter.search(line)) or " ".join(lines)


# Layer with the best correlation with human judgments on WMT16, from the table in the package bert-score 0.3.13
BERTSCORE_LAYERS = {
    "microsoft/deberta-xlarge-mnli": 40, "microsoft/deberta-large-mnli": 18, "microsoft/deberta-base-mnli": 9,
    "roberta-large": 17, "FacebookAI/roberta-large": 17, "bert-base-uncased": 9, "google-bert/bert-base-uncased": 9,
    "distilbert-base-uncased": 5, "distilbert/distilbert-base-uncased": 5, "allenai/scibert_scivocab_uncased": 8,
}  # fmt: skip


def check_bertscore_model(model_name_or_path: str | None, num_layers: int | None) -> tuple[int, str | None]:
    """Return the layer for BERTScore, and a name that identifies comparable scores.

    Args:
        model_name_or_path: an encoder, as a folder or Hub id; without one the name is None.
        num_layers: number of layers to use; defaults to the recommended one (`BERTSCORE_LAYERS`).

    Returns:
        the layer, and a name such as "microsoft/deberta-xlarge-mnli layer 40".

    Raises:
        UserError: the model cannot be loaded, is not an encoder, or does not have this layer.
    """
    if model_name_or_path is None:
        return 0, None
    try:
        config = AutoConfig.from_pretrained(model_name_or_path)
    except (OSError, ValueError) as error:
        reason = why_not_loaded(error)
        raise UserError(
            f"`bertscore_model` {model_name_or_path} cannot be loaded ({reason}): choose an encoder."
        ) from error
    if config.is_encoder_decoder:
        raise UserError(f"`bertscore_model` {model_name_or_path} ({config.model_type}) is not an encoder: use BERT.")
    layers = num_layers or BERTSCORE_LAYERS.get(model_name_or_path)
    if layers is None or not 1 <= layers <= config.num_hidden_layers:
        raise UserError(
            f"`bertscore_layer` is {num_layers}: for {model_name_or_path} give 1 to {config.num_hidden_layers}; a "
            f"default is known for {', '.join(BERTSCORE_LAYERS)}."
        )
    folder = Path(model_name_or_path)
    return layers, f"{folder.resolve().name if folder.exists() else model_name_or_path} layer {layers}"
