"""Facts about the patient from `patient_context` and from the question."""

import re
from typing import Any, NamedTuple

from utils.arguments import UserError
from utils.safety.drugs import drugs_in
from utils.safety.self_report import (
    age_in_question,
    allergies_in,
    egfr_in,
    egfr_in_words,
    is_pregnant,
    said_of_person,
    weight_in,
)

KEYS = ("age", "weight", "pregnancy", "kidney", "conditions", "medications", "allergies")


class Patient(NamedTuple):
    """A patient. Age in years, weight in kg, eGFR in mL/min/1.73 m2, None if unknown; medications as generic names."""

    age: float | None = None
    weight: float | None = None
    pregnant: bool = False
    egfr: float | None = None
    conditions: tuple[str, ...] = ()
    medications: tuple[str, ...] = ()
    allergies: tuple[str, ...] = ()


def read_patient(context: dict[str, Any] | None, question: str = "") -> Patient:
    """Read a patient from `patient_context`, completed by the question (`I am pregnant`, `my 5 year old`).

    Args:
        context: any of `KEYS`: `age` in years; `weight` in kg; `pregnancy` true, false or words; `kidney` an eGFR or
            words (`dialysis`, `stage 4`); `conditions`, `medications` and `allergies` a list of names or one text.
        question: the question. It provides age, weight, pregnancy and kidney function if the context does not, and
            adds allergies and conditions.

    Raises:
        UserError: a key is unknown, or a value has the wrong type.
    """
    context = {} if context is None else context
    if not isinstance(context, dict):
        raise UserError(f"`patient_context` is a {type(context).__name__}: give an object with {', '.join(KEYS)}.")
    unknown = sorted(str(key) for key in set(context) - set(KEYS))
    if unknown:
        raise UserError(f"`patient_context` has {len(unknown)} unknown keys: use {', '.join(KEYS)}.")
    age, weight = _number(context, "age", 130), _number(context, "weight", 700)
    pregnancy = context.get("pregnancy")
    said = said_of_person(question)
    if pregnancy is None:
        pregnancy = is_pregnant(said)
    elif not isinstance(pregnancy, bool):
        if not isinstance(pregnancy, str):
            raise UserError(f"`pregnancy` is a {type(pregnancy).__name__}: give true, false or words.")
        pregnancy = pregnancy.strip().lower() not in ("", "no", "none", "false", "not pregnant", "n/a", "unknown")
    medications = tuple(generic for name in _names(context, "medications") for generic in drugs_in(name))
    return Patient(
        age=age_in_question(question) if age is None else age,
        weight=weight_in(question) if weight is None else weight,
        pregnant=pregnancy,
        egfr=_egfr(context) if context.get("kidney") is not None else egfr_in(said),
        conditions=_names(context, "conditions") + said,
        medications=medications,
        allergies=_names(context, "allergies") + allergies_in(said),
    )


def _egfr(context: dict[str, Any]) -> float | None:
    value = context.get("kidney")
    if isinstance(value, dict):
        value = value.get("egfr")
    if not isinstance(value, str):
        return _number({"kidney": value}, "kidney", 300)
    if match := re.search(r"\d+(?:\.\d+)?", value) if re.search("e?gfr|ml", value, re.IGNORECASE) else None:
        return float(match[0])
    return egfr_in_words(value)


def _number(context: dict[str, Any], key: str, highest: float) -> float | None:
    value = context.get(key)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= highest:
        raise UserError(f"`{key}` of `patient_context` is not a number from 0 to {highest:g}: correct or drop it.")
    return number


def _names(context: dict[str, Any], key: str) -> tuple[str, ...]:
    value = context.get(key) or []
    value = re.split(r"[,;\n]", value) if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise UserError(f"`{key}` of `patient_context` is not a list of names: give a list of texts.")
    return tuple(" ".join(name.replace("_", " ").lower().split()) for name in value if name.strip())
