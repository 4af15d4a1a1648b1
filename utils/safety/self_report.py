"""Read facts about the patient from a question: age, weight, pregnancy, kidney function, allergies, conditions.

Regular expressions suffice, since these facts have few wordings. Negated facts (`no kidney trouble`), facts about
relatives (`asthma runs in the family`) and general questions (`does aspirin cause ulcers?`) are left out.
"""

import re

from utils.safety.amounts import KG_PER_POUND

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
_MASS = r"(\d{1,3}(?:[.,]\d{1,2})?)[\s-]*(kgs?|kilos?|kilograms?|lbs?|pounds?|stones?)\b"
_WEIGHT = re.compile(
    rf"\b(?:weighs?|weighing|weight(?: is| of|:)?)\s+(?:about |around |only |just )?{_MASS}|"
    rf"\b(?:is|was|who's|he's|she's|i'm|i am|at|a|an|the|my|our|your|of)\s+(?:only |just |about )?{_MASS}"
    rf"(?=[\s-]+(?:in weight|{_CHILDREN}|patient|person|adult|man|woman|toddler)\b|\s*(?:[.,;?!)]|and\b|but\b|$))",
    _FLAGS,
)
_KG = {"k": 1.0, "l": KG_PER_POUND, "p": KG_PER_POUND, "s": 14 * KG_PER_POUND}
# Ages in general: `children aged 6 to 11 years`, `under 12`, `over 12`, `adults`
_UNIT_OF_AGE = r"(years?|yrs?|y/?o|months?|mths?)"
_BETWEEN = re.compile(
    rf"\b{_NUMBER}(?:[\s-]*{_UNIT_OF_AGE})?[\s-]*(?:-|\u2013|to|and|or)[\s-]*{_NUMBER}[\s-]*{_UNIT_OF_AGE}\b", _FLAGS
)
_LASTS = re.compile(r"\b(?:for|over|after|every|within|in|next|last|about) $", _FLAGS)  # `for 3 to 6 months`
_BARE = (
    r"\b(?![\s-]*(?:[a-z]*grams?|m?c?g\b|kg|lbs?\b|pounds?|times|doses?|tablets?|pills?|cap|ml\b|"
    r"hours?|days?|weeks?|%|[.,]?\d))"
)
_UNDER = re.compile(
    rf"\b(?:under|below|younger than)(?: the)?(?: ages?)?(?: of)? {_NUMBER}(?:[\s-]+{_UNIT_OF_AGE}\b|{_BARE})|"
    rf"\b(?:less than|up to)(?: the)?(?: ages?)?(?: of)? {_NUMBER}[\s-]+{_UNIT_OF_AGE}\b",
    _FLAGS,
)
_ADULTS = re.compile(
    r"\badults?\b(?!['\u2019]?s?[\s-]+(?:doses?|strength|size|tablets?|formula\w*|version|paracetamol|tylenol|aspirin))|"
    rf"\b(?:over|above|older than|from) (?:the age of )?{_NUMBER} years|"
    rf"\b{_NUMBER} (?:years? )?(?:of age )?(?:and|or) (?:over|older|above|up)\b",
    _FLAGS,
)
_CHILD = r"(?:child(?:ren)?|kids?|boys?|girls?|baby|babies|infants?|toddlers?)"
_AT_AGE = re.compile(
    rf"\b(?:aged?|at the age of|{_CHILD} (?:of|aged)) {_NUMBER}(?:[\s-]+{_UNIT_OF_AGE}\b|{_BARE})|"
    rf"\b(?:at|{_CHILD}) \(?{_NUMBER}[\s-]+{_UNIT_OF_AGE}\b",
    _FLAGS,
)
# `give your toddler`, `infants may have`: below the highest age of the stage
_STAGE_LIMITS = {"newborn": 1 / 12, "neonate": 1 / 12, "baby": 1.0, "babies": 1.0, "infant": 1.0, "toddler": 4.0}
_STAGE_OF_DOSE = re.compile(
    rf"\b(?:giv(?:e|ing)|doses? for|dose of) (?:your |the |a |an |my |our |this )?({'|'.join(_STAGE_LIMITS)})s?\b|"
    rf"\b({'|'.join(_STAGE_LIMITS)})s? (?:can|may|should|get|need|are given|is given)\b",
    _FLAGS,
)
GROWN_UP = 40.0  # the age in years that `adults` stands for


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


def age_at(sentence: str, at: int) -> float | None:
    """Return the age in years that a dose at `at` of a sentence is for, or None.

    It is the age or stage (`give your toddler`) named last before the dose, otherwise the first one behind it. Of a
    range it is the highest, and without an upper end `GROWN_UP`, so that a dose counts as too much only if it is for
    everyone meant.
    """
    between = [match for match in _BETWEEN.finditer(sentence) if not _LASTS.search(sentence[: match.start()][-12:])]
    found = [(match.start(), _years(match[3], match[4])) for match in between]
    found += [(match.start(), _years(*_first_two(match)) - 0.01) for match in _UNDER.finditer(sentence)]
    found += [(match.start(), GROWN_UP) for match in _ADULTS.finditer(sentence)]
    for match in _STAGE_OF_DOSE.finditer(sentence):
        found.append((match.start(), _STAGE_LIMITS[(match[1] or match[2]).lower()] - 0.01))
    general = [m.span() for pattern in (_BETWEEN, _UNDER, _ADULTS) for m in pattern.finditer(sentence)]
    for match in (*_ANY_OLD.finditer(sentence), *_AT_AGE.finditer(sentence)):
        if all(match.end() <= start or match.start() >= end for start, end in general):
            found.append((match.start(), _years(*_first_two(match))))
    before = [age for place, age in sorted(found) if place < at]
    behind = [age for place, age in sorted(found) if place >= at]
    return before[-1] if before else behind[0] if behind else None


def _first_two(match: re.Match) -> tuple[str, str]:
    """Return number and unit of an age, from the alternative that matched."""
    groups = match.groups()
    first = next(i for i, group in enumerate(groups) if group)
    return groups[first], (groups[first + 1] if first + 1 < len(groups) else None) or "years"


def weight_in(text: str) -> float | None:
    """Return the body weight in kg, or None: `weighs 44 lb`, `a 12 kg child`, `he is 12.5 kg`."""
    match = _WEIGHT.search(text)
    if not match:
        return None
    number, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
    return float(number.replace(",", ".")) * _KG[unit[0].lower()]


# ----- Conditions, pregnancy, kidney function, allergies

_PART = re.compile(r"(?:[?!;\n]|\.(?!\d)|(?<!\d)\.)+|\bbut\b", _FLAGS)  # not at 1.73
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
