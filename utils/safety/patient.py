"""What is known about the patient: `patient_context`, and what the question says of the person who asks."""

import re
from typing import Any, NamedTuple

from utils.arguments import UserError
from utils.safety.drugs import drugs_in

KEYS = ("age", "weight", "pregnancy", "kidney", "conditions", "medications", "allergies")
_SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
          "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
_N = rf"(\d{{1,3}}|{'|'.join(_SMALL[1:])})"
_OLD = re.compile(
    rf"\b{_N}[\s-]*(years?|yrs?|y/?o|months?|mths?|weeks?|days?)[\s-]*(?:old\b|of age\b|(?<=y/o)|(?<=yo))", re.I
)
_OWN_OLD = re.compile(rf"\b(?:i am|i'm|my|our|aged?)\b[^.?!]{{0,40}}?{_OLD.pattern}", re.IGNORECASE)
# `your mother, who is 72`, `I'm 80`; no weeks, doses or weights
_BARE_AGE = re.compile(
    r"\b(?:who is|who's|aged?|i am|i'm|(?:mother|father|mum|mom|dad|husband|wife|gran\w*|nan) is)\s+(\d{2,3})\b"
    r"(?!\s*(?:mg|kg|kilo|lb|pound|st|week|month|day|minute|hour|%|/|\.\d))",
    re.IGNORECASE,
)
# `my son, 9, has`, `she just turned four`, of a child alone: `he takes 2` is no age
_CHILD_AGE = re.compile(
    rf"\b(?:he's|she's|he is|she is|son|daughter|child|kid|boy|girl|grandson|granddaughter|nephew|niece|little one)(?:,| is| just turned| turned|,? aged?"
    rf"|,? who is|,? who's)\s+{_N}\b(?!\s*(?:times|feet|stone|of|mg|kg|kilo|lb|pound|month|week|day|minute|hour|%|/|\.\d))",
    re.IGNORECASE,
)
_CHILD_MONTHS = re.compile(
    rf"\b(?:baby|son|daughter|infant|newborn|she|he|little one)(?:'s|,| is| was born)? (?:only |just |about )?{_N} (months?|weeks?|days?)\b(?! of)",
    re.I,
)
_DECADE = re.compile(r"\bin (?:my|his|her|their) (?:early |mid |late |mid-)?([2-9]0)'?s\b", re.IGNORECASE)
_STAGES = {
    "newborn": 0.05,
    "baby": 0.5,
    "infant": 0.5,
    "toddler": 2.0,
    "preschooler": 4.0,
    "teenager": 15.0,
    "teen": 15.0,
}
_STAGE = re.compile(rf"\b(?:my|our|the|a|this) (?:\w+ )?({'|'.join(_STAGES)})\b(?!'s)", re.IGNORECASE)
_OWN_WEIGHT = re.compile(
    r"\b(?:weighs?|weighing|weight(?: is| of)?)\s+(?:about |around |only |just )?(\d{1,3}(?:\.\d+)?)\s*"
    r"(kgs?|kilos?|kilograms?|lbs?|pounds?)\b",
    re.IGNORECASE,
)
KG_PER_POUND = 0.4536
_PREGNANT = re.compile(
    r"\bpregnan(?:t|cy)\b|\btrimester\b|\bweeks (?:along|gone)\b|\bexpecting (?:a baby|a child|twins|our|my|in|and)\b|"
    r"\b(?:trying|hop(?:e|ing)|planning|want(?:ing)?|plan) (?:to conceive|to get pregnant|for a (?:baby|child)|a (?:baby|"
    r"pregnancy|family)|to (?:have|start) a (?:baby|child|family))\b|\bttc\b|\bconceive\b|\b(?:i'm|is|am|be) due in\b|\bdue date\b",
    re.IGNORECASE,
)
_NOT_PREGNANT = re.compile(
    r"when i was pregnant|(?:last|previous|first|after (?:the|my)) pregnancy|pregnancy test", re.IGNORECASE
)
_REACTION = (
    r"(?:hives|rash|swell\w*|swollen|swelled|anaphyla\w+|wheez\w*|itch\w*|epi-?pen|throat (?:closed?|closing|close up)|welts|"
    r"lumps|blisters?|asthma attack|breathless|stop breathing|trouble breathing|couldn't breathe|can't breathe)"
)
_ALLERGY = re.compile(
    r"\ballerg(?:ic|y|ies)(?: reactions?)?(?: to|:| is| are) ([^.?!;]{3,60})|"
    r"\b([\w-]{3,20}(?: [\w-]{3,20})?) (?:allerg(?:y|ies)\b|intoleran)|"
    r"\breact(?:s|ed|ion|ions)?(?: badly| severely| terribly)? (?:to|with) ([\w -]{3,40})|"
    r"\bcan(?:'t|not) (?:have|take|tolerate) ([\w-]{3,30})|"
    rf"\b{_REACTION}[^.?!;]{{0,40}}?(?:from|with|after|to|on|taking|took|had) ([\w -]{{3,40}})|"
    r"\b([\w-]{4,20})(?: drugs?| tablets?)? (?:once |always |has |have )?(?:gives?|gave|given|brings?|brought|makes?|made|sends?|"
    rf"sent|puts?|put) (?:me|him|her|us|them|my)\b[^.?!;]{{0,30}}?{_REACTION}",
    re.IGNORECASE,
)
# Kidney function in words -> an eGFR that is surely not below the true one (KDIGO 2012 stages; dialysis: below 15)
_KIDNEY_WORDS = {
    r"dialysis|kidney failure|renal failure|kidneys (?:have |had )?fail|end[\s-]stage|stage (?:5|v|five)\b": 14.0,
    r"severe|advanced|stage (?:4|iv|four)\b|3b": 29.0,
}
_KIDNEY = re.compile(r"kidney|renal|\bckd\b|dialysis|e?gfr|creatinine clearance", re.IGNORECASE)
_EGFR = re.compile(
    r"(?:e?gfr|clearance)\D{0,20}?(\d{1,3}(?:\.\d+)?)|(?:kidneys?|renal)[^.?!]{0,30}?\b(\d{1,2})\s?(?:%|percent|per cent)",
    re.I,
)
_DENIED = re.compile(
    r"\b(?:no|not|never|without|don't|doesn't|didn't|isn't|haven't|hasn't|free of|no history of|ruled out)(?:[ -][\w']+){1,5}",
    re.IGNORECASE,
)
_PIECE = re.compile(r"[.?!;\n]+|\bbut\b", re.IGNORECASE)
_OTHERS = re.compile(
    r"(?:runs|run) in (?:my|the|our|his|her) family|family history|\b(?:father|mother|dad|mum|mom|brother|sister|uncle|aunt|"
    r"grand\w+|friend|neighbou?r) (?:had|died|once)\b",
    re.IGNORECASE,
)
_GENERAL = re.compile(
    r"^\W*(?:what|why|how|which|who|when|is|are|does|do|can|could|should|will|tell me|explain)\b(?!.*\b(?:i|i'm|i've|me|my|we|"
    r"our|he|his|him|she|her|they|years?[\s-]old|with|while|if|during|in pregnancy|as a)\b)",
    re.IGNORECASE,
)


class Patient(NamedTuple):
    """Years, kg, mL/min/1.73 m2, None where unknown; drugs as in `drug_phrases`, the rest in small letters."""

    age: float | None = None
    weight: float | None = None
    pregnant: bool = False
    egfr: float | None = None
    conditions: tuple[str, ...] = ()
    medications: tuple[str, ...] = ()
    allergies: tuple[str, ...] = ()


def read_patient(context: dict[str, Any] | None, question: str = "") -> Patient:
    """A patient from `patient_context`, filled up with what the question says (`I am pregnant`, `my 5 year old`).

    Args:
        context: any of `KEYS`. age in years; weight in kg; pregnancy true or false; kidney an eGFR or words
            (`dialysis`, `stage 4`); conditions, medications, allergies a list of names or one text.
        question: the question, for age, weight, pregnancy and kidney that the context does not give; allergies and
            conditions that it names are added.

    Raises:
        UserError: for an unknown key or a value of the wrong type.
    """
    context = {} if context is None else context
    if not isinstance(context, dict):
        raise UserError(f"`patient_context` is a {type(context).__name__}: give an object with {', '.join(KEYS)}.")
    unknown = sorted(str(key) for key in set(context) - set(KEYS))
    if unknown:
        raise UserError(f"`patient_context` has {len(unknown)} unknown keys: allowed are {', '.join(KEYS)}.")
    age, weight = _number(context, "age", 130), _number(context, "weight", 700)
    pregnancy = context.get("pregnancy")
    said = _said(question)
    if pregnancy is None:
        pregnancy = any(_PREGNANT.search(piece) and not _NOT_PREGNANT.search(piece) for piece in said)
    elif not isinstance(pregnancy, bool):
        if not isinstance(pregnancy, str):
            raise UserError(f"`pregnancy` is a {type(pregnancy).__name__}: give true, false or words.")
        pregnancy = pregnancy.strip().lower() not in ("", "no", "none", "false", "not pregnant", "n/a", "unknown")
    allergies = _names(context, "allergies")
    for match in (match for piece in said for match in _ALLERGY.finditer(piece)):
        allergies += (next(group for group in match.groups() if group).lower(),)
    medications = tuple(generic for name in _names(context, "medications") for generic in drugs_in(name))
    return Patient(
        age=_asked_age(question) if age is None else age,
        weight=_weight_in(question) if weight is None else weight,
        pregnant=pregnancy,
        egfr=_egfr(context) if context.get("kidney") is not None else _asked_egfr(said),
        conditions=_names(context, "conditions") + said,
        medications=medications,
        allergies=allergies,
    )


def _said(question: str) -> tuple[str, ...]:
    """What a question says of a person, in small letters, without what it denies and what it says of relatives."""
    pieces = [piece for piece in _PIECE.split(question.replace("\u2019", "'")) if not _GENERAL.search(piece)]
    return tuple(_DENIED.sub(" ", piece).lower() for piece in pieces if not _OTHERS.search(piece))


def age_in(answer: str) -> float | None:
    """Age in years of the person that an answer speaks of, None where it gives none."""
    if match := _OWN_OLD.search(answer):
        return _years(match[1], match[2])
    bare = _BARE_AGE.search(answer)
    return float(bare[1]) if bare else None


def _asked_age(question: str) -> float | None:
    """The same of a question, where `for a 5-year-old` and `my toddler` mean the patient."""
    if match := _OLD.search(question):
        return _years(match[1], match[2])
    if match := _BARE_AGE.search(question) or _CHILD_AGE.search(question):
        return _years(match[1], "years")
    if match := _CHILD_MONTHS.search(question):
        return _years(match[1], match[2])
    if match := _DECADE.search(question):
        return float(match[1])
    stage = _STAGE.search(question)
    return _STAGES[stage[1].lower()] if stage else None


def _years(number: str, unit: str) -> float:
    n = float(number) if number.isdigit() else float(_SMALL.index(number.lower()))
    return n / {"m": 12, "w": 52, "d": 365}.get(unit[0].lower(), 1)


def _asked_egfr(said: tuple[str, ...]) -> float | None:
    for piece in said:
        if number := _EGFR.search(piece):
            return float(number[1] or number[2])
    text = " ".join(piece for piece in said if _KIDNEY.search(piece))
    words = [egfr for pattern, egfr in _KIDNEY_WORDS.items() if re.search(pattern, text, re.IGNORECASE)]
    return min(words, default=None)


def _weight_in(question: str) -> float | None:
    match = _OWN_WEIGHT.search(question)
    return float(match[1]) * (KG_PER_POUND if match[2][0] in "lpLP" else 1.0) if match else None


def _egfr(context: dict[str, Any]) -> float | None:
    value = context.get("kidney")
    if isinstance(value, dict):
        value = value.get("egfr")
    if not isinstance(value, str):
        return _number({"kidney": value}, "kidney", 300)
    if match := re.search(r"\d+(?:\.\d+)?", value) if re.search("e?gfr|ml", value, re.IGNORECASE) else None:
        return float(match[0])
    words = [egfr for pattern, egfr in _KIDNEY_WORDS.items() if re.search(pattern, value, re.IGNORECASE)]
    return min(words, default=None)


def _number(context: dict[str, Any], key: str, highest: float) -> float | None:
    value = context.get(key)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= highest:
        raise UserError(f"`{key}` of `patient_context` is no number from 0 to {highest:g}: give one or leave it out.")
    return number


def _names(context: dict[str, Any], key: str) -> tuple[str, ...]:
    value = context.get(key) or []
    value = re.split(r"[,;\n]", value) if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise UserError(f"`{key}` of `patient_context` is no list of names: give a list of texts.")
    return tuple(" ".join(name.replace("_", " ").lower().split()) for name in value if name.strip())
