"""Read kidney function from words and numbers, as eGFR in mL/min/1.73 m2.

A number goes before a stage, and the lowest number counts. A stage or word becomes the highest eGFR of its band (KDIGO
2012): the limits in the tables lie at the edges of bands, so that a band is below a limit as a whole or not at all. Of
a stage in two parts, `stage 3`, it is the worse part, since silence is worse than one warning too many.
"""

import re

_FLAGS = re.IGNORECASE
_BANDS = {"1": 90.0, "2": 89.0, "3": 44.0, "3a": 59.0, "3b": 44.0, "4": 29.0, "5": 14.0}
_DIGITS = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5"} | {
    word: str(i) for i, word in enumerate(("one", "two", "three", "four", "five"), start=1)
}
_UNITS = re.compile(
    r"m(?:l|illilit(?:er|re)s?)\s*(?:/|per)?\s*min(?:ute)?s?\b\.?|(?:/|per)?\s*1[.,]73\s*(?:m\s?(?:2|\u00b2|\^2|\*\*2)?)?",
    _FLAGS,
)
_N = r"(?<![\d.,])(\d{1,3}(?:[.,]\d{1,2})?)(?![\d.,]*\d)"
# `2 weeks ago`, `in 2023`, `12/03/2024`, `75 years old`
_TIME = re.compile(
    r"(?<!\d)(?:\d{1,3}[\s-]*(?:years?|yrs?|months?|weeks?|days?|hours?|y/?o)\b|(?:19|20)\d\d(?!\d)|"
    r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4})",
    _FLAGS,
)
_BELOW = r"(<|\u2264|below|under|less than|lower than)"
# `eGFR is 52`, `clearance: < 30`, `GFR 30-44`
_AFTER_NAME = re.compile(
    rf"(?:e?gfr|cr\s?cl|clearance|(?:kidney|renal) function)\b[^\d<\u2264.;]{{0,40}}?{_BELOW}?[\s(=:]*{_N}", _FLAGS
)
_BEFORE_UNIT = re.compile(rf"{_BELOW}?\s*{_N}\s*\(?\s*\bunit\b", _FLAGS)
_AFTER_UNIT = re.compile(rf"\bunit[\s)]*(?:is|was|of|=|:)?\s*{_BELOW}?\s*{_N}", _FLAGS)
_ALONE = re.compile(
    rf"^\W*(?:(?:ckd|kidneys?|renal|is|at|about|approx\w*|around)\W+)*{_BELOW}?\s*{_N}\s*(?:%|percent|unit|\W)*$",
    _FLAGS,
)
_PERCENT = re.compile(r"(?:kidneys?|renal)[^.?!]{0,30}?\b(\d{1,2})\s?(?:%|percent|per cent)", _FLAGS)
_STAGE_NUMBER = rf"([1-5]|{'|'.join(sorted(_DIGITS, key=len, reverse=True))})\s?([ab])?(?:\s?a[123]|d|t)?\b"
_STAGE = re.compile(
    rf"\b(?:(?:ckd|stage|grade|category|kdigo|class)[\s:-]{{0,3}}){{1,3}}g?\s?{_STAGE_NUMBER}"
    rf"(?:\s?(?:-|\u2013|to|or|/)\s?g?\s?{_STAGE_NUMBER})?|\bg\s?([1-5])\s?([ab])?(?:\s?a[123]|d|t)?\b|^\W*([1-5])([ab])\W*$",
    _FLAGS,
)
_FAILED = re.compile(
    r"dialysis|\bes[rk]d\b|(?:kidney|renal) failure|kidneys (?:have |had )?fail|end[\s-]stage", _FLAGS
)
_DEGREES = {"severe": 29.0, "advanced": 29.0, "moderate": 44.0, "mild": 89.0}
_DEGREE = re.compile(
    r"\b(severe|advanced|moderate|mild)(?:ly)?\b(?:[\s-]+[\w-]+){0,2}[\s-]+(?:kidneys?|renal|ckd|nephropathy)\b|"
    r"\b(?:kidneys?|renal|ckd)\b(?:[\s-]+[\w-]+){0,3}[\s:,-]+(severe|advanced|moderate|mild)(?:ly)?\b",
    _FLAGS,
)
_DENIED = re.compile(r"\b(?:no|not|never|without|isn't|aren't|don't|doesn't)(?:[ -][\w']+){1,5}", _FLAGS)
_NORMAL = re.compile(r"\b(?:normal|healthy|fine|good|ok(?:ay)?|no|none|nil|unknown|not known|n/?a)\b", _FLAGS)
_KIDNEY = re.compile(r"kidney|renal|\bckd\b|dialysis|e?gfr|creatinine clearance|\bcrcl\b|\bes[rk]d\b", _FLAGS)


def read_egfr(text: str) -> float | None:
    """Return the eGFR that a text about the kidneys states or implies, or None.

    Examples: `45`, `stage 3a, eGFR 52`, `eGFR (mL/min/1.73 m2) is 75`, `G4`, `CKD 4`, `< 30`, `dialysis`, `severe`.
    """
    alone = _ALONE.match(_plain(text)) if not _STAGE.search(text) else None
    numbers = [_number(alone[1], alone[2])] if alone else []
    word = re.fullmatch(r"\W*(severe|advanced|moderate|mild)(?:ly)?\b.*", text, _FLAGS | re.DOTALL)
    degrees = [_DEGREES[word[1].lower()]] if word else []
    return _read(text, numbers, degrees)


def egfr_in(said: tuple[str, ...]) -> float | None:
    """Return the lowest eGFR of the parts of a question that are about kidneys, or None."""
    values = [_read(piece, [], []) for piece in said if _KIDNEY.search(piece)]
    return min((value for value in values if value is not None), default=None)


def says_nothing(text: str) -> bool:
    """Return whether a text about the kidneys names no disease: `normal`, `no kidney disease`, `unknown`."""
    return not _DENIED.sub(" ", text).strip(" .,;") or bool(_NORMAL.search(text))


def _plain(text: str) -> str:
    return _TIME.sub(" ", _UNITS.sub(" unit ", text))


def _read(text: str, numbers: list[float], degrees: list[float]) -> float | None:
    plain, affirmed = _plain(text), _DENIED.sub(" ", text)
    without_stages = _STAGE.sub(" ", plain)
    for pattern in (_AFTER_NAME, _BEFORE_UNIT):
        numbers = numbers + [_number(match[1], match[2]) for match in pattern.finditer(without_stages)]
    numbers = numbers or [_number(match[1], match[2]) for match in _AFTER_UNIT.finditer(without_stages)]
    numbers = numbers + [float(match[1]) for match in _PERCENT.finditer(without_stages)]
    failed = [14.0] if _FAILED.search(affirmed) else []
    stages = [_BANDS[stage] for match in _STAGE.finditer(affirmed) for stage in _stages(match)]
    degrees = degrees + [_DEGREES[(match[1] or match[2]).lower()] for match in _DEGREE.finditer(affirmed)]
    return min(failed + (numbers or stages or degrees), default=None)


def _number(below: str | None, number: str) -> float:
    value = float(number.replace(",", "."))
    return max(0.0, value - 1) if below else value


def _stages(match: re.Match) -> list[str]:
    """Return the one or two stages of a match, as keys of `_BANDS`."""
    groups = match.groups()
    pairs = [(groups[i], groups[i + 1]) for i in (0, 2, 4, 6) if groups[i]]
    digits = [(_DIGITS.get(number.lower(), number), (half or "").lower()) for number, half in pairs]
    return [digit + half if digit == "3" else digit for digit, half in digits]
