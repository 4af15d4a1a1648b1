"""The languages of texts: for the model card, and for metrics that know English alone."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from utils.overlap import Tokenizers, choose_tokenizers

SAMPLE, MAX_CHARACTERS = 500, 1000  # texts to identify, from the first to the last; characters of each
MIN_CONFIDENCE = 0.5
MIN_SHARE = 0.2  # of the texts: less may be an error or a quotation
MIN_IDENTIFIED = 0.1  # of the texts: terms and abbreviations are of no language
# Medical terms are Latin in every language; "zxx" is the identifier's class for what is no language
NO_LANGUAGE = {"la", "zxx"}


def identify_languages(texts: Sequence[str]) -> list[str]:
    """Return the languages of at least a fifth of the texts, the most frequent first.

    Args:
        texts: with one language each; up to 500 are read.

    Returns:
        codes of ISO 639, such as "en"; none where the texts are too few or too short to tell (py3langid, a naive Bayes
        model of 139 languages, after Lui and Baldwin 2012).
    """
    rows = np.linspace(0, len(texts) - 1, min(len(texts), SAMPLE)).astype(int)
    sample = [texts[row][:MAX_CHARACTERS] for row in rows]
    votes = Counter(_identifier().classify(text)[0] for text in sample)
    del votes["und"]  # undetermined
    if votes.total() < max(1, MIN_IDENTIFIED * len(sample)):
        votes = Counter([_identifier().classify("\n".join(sample))[0]])
        del votes["und"]
    return [language for language, count in votes.most_common() if count >= MIN_SHARE * votes.total()]


def is_english(languages: Sequence[str], rouge_tokenizer: str) -> bool:
    """Return whether metrics with English word lists mean something: the texts are in English alone or, where no
    language was identified, in a to z."""
    return list(languages) == ["en"] or (not languages and rouge_tokenizer == "rouge-score")


def reads_english(text: str, language: str | None) -> bool:
    """Return `is_english` of one text, whose language is identified unless it is given."""
    languages = [language] if language else identify_languages([text])
    return is_english(languages, choose_tokenizers([text]).rouge)


def describe_texts(
    references: Sequence[str], tokenizers: Tokenizers, language: str | None, sources: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what `all_results.json` says about texts: `language`, a list of codes (the given one, else those of the
    references, else those of the sources), and `rouge_tokenizer`, `bleu_tokenizer` and `tokenizer_reason`."""
    found = [language] if language else identify_languages(references) or identify_languages(sources)
    chosen = {"rouge_tokenizer": tokenizers.rouge, "bleu_tokenizer": tokenizers.bleu}
    return {"language": found, **chosen, "tokenizer_reason": tokenizers.reason}


@cache
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=MIN_CONFIDENCE)
    identifier.set_languages(set(identifier.labels) - NO_LANGUAGE)
    return identifier
