"""Find numbers with units, in words or digits: "twenty six" is 26, "0.5 g" is 500 mg, "b.i.d." is twice a day.

Spoken numbers are often ambiguous: "one twenty two" is 122 or 1 and 22, "nineteen eighty four" may be a year. Each
number therefore keeps all its readings.
"""

import re
from typing import NamedTuple

from utils.factuality.units import FREQUENCY, UNIT, UNITS, read_frequency, read_unit

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth"
).split()
SMALL = {word: i for i, word in enumerate(ONES)} | {word: 10 * (i + 2) for i, word in enumerate(TENS)}
SMALL |= {word: i + 1 for i, word in enumerate(ORDINALS)} | {
    t[:-1] + end: SMALL[t] for t in TENS for end in ("ieth", "ies")
}
SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
MONTHS = "january february march april may june july august september october november december".split()

# Asked "How old are you?" or "For how long?", people answer without a unit
SAID_WITHOUT = {"days", "kg", "cm", "%", "degrees", "°f", "°c"}

SPOKEN = "|".join(sorted([*SMALL, *SCALES, "half"], key=len, reverse=True))
RUN = re.compile(rf"\b(?:{SPOKEN})(?:(?:[ -]+|,? and (?:a )?)(?:{SPOKEN}|oh|point))*\b", re.IGNORECASE)
# matches 1,000, 0.50, .5, 1-1/2 and the 10 of 10mg, but not the 12 of B12 or the 1 of HbA1c
DIGITS = re.compile(
    r"(?<![A-Za-z\d./])(?:(?:\d+[ -])?[123]/[234](?![\d/])|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:(?:st|nd|rd|th|s)\b)?|(?<=[\d]/)\d+"
)
LIST_MARK = re.compile(r"(?:^|(?<=[.:;\n]))\s*(\d{1,2})[.)](?=\s+\D|\s*$)")
DATE = re.compile(r"\b(\d{1,2})[/-](\d{1,2})[/-](\d{4}|\d{2})\b")
MONTH = re.compile(rf"\b(?:{'|'.join(MONTHS)})\b", re.IGNORECASE)
TWICE = re.compile(r"\btwice\b", re.IGNORECASE)
A_WEEK = re.compile(r"\ban? (day|week|month|year|hour)\b", re.IGNORECASE)


class Quantity(NamedTuple):
    """A number in a text.

    readings: possible values.
    measure: base unit such as "mg" or "days", "a day" (a frequency), "date", or None.
    factor: base units per written unit.
    start, end: span, including the unit.
    is_claim: whether it states a fact ("one of them" does not).
    """

    readings: tuple[float, ...]
    measure: str | None
    factor: float
    start: int
    end: int
    is_claim: bool


def find_quantities(text: str) -> list[Quantity]:
    """Find written and spoken numbers with their units, and frequencies, dates and months.

    The readings of a date are its parts. Each part is also returned as a number with `is_claim` False.
    """
    found = []
    taken = {match.start(1) for match in LIST_MARK.finditer(text)}
    for match in FREQUENCY.finditer(text):
        found.append(Quantity(read_frequency(match), "a day", 1, *match.span(), True))
        taken.update(range(*match.span()))
    for match in DATE.finditer(text):
        parts = tuple(float(part) for part in match.groups())
        found.append(Quantity(parts, "date", 1, *match.span(), True))
        found += [Quantity((part, *_as_year(part)), None, 1, *match.span(), False) for part in parts]
        taken.update(range(*match.span()))
    for match in MONTH.finditer(text):
        found.append(Quantity((MONTHS.index(match[0].lower()) + 1,), None, 1, *match.span(), False))
    for match in A_WEEK.finditer(text):
        if match.start() not in taken:
            found.append(Quantity((1,), *UNITS[match[1].lower()], *match.span(), False))
    for match in [*RUN.finditer(text), *DIGITS.finditer(text), *TWICE.finditer(text)]:
        readings = _readings(match[0].lower())
        if readings and match.start() not in taken:
            unit = UNIT.match(text, match.end())
            measure, factor, times = read_unit(unit) if unit else (None, 1, None)
            end = unit.end() if unit else match.end()
            if unit and times:
                found.append(Quantity((times,), "a day", 1, unit.start("per"), end, True))
                end = unit.start("per")
            is_claim = bool(unit) or any(c.isdigit() for c in match[0]) or readings[0] > 2
            found.append(Quantity(readings, measure, factor, match.start(), end, is_claim))
    return sorted(found, key=lambda quantity: quantity.start)


def is_supported(quantity: Quantity, known: list[Quantity]) -> bool:
    """Return whether one of the known numbers matches: in base units if both have a unit, otherwise as written. A unit
    that a known number lacks may be another one, so that only those in `SAID_WITHOUT` may be missing there.

    Once a day needs no matching number unless the known numbers have another frequency, since "in the morning" says it
    too. A date needs its month, day and year.
    """
    if quantity.measure == "a day" and not any(other.measure == "a day" for other in known):
        return quantity.readings[0] == 1
    if quantity.measure == "date":
        values = {value for other in known for value in (*other.readings, *_as_year(other.readings[0]))}
        return all({part, *_as_year(part)} & values for part in quantity.readings)
    return any(_is_same(quantity, other) for other in known)


def _is_same(claim: Quantity, known: Quantity) -> bool:
    a, b = claim, known
    if a.measure is None or (a.measure, a.factor) == (b.measure, b.factor):
        return bool(_values(a) & _values(b))
    if b.measure is None or "degrees" in (a.measure, b.measure):
        said = SAID_WITHOUT if b.measure is None else ("degrees", "°f", "°c")
        return a.measure in said and (b.measure in said or b.measure is None) and bool(_values(a) & _values(b))
    if {a.measure, b.measure} == {"°f", "°c"}:
        f, c = (a, b) if a.measure == "°f" else (b, a)
        return any(abs((x - 32) / 1.8 - y) <= 0.06 for x in f.readings for y in c.readings)
    # 150 pounds are 68 kg: a tolerance of 1 % allows for rounding between units
    return a.measure == b.measure and any(
        abs(x * a.factor - y * b.factor) <= 0.01 * abs(x * a.factor) for x in a.readings for y in b.readings
    )


def _values(quantity: Quantity) -> set[float]:
    """Return the readings; numbers from 30 may also be years ("in ninety two"), smaller ones too rarely are."""
    first = quantity.readings[0]
    return {*quantity.readings, *(_as_year(first) if first >= 30 and quantity.measure is None else ())}


def _as_year(value: float) -> tuple[float, ...]:
    """Return the years that a number of two digits can mean."""
    return (1900 + value, 2000 + value) if value < 100 and value == int(value) else ()


def _readings(text: str) -> tuple[float, ...]:
    if text == "twice":
        return (2,)
    if not re.search(r"\d", text):
        return _spoken_readings(re.findall(r"[a-z]+", text))
    number = re.sub(r"[,a-z]", "", text)
    if "/" not in number:
        return (float(number),)
    *whole, numerator, denominator = map(float, re.split(r"[ /-]", number))
    return (sum(whole) + numerator / denominator,)


def _spoken_readings(words: list[str]) -> tuple[float, ...]:
    """Read number words: as consecutive numbers, and as one number of their concatenated digits."""
    numbers: list[float] = []  # completed numbers; `total` + `current` is the one being read
    total, current, decimals, reading = 0.0, 0.0, "", False
    for word in [*words, "end"]:
        value = SMALL.get(word, 0 if word == "oh" else None)
        fits = value is not None and (
            current % 100 == 0 or (current % 100 >= 20 and current % 10 == 0 and 0 < value < 10)
        )
        if word == "end" or (value is not None and reading and not decimals and not (fits and total + current)):
            numbers += [total + current] if reading else []
            total, current, reading = 0.0, 0.0, False
        if decimals and value is not None:
            decimals += str(value)
            numbers[-1] = float(decimals)
        elif value is not None:
            current, reading = current + value, True
        elif word == "hundred":
            current, reading = 100 * max(current, 1), True
        elif word in SCALES:
            total, current, reading = total + SCALES[word] * max(current, 1), 0.0, True
        elif word == "half":
            current, reading = current + 0.5, True
        elif word == "point":
            numbers.append(total + current)
            total, current, reading, decimals = 0.0, 0.0, False, f"{numbers[-1]:g}."
    side_by_side = "".join(f"{number:g}" for number in numbers)
    whole = [float(side_by_side)] if len(numbers) > 1 and side_by_side.isdigit() else []
    return tuple(dict.fromkeys(whole + numbers))
