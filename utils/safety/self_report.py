"""Read facts about the patient from a question: age, weight, pregnancy, kidney function, allergies, conditions.

Regular expressions suffice, since these facts have few wordings. Negated facts (`no kidney trouble`), facts about
relatives (`asthma runs in the family`) and general questions (`does aspirin cause ulcers?`) are left out.
"""

import re

_FLAGS = re.IGNORECASE


def _one_of(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


# ----- Age and weight

SMALL_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_NUMBER = rf"(\d{{1,3}}|{'|'.join(SMALL_NUMBERS[1:])})"
_AGE_OLD = rf"\b{_NUMBER}[\s-]*(years?|yrs?|y/?o|months?|mths?|weeks?|days?)[\s-]*(?:old\b|of age\b|(?<=y/o)|(?<=yo))"
_ANY_OLD = re.compile(_AGE_OLD, _FLAGS)
_OWN_OLD = re.compile(rf"\b(?:i am|i'm|my|our|aged?)\b[^.?!]{{0,40}}?{_AGE_OLD}", _FLAGS)
_NOT_OTHER_UNIT = r"\b(?!\s*(?:times|feet|stone|of|mg|kg|kilo|lb|pound|st|week|month|day|minute|hour|%|/|\.\d))"
_RELATIVES = _one_of("mother", "father", "mum", "mom", "dad", "husband", "wife", r"gran\w*", "nan")
_CHILDREN = _one_of("son", "daughter", "child", "kid", "boy", "girl", "grandson", "granddaughter", "nephew", "niece",
                    "baby", "infant", "newborn", "little one")  # fmt: skip
# `your mother, who is 72`, `I'm 80`; not weeks, doses or weights
_BARE_AGE = re.compile(rf"\b(?:who is|who's|aged?|i am|i'm|{_RELATIVES} is)\s+(\d{{2,3}}){_NOT_OTHER_UNIT}", _FLAGS)
_IS = _one_of(",", r" \(", " is", " just turned", " turned", ",? aged?", ",? who is", ",? who's")
# children only: `my son, 9, has`, `she's four`; `he takes 2` is not an age
_CHILD_AGE = re.compile(rf"\b(?:he's|she's|he is|she is|{_CHILDREN}{_IS})\s*{_NUMBER}{_NOT_OTHER_UNIT}", _FLAGS)
_CHILD_MONTHS = re.compile(
    rf"\b(?:{_CHILDREN}|she|he)(?:'s|,| is| was born)? (?:only |just |about )?{_NUMBER} "
    r"(months?|weeks?|days?)\b(?! of)",
    _FLAGS,
)
_DECADE = re.compile(r"\bin (?:my|his|her|their) (?:early |mid[ -]|late )?([2-9]0)'?s\b", _FLAGS)
_STAGES = {"newborn": 0.05, "baby": 0.5, "infant": 0.5, "toddler": 2.0, "teenager": 15.0, "teen": 15.0}
_STAGE = re.compile(rf"\b(?:my|our|the|a|this) (?:\w+ )?({'|'.join(_STAGES)})\b(?!'s)", _FLAGS)
_WEIGHT = re.compile(
    r"\b(?:weighs?|weighing|weight(?: is| of)?)\s+(?:about |around |only |just )?(\d{1,3}(?:\.\d+)?)\s*"
    r"(kgs?|kilos?|kilograms?|lbs?|pounds?)\b",
    _FLAGS,
)
KG_PER_POUND = 0.4536


def age_in_answer(text: str) -> float | None:
    """Return the age in years of the person in an answer (`your mother, who is 72`), or None."""
    if match := _OWN_OLD.search(text):
        return _years(match[1], match[2])
    bare = _BARE_AGE.search(text)
    return float(bare[1]) if bare else None


def age_in_question(text: str) -> float | None:
    """Return the age in years of the patient in a question, also from `for a 5-year-old` or `my toddler`, or None."""
    if match := _ANY_OLD.search(text):
        return _years(match[1], match[2])
    if match := _BARE_AGE.search(text) or _CHILD_AGE.search(text):
        return _years(match[1], "years")
    if match := _CHILD_MONTHS.search(text):
        return _years(match[1], match[2])
    if match := _DECADE.search(text):
        return float(match[1])
    stage = _STAGE.search(text)
    return _STAGES[stage[1].lower()] if stage else None


def _years(number: str, unit: str) -> float:
    n = float(number) if number.isdigit() else float(SMALL_NUMBERS.index(number.lower()))
    return n / {"m": 12, "w": 52, "d": 365}.get(unit[0].lower(), 1)


def weight_in(text: str) -> float | None:
    """Return the body weight in kg, or None."""
    match = _WEIGHT.search(text)
    return float(match[1]) * (KG_PER_POUND if match[2][0] in "lpLP" else 1.0) if match else None


# ----- Conditions, pregnancy, kidney function, allergies

_PART = re.compile(r"[.?!;\n]+|\bbut\b", _FLAGS)
_DENIALS = _one_of("no", "not", "never", "without", "don't", "doesn't", "didn't", "isn't", "haven't", "hasn't",
                   "free of", "no history of", "ruled out")  # fmt: skip
_DENIED = re.compile(rf"\b{_DENIALS}(?:[ -][\w']+){{1,5}}", _FLAGS)
_OF_RELATIVES = re.compile(
    r"\bruns? in (?:my|the|our|his|her) family|family history|\b(?:father|mother|dad|mum|mom|brother|sister|uncle|"
    r"aunt|grand\w+|friend|neighbou?r) (?:had|died|once)\b",
    _FLAGS,
)
_ASKING = _one_of("what", "why", "how", "which", "who", "when", "is", "are", "does", "do", "can", "could", "should",
                  "will", "tell me", "explain")  # fmt: skip
_PERSON = _one_of("i", "i'm", "i've", "me", "my", "we", "our", "he", "his", "him", "she", "her", "they",
                  r"years?[\s-]old", "with", "while", "if", "during", "in pregnancy", "as a")  # fmt: skip
_IN_GENERAL = re.compile(rf"^\W*{_ASKING}\b(?!.*\b{_PERSON}\b)", _FLAGS)


def said_of_person(question: str) -> tuple[str, ...]:
    """Return the parts of a question that may be about the patient, in lower case, without negated phrases."""
    pieces = [piece for piece in _PART.split(question.replace("\u2019", "'")) if not _IN_GENERAL.search(piece)]
    return tuple(_DENIED.sub(" ", piece).lower() for piece in pieces if not _OF_RELATIVES.search(piece))


_PREGNANT = re.compile(
    _one_of(
        r"\bpregnan(?:t|cy)\b", r"\btrimester\b", r"\bweeks (?:along|gone)\b", r"\bttc\b", r"\bconceive\b",
        r"\bdue date\b", r"\bbun in the oven\b",
        r"\b(?:i'm|we're|are|is) expecting\b(?! (?:to|a (?:call|reply|letter)))",
        r"\bexpecting (?:a baby|a child|twins|our|my|in|and)\b", r"\b(?:i'm|is|am|be) due in\b",
        r"\b(?:trying|hop(?:e|ing)|planning|want(?:ing)?|plan) (?:to get pregnant|for a (?:baby|child)|"
        r"a (?:baby|pregnancy|family)|to (?:have|start) a (?:baby|child|family))\b",
    )
)  # fmt: skip
_NOT_NOW = re.compile(r"when i was pregnant|(?:last|previous|first|after (?:the|my)) pregnancy|pregnancy test")


def is_pregnant(said: tuple[str, ...]) -> bool:
    """Return whether the patient is or wants to become pregnant."""
    return any(_PREGNANT.search(piece) and not _NOT_NOW.search(piece) for piece in said)


# Kidney function in words -> upper bound of the eGFR (KDIGO 2012 stages; dialysis: below 15)
_KIDNEY_WORDS = {
    r"dialysis|kidney failure|renal failure|kidneys (?:have |had )?fail|end[\s-]stage|stage (?:5|v|five)\b": 14.0,
    r"severe|advanced|stage (?:4|iv|four)\b": 29.0,
}
_KIDNEY = re.compile(r"kidney|renal|\bckd\b|dialysis|e?gfr|creatinine clearance")
_EGFR = re.compile(
    r"(?:e?gfr|clearance)\D{0,20}?(\d{1,3}(?:\.\d+)?)|"
    r"(?:kidneys?|renal)[^.?!]{0,30}?\b(\d{1,2})\s?(?:%|percent|per cent)"
)


def egfr_in_words(text: str) -> float | None:
    """Return the eGFR in mL/min/1.73 m2 implied by words such as `dialysis` or `stage 4`, or None."""
    words = [egfr for pattern, egfr in _KIDNEY_WORDS.items() if re.search(pattern, text, _FLAGS)]
    return min(words, default=None)


def egfr_in(said: tuple[str, ...]) -> float | None:
    """Return the eGFR of a question, in numbers (also `my kidneys work at 20 %`) or words, or None."""
    for piece in said:
        if number := _EGFR.search(piece):
            return float(number[1] or number[2])
    return egfr_in_words(" ".join(piece for piece in said if _KIDNEY.search(piece)))


_REACTION = _one_of(
    "hives", "rash", r"swell\w*", r"balloon\w*", "puff(?:s|ed)? up", r"stevens\W?johnson", "collapse", "shock",
    "swollen", "swelled", r"anaphyla\w+", r"wheez\w*", r"itch\w*", "epi-?pen", "welts", "lumps", "blisters?",
    r"throat (?:closed?|closing|close up)", "asthma attack", "breathless", "stop breathing", "trouble breathing",
    "couldn't breathe", "can't breathe",
)  # fmt: skip
_MAKES = _one_of("gives?", "gave", "given", "brings?", "brought", "makes?", "made", "sends?", "sent", "puts?", "put")
_ALLERGY = re.compile(
    "|".join(
        (
            r"\ballerg(?:ic|y|ies)(?: reactions?)?(?: to|:| is| are) ([^.?!;]{3,60})",
            r"\b([\w-]{3,20}(?: [\w-]{3,20})?) (?:allerg(?:y|ies)\b|intoleran)",
            r"\breact(?:s|ed|ion|ions)?(?: badly| severely| terribly)? (?:to|with) ([\w -]{3,40})",
            r"\bcan(?:'t|not) (?:have|take|tolerate) ([\w-]{3,30})",
            rf"\b{_REACTION}[^.?!;]{{0,40}}?(?:from|with|after|to|on|taking|took|had) ([\w -]{{3,40}})",
            r"\b([\w-]{4,20})(?: drugs?| tablets?)? (?:once |always |has |have )?"
            r"(?:shuts?|closed?|closes|tightens?) (?:my|his|her) (?:throat|airways?|chest)",
            r"\b([\w-]{4,20})(?: drugs?| tablets?)? (?:once |always |has |have )?"
            rf"{_MAKES} (?:me|him|her|us|them|my)\b[^.?!;]{{0,30}}?{_REACTION}",
        )
    )
)


def allergies_in(said: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the patient is allergic to, in the words of the question: `penicillin gave me hives`."""
    found = [match for piece in said for match in _ALLERGY.finditer(piece)]
    return tuple(next(group for group in match.groups() if group) for match in found)
