"""Find how often a day a text says that something is taken: `every 6 hours`, `twice a week`, `b.i.d.`."""

import re

from utils.safety.amounts import RANGE, parse_number

DAY = r"(?:day\b|24[\s-]*(?:hours?|hrs?|h)\b)"
# Pattern with a number n -> times a day: `hours` 24 / n, `day` n, `week` n / 7, `days` 1 / n, or a constant
_HOURS, _WEEK = r"(?:hours?|hrs?|h)\b", r"(?:week|weekly|wk)\b"
_TIMES = r"\s*(?:x|times?|doses?)?\s*"
_A = rf"{_TIMES}(?:a|per|each|every|/|in a|in|over)\s*"  # required, or `5 days` would be five times a day
_FREQUENCIES: list[tuple[str, str | float]] = [
    (rf"(?:every|\bq\.?)\s*{RANGE}\s*-?\s*{_HOURS}", "hours"),
    (rf"{RANGE}[\s-]*hourly\b", "hours"),
    (r"\b(?:every|each|per|an) hour\b(?! (?:later|after|before|apart|ago|or))|\bhourly\b", 24),
    (rf"{RANGE}(?:{_A}{_WEEK}|{_TIMES}weekly\b)", "week"),
    (rf"{RANGE}(?:{_A}{DAY}|{_TIMES}daily\b)", "day"),
    (rf"every\s+{RANGE}\s+days\b", "days"),
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


def find_frequency(text: str) -> tuple[float, float, int, int] | None:
    """Return (minimum times a day, maximum times a day, start, end) of the first frequency in a text, or None.

    Of frequencies with the same start the longest is used: `twice a week` is not `twice a day`.
    """
    found = []
    for pattern, times in _COMPILED:
        if match := pattern.search(text):
            number = match.groupdict().get("low") and parse_number(match["low"])
            most = match.groupdict().get("high") and parse_number(match["high"])
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
