"""Facts about the patient from `patient_context` and from the question."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from utils.arguments import UserError
from utils.safety.drugs import class_members, drugs_in, marks_of_drugs
from utils.safety.kidney import egfr_in, read_egfr, says_nothing
from utils.safety.phrases import read_table
from utils.safety.self_report import age_in_question, allergies_in, is_pregnant, said_of_person, weight_in

KEYS = ("age", "weight", "pregnancy", "kidney", "conditions", "medications", "allergies")
_NOT_PREGNANT = ("", "no", "none", "false", "not pregnant", "n/a", "unknown")
# `none`, `NKDA`, `no known drug allergies`
_NONE = re.compile(
    r"\W*(?:none|nil|nothing|no|n/?a|nk[df]?a|unknown|(?:no|none|not) (?:other |known |current |regular )*(?:\w+ )?"
    r"(?:known|allerg\w+|medic\w+|drugs?|conditions?|illness\w*|history))?(?: known| reported)?\W*"
)
_AND = re.compile(r"\s+(?:and|plus)\s+|\s*[&+]\s*|\s*/\s*(?=[a-z])(?!(?:day|d|ml|kg|dose|week|hour|h)\b)")
_DENIED = re.compile(r"^(?:no|denies|never had|without|negative for|not (?:on|taking|allergic to|known for)) ")


class Patient(NamedTuple):
    """A patient. Age in years, weight in kg, eGFR in mL/min/1.73 m2, None if unknown; medications as generic names;
    allergies in the words of the context, with the generic names and classes of the drugs among them; `unrecognised`:
    (key, words) of the context that no check knows."""

    age: float | None = None
    weight: float | None = None
    pregnant: bool = False
    egfr: float | None = None
    conditions: tuple[str, ...] = ()
    medications: tuple[str, ...] = ()
    allergies: tuple[str, ...] = ()
    unrecognised: tuple[tuple[str, str], ...] = ()


def read_patient(context: dict[str, Any] | None, question: str = "") -> Patient:
    """Read a patient from `patient_context`, completed by the question (`I am pregnant`, `my 5 year old`).

    Args:
        context: any of `KEYS`: `age` in years; `weight` in kg; `pregnancy` true, false or words; `kidney` an eGFR or
            words (`dialysis`, `stage 3a, eGFR 52`), or an object with `egfr` or `stage`; `conditions`, `medications`
            and `allergies` a list of names or one text.
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
    listed = {key: _names(context, key) for key in ("medications", "allergies", "conditions")}
    medications, allergies, told = (tuple(map(_plain, filter(_is_affirmed, names))) for names in listed.values())
    said = said_of_person(question)
    egfr, kidney_unknown = _egfr(context)
    if egfr is None and not context.get("kidney"):
        egfr = egfr_in((*told, *said))
    unrecognised = [("kidney", words) for words in kidney_unknown]
    for key, is_known in (("medications", drugs_in), ("allergies", _is_allergen), ("conditions", _is_condition)):
        unrecognised += [(key, words) for name in listed[key] for words in _unknown_parts(name, is_known)]
    return Patient(
        age=age_in_question(question) if age is None else age,
        weight=weight_in(question) if weight is None else weight,
        pregnant=_is_pregnant(context, told, said),
        egfr=egfr,
        conditions=told + said,
        medications=tuple(generic for name in medications for generic in drugs_in(name)),
        allergies=_with_classes(allergies + allergies_in(said)),
        unrecognised=tuple(dict.fromkeys(unrecognised)),
    )


def _is_pregnant(context: dict[str, Any], told: tuple[str, ...], said: tuple[str, ...]) -> bool:
    value = context.get("pregnancy")
    if value is None:
        return is_pregnant((*told, *said))
    if not isinstance(value, bool | str):
        raise UserError(f"`pregnancy` is a {type(value).__name__}: give true, false or words.")
    return value.strip().lower() not in _NOT_PREGNANT if isinstance(value, str) else value


def _egfr(context: dict[str, Any]) -> tuple[float | None, list[str]]:
    """Return the eGFR of the context, and its words if they are not understood."""
    value = context.get("kidney")
    if isinstance(value, dict):
        if set(value) - {"egfr", "stage"} or not all(isinstance(v, str | int | float) for v in value.values()):
            raise UserError("`kidney` of `patient_context` is not understood: give an eGFR, words, `egfr` or `stage`.")
        value = value["egfr"] if "egfr" in value else f"stage {value.get('stage', '')}"
    if not isinstance(value, str):
        return _number({"kidney": value}, "kidney", 300), []
    egfr = read_egfr(value)
    return egfr, [value.strip()] if egfr is None and not says_nothing(value) else []


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
    """Return the names as written."""
    value = context.get(key) or []
    value = re.split(r"[,;\n]", value) if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise UserError(f"`{key}` of `patient_context` is not a list of names: give a list of texts.")
    return tuple(name.strip() for name in value if name.strip())


def _is_affirmed(name: str) -> bool:
    return not _DENIED.search(_plain(name)) and not _NONE.fullmatch(_plain(name))


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


# ----- What the checks know


def _unknown_parts(name: str, is_known: Callable[[str], Any]) -> list[str]:
    """Return the parts of a name that no check knows: of `warfarin and zorblax` the second, or the name as a whole."""
    plain = _plain(name)
    if _NONE.fullmatch(plain):
        return []
    inside = {i for mark in marks_of_drugs(plain) for i in range(mark.start, mark.end)}  # `milk and molasses`
    cuts = [match for match in _AND.finditer(plain) if match.start() not in inside]
    bounds = [0, *(place for match in cuts for place in match.span()), len(plain)]
    parts = [plain[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True)]
    unknown = [part for part in parts if part and not is_known(_DENIED.sub("", part)) and not _NONE.fullmatch(part)]
    return [name] if len(unknown) == len(parts) else unknown


def _is_allergen(text: str) -> bool:
    rows = [row for row in read_table("patient_factors") if row["factor"] == "allergy"]
    return bool(drugs_in(text)) or any(re.search(rf"\b(?:{row['value']})", text) for row in rows)


def _is_condition(text: str) -> bool:
    rows = [row for row in read_table("patient_factors") if row["factor"] == "condition"]
    named = any(re.search(row["value"], text) for row in rows)
    return named or is_pregnant((text,)) or egfr_in((text,)) is not None


def _with_classes(allergies: tuple[str, ...]) -> tuple[str, ...]:
    """Add generic names and classes: who is allergic to Advil is allergic to ibuprofen, and to NSAIDs as a class.

    Only classes of the allergy rows count, whose drugs cross-react.
    """
    generics = [part for text in allergies for name in drugs_in(text) for part in name.split("|")]
    rows = [row for row in read_table("patient_factors") if row["factor"] == "allergy"]
    classes = [row["drug"] for name in generics for row in rows if name in class_members()[row["drug"]]]
    return tuple(dict.fromkeys((*allergies, *generics, *classes)))
