"""Dose arithmetic: `two 500 mg tablets every 6 hours` is 4,000 mg a day.

Numbers that are not amounts of a drug are ignored: volumes (5 mL), concentrations (160 mg/5 mL), laboratory values
(90 mg/dL) and units of insulin.
"""

import re
from typing import NamedTuple

WORDS = {
    "half": 0.5, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "twelve": 12, "twenty": 20, "\u00bd": 0.5, "once": 1, "twice": 2, "thrice": 3,
    "fifteen": 15, "sixteen": 16, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
}  # fmt: skip
MG = {"mg": 1.0, "milligram": 1.0, "g": 1e3, "gm": 1e3, "gram": 1e3, "mcg": 1e-3, "ug": 1e-3, "microgram": 1e-3}
# Patterns take linear time, whatever the text: a number is tried at its first digit only, and repeated parts cannot
# match the empty string (tests/safety/test_patterns.py)
_NUMBER = r"(?:(?<!\d)(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)|\.\d+|\u00bd)"
_COUNT = rf"(?:{_NUMBER}|(?:{'|'.join(word for word in WORDS if len(word) > 2)})\b)"
MAX_PIECES = 10  # `500 mg, 30 tablets` is a pack, not a dose
_TO = r"\s*(?:-|\u2013|to|or)\s*"
_UNIT = r"(?:milligrams?|micrograms?|grams?|mcg|\u00b5g|\u03bcg|ug|mg|gm|g)\b"
PIECES = frozenset(
    f"{piece}{s}" for s in ("", "s")
    for piece in ("tablet", "tab", "pill", "capsule", "cap", "caplet", "gelcap", "softgel", "lozenge", "sachet")
)  # fmt: skip
_PIECE = rf"(?:{'|'.join(sorted(PIECES, reverse=True))})\b"
_RANGE = rf"(?P<low>{_COUNT})(?:{_TO}(?P<high>{_COUNT}))?"
_DAY = r"(?:day\b|24[\s-]*(?:hours?|hrs?|h)\b)"

# numbers in words, only before a spelled-out unit: `a gram`, `half a gram`, `two hundred milligrams`
_SPELT = rf"(?:half an?|an?|{'|'.join(WORDS)})(?:\s+(?:hundred|thousand))?(?=[\s-]+(?:milli|micro)?grams?\b)"

# matches amounts per kg, but not per mL or dL; "/day" is a frequency
_AMOUNT = re.compile(
    rf"(?P<low>{_NUMBER}|\b{_SPELT})\s*(?:{_UNIT})?(?:{_TO}(?P<high>{_NUMBER}))?[\s-]*(?P<unit>{_UNIT})"
    r"(?P<kg>\s*(?:/|per)\s*kg)?(?!\s*(?:/|per)\s*(?:\d|m?l\b|dl\b|l\b|litre|liter|millil|squ|m2))",
    re.IGNORECASE,
)
# Counts before an amount (`2 tablets of ibuprofen `, `2 x `, `two `) and after it (`, two tablets`)
_COUNT_BEFORE = [
    re.compile(
        rf"\b{_RANGE}\s+(?:[\w-]+\s+){{0,2}}?(?:{_PIECE}|doses?\b)(?:[\s(]+[\w'-]+){{0,5}}?[\s(]*$", re.IGNORECASE
    ),
    re.compile(rf"\b{_RANGE}\s*[x\u00d7]\s*$", re.IGNORECASE),
]
_COUNT_BARE = re.compile(
    rf"\b{_RANGE}\s+(?:(?:a|an|of|the|those|these|your|extra|regular|maximum|strength|[\s-])*)\(?$", re.IGNORECASE
)
_COUNT_AFTER = re.compile(rf"\b{_RANGE}\s+(?:\w+\s+)?{_PIECE}", re.IGNORECASE)
_COUNT_OF_NAME = re.compile(
    rf"\b{_RANGE}\s+(?:{_PIECE}\s+of\s+)?(?:(?:of|the|your|those|extra|regular|strength)\s+)*$", re.IGNORECASE
)
_PIECE_NEXT = re.compile(rf"^[\s)-]*(?:[\w'-]+\s+){{0,2}}?{_PIECE}", re.IGNORECASE)

# Pattern with a number n -> times a day: `hours` 24 / n, `day` n, `week` n / 7, `days` 1 / n, or a constant
_HOURS, _WEEK = r"(?:hours?|hrs?|h)\b", r"(?:week|weekly|wk)\b"
_TIMES = r"\s*(?:x|times?|doses?)?\s*"
_A = rf"{_TIMES}(?:a|per|each|every|/|in a|in|over)\s*"  # required, or `5 days` would be five times a day
_FREQUENCIES: list[tuple[str, str | float]] = [
    (rf"(?:every|\bq\.?)\s*{_RANGE}\s*-?\s*{_HOURS}", "hours"),
    (r"\b(?:every|each|per|an) hour\b|\bhourly\b", 24),
    (rf"{_RANGE}(?:{_A}{_WEEK}|{_TIMES}weekly\b)", "week"),
    (rf"{_RANGE}(?:{_A}{_DAY}|{_TIMES}daily\b)", "day"),
    (rf"every\s+{_RANGE}\s+days\b", "days"),
    (r"\bevery single day\b|\b(?:seven|7) days (?:a|per) week\b", 1),
    (r"\bon weekdays\b|\bmonday (?:to|through) (?:friday|saturday|sunday)\b", 1),
    (r"every other day|on alternate days|every second day", 0.5),
    (rf"\bweekly\b|(?:\b(?:a|per|each|every) |/\s*){_WEEK}", 1 / 7),
    (r"\b(?:a|per|each|every) month\b|\bmonthly\b", 1 / 30),
    (r"\bb\.?i\.?d\b|morning and (?:one )?(?:at )?(?:night|bedtime|evening)", 2),
    (r"\bt\.?i\.?d\b|(?:with|at|before|after) (?:each|every) meal|(?:with|before|after) meals", 3),
    (r"\bq\.?i\.?d\b", 4),
    (r"\bdaily\b|\b(?:a|per|each|every|in a|in one|any|that) day\b|/\s*(?:day|d)\b|\b[qo]\.?d\b|\bq\.?h\.?s\b", 1),
    (rf"\b(?:in|per|every|within|over)\s+(?:any\s+)?24[\s-]*{_HOURS}", 1),
    (r"\bnightly\b|\bevery (?:night|morning|evening)\b|\bat (?:night|bedtime)\b", 1),
]
_COMPILED = [(re.compile(pattern, re.IGNORECASE), times) for pattern, times in _FREQUENCIES]
_LIMIT = re.compile(
    r"(?:no more than|not? (?:\w+ )?more than|not(?: to)? exceed(?:ing)?|never exceed|"
    r"maximum(?: (?:\w+ ){0,3}(?:is|of|:))?|max\.?(?: of|:| is)?|at most|"
    r"(?<!not go )(?<!never go )(?<!don't go )up to|as much as|"
    r"limit(?: is| of|ed to| to)?)\s*(?:a total of |about )?$",
    re.IGNORECASE,
)
_PIECE_LIMIT = re.compile(
    rf"(?:more than|exceed|maximum of|at most|limit of|up to)\s+(?P<low>{_COUNT})\s+(?:\w+\s+)?{_PIECE}[^.;]{{0,20}}?"
    rf"(?:{_DAY}|daily)",
    re.IGNORECASE,
)
_ABOVE = re.compile(r"(?:more than|over|above|exceeding|exceeds?|greater than|>)\s*$", re.IGNORECASE)


class Dose(NamedTuple):
    """A dose in a sentence.

    low, high: mg per day, per kg of body weight if `per_kg`.
    per_kg: whether the dose is per kg of body weight.
    times: maximum times per day; None without a frequency, which counts as once a day.
    is_limit: whether the text states it as a maximum.
    start, end: span in the sentence.
    """

    low: float
    high: float
    per_kg: bool
    times: float | None
    is_limit: bool
    start: int
    end: int


def find_frequency(text: str) -> tuple[float, float, int, int] | None:
    """Return (minimum times a day, maximum times a day, start, end) of the first frequency in a text, or None.

    Of frequencies with the same start the longest is used: `twice a week` is not `twice a day`.
    """
    found = []
    for pattern, times in _COMPILED:
        if match := pattern.search(text):
            number = match.groupdict().get("low") and _number(match["low"])
            most = match.groupdict().get("high") and _number(match["high"])
            if number != 0 and most != 0:
                ends = [_times(times, n) for n in (number or 1.0, most or number or 1.0)]
                found.append((match.start(), -match.end(), min(ends), max(ends)))
    if not found:
        return None
    start, end, fewest, most = min(found)
    return fewest, most, start, -end


def _times(times: str | float, n: float) -> float:
    by_word = {"hours": 24 / n, "day": n, "week": n / 7, "days": 1 / n}
    return by_word[times] if isinstance(times, str) else float(times)


def find_doses(sentence: str) -> list[Dose]:
    """Find the doses of a sentence in mg per day, in order.

    A range sets `low` and `high`. `as needed` is ignored, since the maximum that the advice allows is what counts. A
    daily limit (`not more than 4 g a day`) caps the preceding dose. `more than 4 g` is not a dose.
    """
    amounts = list(_AMOUNT.finditer(sentence))
    doses: list[Dose] = []
    singles: list[float] = []
    for i, amount in enumerate(amounts):
        begin = amounts[i - 1].end() if i else 0
        end = amounts[i + 1].start() if i + 1 < len(amounts) else len(sentence)
        before, after = sentence[max(begin, amount.start() - 80) : amount.start()], sentence[amount.end() : end]
        count_low, count_high, start = _count(before, after, amount.start())
        is_limit = bool(_LIMIT.search(sentence[max(0, start - 40) : start]))
        if not is_limit and _ABOVE.search(sentence[max(0, start - 20) : start]):
            continue
        frequency = find_frequency(after[:120])
        last = amount.end() + frequency[3] if frequency else amount.end()
        if frequency is None and i == 0 and (frequency := find_frequency(before)):
            start = min(start, amount.start() - len(before) + frequency[2])
        fewest, most = frequency[:2] if frequency else (1.0, 1.0)
        unit = MG[amount["unit"].lower().rstrip("s").replace("\u00b5", "u").replace("\u03bc", "u")]
        low = _number(amount["low"]) * unit
        high = max(low, _number(amount["high"]) * unit) if amount["high"] else low
        if any(abs(single * count_high - high) < 1e-6 for single in singles):  # `6 capsules (12 mg)` of 2 mg
            count_low = count_high = 1.0
        singles.append(high)
        dose = Dose(
            low * count_low * fewest, high * count_high * most, bool(amount["kg"]),
            most if frequency else None, is_limit, start, last,
        )  # fmt: skip
        if is_limit and doses and doses[-1].times and not doses[-1].is_limit and dose.per_kg == doses[-1].per_kg:
            doses[-1] = doses[-1]._replace(high=min(doses[-1].high, dose.high), low=min(doses[-1].low, dose.high))
        doses.append(dose)
        cap = _PIECE_LIMIT.search(after) if frequency and not is_limit else None
        if cap:  # `not more than 8 tablets in 24 hours`
            strength = doses[-1].high / (count_high * most)
            doses[-1] = doses[-1]._replace(high=min(doses[-1].high, strength * _number(cap["low"])))
    return doses


def _count(before: str, after: str, at: int) -> tuple[float, float, int]:
    """Return (lowest count, highest count, start) of the pieces of an amount at `at`.

    Examples: `two 500 mg tablets`, `2 tablets of 500 mg`, `500 mg, two tablets`.
    """
    match = _COUNT_BEFORE[0].search(before) or _COUNT_BEFORE[1].search(before)
    if not match and _PIECE_NEXT.search(after):
        match = _COUNT_BARE.search(before)
    start = at - len(before) + match.start() if match else at
    if not match:
        match = _COUNT_AFTER.search(after[:40])
        match = match if match and _number(match["low"]) <= MAX_PIECES else None
    if not match:
        return 1.0, 1.0, at
    low = _number(match["low"])
    return low, max(low, _number(match["high"])) if match["high"] else low, start


def find_piece_doses(sentence: str, products: list[tuple[int, int, float]]) -> list[tuple[Dose, int]]:
    """Find doses that count pieces of a product without an amount: `two extra strength Tylenol every four hours`.

    Args:
        sentence: the sentence.
        products: (start, end, mg per piece) of each product name in the sentence.

    Returns:
        (dose, index of its product). Names without a count or frequency, or with an amount nearby, are skipped.
    """
    doses = []
    for i, (start, end, mg) in enumerate(products):
        after = re.split(r"[.;]", sentence[end : end + 80])[0]
        count = _COUNT_OF_NAME.search(sentence[max(0, start - 40) : start])
        begin = start if count is None else max(0, start - 40) + count.start()
        count = count or _COUNT_AFTER.search(after[:30])
        frequency = find_frequency(after)
        if count is None or frequency is None or _AMOUNT.search(sentence[max(0, start - 15) : end + 25]):
            continue
        low = _number(count["low"])
        high = max(low, _number(count["high"])) if count["high"] else low
        fewest, most = frequency[:2]
        doses.append((Dose(low * mg * fewest, high * mg * most, False, most, False, begin, end + frequency[3]), i))
    return doses


def _number(text: str) -> float:
    """Parse a number in digits or words: `1,000`, `eighty`, `half a`, `a hundred`."""
    words = text.lower().split()
    if words[0] not in WORDS and words[0] not in ("a", "an"):
        return float(words[0].replace(",", ""))
    scale = {"hundred": 100, "thousand": 1000}.get(words[-1], 1)
    return float(WORDS.get(words[0], 1)) * scale
