"""The language of a text, so that a text which the English tables cannot read is not reported as checked.

Languages are those of py3langid, a naive Bayes model of 139 languages, after Lui and Baldwin 2012.
"""

import functools

import regex
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from utils.safety.normalization import normalize
from utils.safety.phrases import read_table

MAX_CHARACTERS = 2000  # of a text that are read
MIN_WORDS, MIN_UNKNOWN, MIN_SHARE = 3, 2, 0.5  # words beside drugs and units; those that no table has, and their share
MAX_ENGLISH = 0.05  # no text of 4,500 of MedQuAD and 3,300 in everyday words is taken for foreign
MIN_CONFIDENCE = 0.5
NO_LANGUAGE = {"la", "zxx"}  # medical terms are Latin in every language
UNDETERMINED = "und"  # ISO 639-2
_LETTER, _LATIN, _WORD = regex.compile(r"\p{L}"), regex.compile(r"\p{Latin}"), regex.compile(r"\p{L}+")
_UNITS = {"mg", "g", "mcg", "ml", "kg"}


def unread_language(text: str) -> str | None:
    """Return the language of a text that the tables cannot read: a code of ISO 639, `und` if it is not clear which.

    None stands for English, and for texts that are too short to tell, such as the name of a drug with its dose.
    """
    plain = normalize(text[:MAX_CHARACTERS]).text
    letters = _LETTER.findall(plain)
    foreign = sum(not _LATIN.match(letter) for letter in letters) > len(letters) / 2
    if not foreign:
        words = [word for word in _WORD.findall(plain.lower()) if word not in _drug_words()]
        unknown = sum(word not in _words() for word in words)
        if len(words) < MIN_WORDS or unknown < max(MIN_UNKNOWN, MIN_SHARE * len(words)):
            return None
    chances = dict(_identifier().rank(plain))
    if not foreign and chances["en"] > MAX_ENGLISH:
        return None
    language = max(chances, key=chances.__getitem__)
    return language if language != "en" and chances[language] >= MIN_CONFIDENCE else UNDETERMINED


@functools.cache
def _drug_words() -> frozenset[str]:
    return frozenset(word for row in read_table("drugs") for word in _WORD.findall(row["name"])) | _UNITS


@functools.cache
def _words() -> frozenset[str]:
    rows = [row["phrase"] for row in read_table("cues")] + [row["phrases"] for row in read_table("concepts")]
    return frozenset(word for row in rows for word in _WORD.findall(row.lower()))


@functools.cache
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(set(identifier.labels) - NO_LANGUAGE)
    return identifier
