"""Read the options of a multiple-choice question and its answer, in the ways in which data sets write them."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from string import ascii_uppercase
from typing import Any

from utils.arguments import UserError

FORMS = ("index", "letter", "text")
# A, (b), opc, option_d, 4: keys of an object and names of options
LABEL = re.compile(r"[(\[]?(?:op(?:tion)?[\s_]?)?([A-Za-z]|\d{1,3})[)\].:]?")
LETTER = re.compile(r"[(\[]?(?:(?i:op(?:tion)?)[\s_]?)?([A-Za-z])[)\].:]?")
REPEATED = re.compile(r"\s*[(\[]?([A-Za-z])[)\].:]\s+(\S.*)", re.DOTALL)
LETTER_AND_TEXT = re.compile(r"[(\[]?([A-Za-z])[)\].:]\s*(\S.*)", re.DOTALL)
LABEL_KEYS = ("key", "aid", "label", "id", "letter")
NUMBER = re.compile(r"([+-]?\d+)(?:\.0*)?")


def read_options(value: Any, column: str, where: str) -> dict[str, Any]:
    """Return label -> option as written, in order; blank options are among them.

    Args:
        value: a list, labelled A, B, C by place; an object `{"A": ...}`, ordered by its letters or numbers; an object
            `{"label": [...], "text": [...]}` (ARC); a list of objects such as `{"key": "A", "value": ...}` (MedQA of
            bigbio) or `{"aid": 1, "atext": ...}` (HEAD-QA); each also as JSON text, as in csv. Empty without options.
        column, where: for error messages.

    Raises:
        UserError: the value has another shape, or fewer than 2 or more than 26 options.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if value is None or value == "" or value == [] or value == {}:
        return {}
    found = f"a {type(value).__name__}"
    if isinstance(value, Mapping) and set(value) == {"label", "text"}:
        labels, texts = value["label"], value["text"]
        value = dict(zip(labels, texts, strict=True)) if _equal_lists(labels, texts) else None
        found = "`label` and `text` of unequal length"
    elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(value[0], Mapping):
        value, found = _from_objects(value), "a list of objects with other keys"
    if isinstance(value, Mapping):
        return _by_label(value, column, where)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{where}: `{column}` is {found}: give a list, or an object by letter (as JSON in csv).")
    if not 2 <= len(value) <= len(ascii_uppercase):
        raise UserError(f"{where}: `{column}` is a list of {len(value)}: give 2 to {len(ascii_uppercase)} options.")
    return label_options(value)


def label_options(values: Sequence[Any]) -> dict[str, Any]:
    """Label options A, B, C by their place.

    Raises:
        UserError: there are more than 26.
    """
    if len(values) > len(ascii_uppercase):
        raise UserError(f"`options_column` names {len(values)} columns: give up to {len(ascii_uppercase)}.")
    return dict(zip(ascii_uppercase, values, strict=False))


def column_labels(names: Sequence[str]) -> list[str]:
    """Return the labels in which the names of option columns end, such as opb or choice_2: letters from A, or numbers
    from 0 or 1, in any order. Names with other ends are A, B, C by place."""
    by_place = list(label_options(names))
    start = len(commonprefix(names).rstrip("0123456789"))
    ends = [name[start:].upper() for name in names]
    known = (by_place, map(str, range(len(names))), map(str, range(1, len(names) + 1)))
    return ends if any(set(ends) == set(labels) for labels in known) else by_place


def strip_labels(options: Mapping[str, Any], column: str, where: str) -> dict[str, Any]:
    """Return options without the letters that all of them repeat: `{"A": "A. rest", ...}` as `{"A": "rest", ...}`.
    UserError if the letters are those of other options."""
    texts = {label: text for label, text in options.items() if isinstance(text, str) and text.strip()}
    found = {label: REPEATED.fullmatch(text) for label, text in texts.items()}
    letters = {label: match[1].upper() for label, match in found.items() if match}
    if not letters or sorted(letters.values()) != sorted(found):
        return dict(options)
    if any(label != letter for label, letter in letters.items()):
        raise UserError(f"{where}: `{column}` has letters in its options that are not in order: sort or drop them.")
    return {**options, **{label: match[2] for label, match in found.items() if match}}


def find_answer(value: Any, options: Mapping[str, str], base: int | None, column: str, where: str) -> tuple[int, str]:
    """Return the place of the right option among all options as written, and the form of the answer.

    An answer is the label of an option ("A", "(b)", "C."), its text, both ("C. rest"), or its place. A number in JSON
    or parquet is never read as a text. All readings of an answer have to agree.

    Args:
        value: the answer as written, not blank.
        options: label -> clean text of every option, "" for a blank one.
        base: number of the first place. None also means 0, but then digits may be the text of an option.
        column, where: for error messages.

    Returns:
        place, from 0, or -1 where the answer is withheld (-1, as in MedMCQA); and `index`, `letter` or `text`.

    Raises:
        UserError: the answer names no option, several options, or a blank one.
    """
    labels, texts = list(options), list(options.values())
    written = " ".join(str(value).split())
    readings: dict[str, set[int]] = {}
    number = None if isinstance(value, bool) else NUMBER.fullmatch(written)
    first = base or 0
    if number:
        place = int(number[1]) - first
        readings["index"] = {-1} if int(number[1]) == -1 else {place} & set(range(len(labels)))
        is_label = str(int(number[1])) in labels and (base is None or labels[0] == str(base))
        readings["letter"] = {labels.index(str(int(number[1])))} if is_label else set()
    if letter := LETTER.fullmatch(unicodedata.normalize("NFKC", written)):
        readings["letter"] = {labels.index(letter[1].upper())} if letter[1].upper() in labels else set()
    if both := LETTER_AND_TEXT.fullmatch(written):
        place = labels.index(both[1].upper()) if both[1].upper() in labels else -1
        readings["letter"] = {place} if place >= 0 and _same(texts[place], both[2]) else set()
    if not isinstance(value, int | float) and not (number and base is not None):
        equal = {place for place, text in enumerate(texts) if " ".join(text.split()) == written}
        readings["text"] = equal or {place for place, text in enumerate(texts) if text and _same(text, written)}

    places = set().union(*readings.values())
    if len(places) > 1:
        raise UserError(f"{where}: `{column}` {_several(readings)}")
    if not places:
        found = f"is `{number[1]}`, and" if number else "names no option:"
        allowed = f"places are {first} to {first + len(labels) - 1}, letters {labels[0]} to {labels[-1]}"
        more = (
            "`answer_index_base: 1` counts from 1" if number and base is None else "the text of an option is read, too"
        )
        raise UserError(f"{where}: `{column}` {found} {allowed}: correct it; {more}.")
    (place,) = places
    if place >= 0 and not texts[place]:
        raise UserError(f"{where}: `{column}` names option {labels[place]}, which is blank: fill or delete the row.")
    return place, next(form for form in FORMS if readings.get(form))


def drop_blanks(texts: Sequence[str], place: int = 0) -> tuple[list[str], int]:
    """Return the options that have a text, and the new place of the option at `place`."""
    return [text for text in texts if text], sum(1 for text in texts[:place] if text)


def answer_warnings(counts: Mapping[str, int], base: int | None) -> list[str]:
    """Return what may be wrong with the answers of a file as a whole.

    Args:
        counts: `answers_by_<form>`, and `answers_at_first_place`, those written as a place that name the first one.
        base: number of the first place, from the recipe.
    """
    forms = {form: counts.get(f"answers_by_{form}", 0) for form in FORMS}
    warnings = []
    if sum(map(bool, forms.values())) > 1:
        warnings.append(f"answers have several forms: {', '.join(f'{n} by {form}' for form, n in forms.items() if n)}")
    if forms["index"] and not counts.get("answers_at_first_place"):
        other = "" if base else ": if the file counts from 1, give `answer_index_base: 1`"
        warnings.append(f"none of {forms['index']} answers is {base or 0}, the first place{other}")
    return warnings


def _by_label(value: Mapping[Any, Any], column: str, where: str) -> dict[str, Any]:
    """Order the options of an object by letter or number. Keys are not shown, since they may be texts."""
    matches = {key: LABEL.fullmatch(str(key).strip()) for key in value}
    labels = {key: match[1].upper() for key, match in matches.items() if match}
    numbers = {label for label in labels.values() if label.isdigit()}
    if len(set(labels.values())) < len(value) or (numbers and len(numbers) < len(value)):
        raise UserError(f"{where}: `{column}` has keys that are neither letters nor numbers: use A, B, C and so on.")
    if not 2 <= len(value) <= len(ascii_uppercase):
        raise UserError(f"{where}: `{column}` has {len(value)} options: give 2 to {len(ascii_uppercase)}.")
    order = sorted(value, key=lambda key: (int(labels[key]) if numbers else 0, labels[key]))
    return {str(int(labels[key])) if numbers else labels[key]: value[key] for key in order}


def _from_objects(items: Sequence[Any]) -> dict[Any, Any] | None:
    """Return label -> text of objects of which one key has labels, and one texts: bigbio's MedQA, HEAD-QA, others."""
    if not all(isinstance(item, Mapping) and item.keys() == items[0].keys() for item in items):
        return None
    names = [name for name in items[0] if all(LABEL.fullmatch(str(item[name]).strip()) for item in items)]
    names = names if len(names) == 1 else [name for name in names if name in LABEL_KEYS]  # texts can be letters, too
    texts = [name for name in items[0] if name not in names and all(isinstance(v[name], str | None) for v in items)]
    if len(names) != 1 or len(texts) != 1:
        return None
    found = {item[names[0]]: item[texts[0]] for item in items}
    return found if len(found) == len(items) else None


def _equal_lists(*values: Any) -> bool:
    return all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _several(readings: Mapping[str, set[int]]) -> str:
    if len(readings.get("text", ())) > 1:
        return "is the text of several options, which are equal: write the letter of the right one."
    forms = [form for form in FORMS if readings.get(form)]
    what = {"index": "a place", "letter": "the letter or number of an option", "text": "the text of another option"}
    advice = "give `answer_index_base` (0 or 1) if it is a place" if "index" in forms else "write its place, from 0"
    return f"can be {' or '.join(what[form] for form in forms)}: {advice}."
