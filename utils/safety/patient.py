"""What is known about the patient: `patient_context`, and what the question says of the person who asks."""

import re
from typing import Any, NamedTuple

from utils.arguments import UserError
from utils.safety.drugs import drugs_in

KEYS = ("age", "weight", "pregnancy", "kidney", "conditions", "medications", "allergies")
_YEARS = re.compile(r"\b(\d{1,3})[\s-]*(?:years?|yrs?|y/?o|y)\b[\s-]*(?:old|of age)?", re.IGNORECASE)
_MONTHS = re.compile(r"\b(\d{1,2})[\s-]*(months?|weeks?|days?)[\s-]*(?:old|of age)\b", re.IGNORECASE)
_OWN_AGE = re.compile(
    r"\b(?:i am|i'm|my|our|aged?)\b[^.?!]{0,40}?\b\d{1,3}[\s-]*(?:years?|months?|weeks?)[\s-]*old", re.I
)
# `your mother, who is 72`, `I'm 80`; no weeks, doses or weights
_BARE_AGE = re.compile(
    r"\b(?:who is|who's|aged?|i am|i'm|(?:mother|father|mum|mom|dad|husband|wife|gran\w*|nan) is)\s+(\d{2,3})\b"
    r"(?!\s*(?:mg|kg|kilo|lb|pound|st|week|month|day|minute|hour|%|/|\.\d))",
    re.IGNORECASE,
)
_OWN_WEIGHT = re.compile(
    r"\b(?:weighs?|weighing|weight(?: is| of)?)\s+(?:about |around |only |just )?(\d{1,3}(?:\.\d+)?)\s*"
    r"(kgs?|kilos?|kilograms?|lbs?|pounds?)\b",
    re.IGNORECASE,
)
KG_PER_POUND = 0.4536
_OWN_PREGNANCY = re.compile(r"\b(?:i am|i'm|my wife is|while)\b(?! not)[^.?!,]{0,25}\bpregnant\b", re.IGNORECASE)
_OWN_ALLERGY = re.compile(r"\b(?:i am|i'm) allergic to ([^.?!;]{3,60})|\bmy ([\w ]{3,30}) allergy\b", re.IGNORECASE)
# Kidney function in words -> an eGFR that is surely not below the true one (KDIGO 2012 stages; dialysis: below 15)
_KIDNEY_WORDS = {
    r"dialysis|kidney failure|renal failure|end[\s-]stage|stage (?:5|v)\b": 14.0,
    r"severe|advanced|stage (?:4|iv)\b": 29.0,
}


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
        question: the question, for age, weight, pregnancy and allergies that the context does not give.

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
    if pregnancy is None:
        pregnancy = bool(_OWN_PREGNANCY.search(question))
    elif not isinstance(pregnancy, bool):
        if not isinstance(pregnancy, str):
            raise UserError(f"`pregnancy` is a {type(pregnancy).__name__}: give true, false or words.")
        pregnancy = pregnancy.strip().lower() not in ("", "no", "none", "false", "not pregnant", "n/a", "unknown")
    allergies = _names(context, "allergies")
    for match in _OWN_ALLERGY.finditer(question):
        allergies += ((match[1] or match[2]).lower(),)
    medications = tuple(generic for name in _names(context, "medications") for generic in drugs_in(name))
    return Patient(
        age=age_in(question) if age is None else age,
        weight=_weight_in(question) if weight is None else weight,
        pregnant=pregnancy,
        egfr=_egfr(context),
        conditions=_names(context, "conditions"),
        medications=medications,
        allergies=allergies,
    )


def age_in(question: str) -> float | None:
    """Age in years of the person that a text speaks of, None where it gives none."""
    match = _OWN_AGE.search(question)
    if not match:
        bare = _BARE_AGE.search(question)
        return float(bare[1]) if bare else None
    if small := _MONTHS.search(match[0]):
        return int(small[1]) / {"m": 12, "w": 52, "d": 365}[small[2][0].lower()]
    years = _YEARS.search(match[0])
    return float(years[1]) if years else None


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
