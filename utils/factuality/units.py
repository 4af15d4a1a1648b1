"""Units as people write and say them, and how often a day something is done."""

import re

# unit -> (base unit, factor). Counts of different things (tablets, puffs) are measures of their own.
UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("ng", "nanogram", "nanograms"), ("mg", 1e-6)),
    **dict.fromkeys(("mcg", "ug", "µg", "μg", "microgram", "micrograms"), ("mg", 0.001)),  # micro sign, Greek mu
    **dict.fromkeys(("mg", "mgs", "milligram", "milligrams", "milligramme", "milligrammes"), ("mg", 1)),
    **dict.fromkeys(("g", "gm", "gms", "gram", "grams", "gramme", "grammes"), ("mg", 1000)),
    **dict.fromkeys(("kg", "kgs", "kilogram", "kilograms", "kilo", "kilos"), ("kg", 1)),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), ("kg", 0.45359237)),
    **dict.fromkeys(("oz", "ounce", "ounces"), ("kg", 0.45359237 / 16)),
    **dict.fromkeys(("ul", "µl", "μl", "microliter", "microliters", "microlitre", "microlitres"), ("ml", 0.001)),
    **dict.fromkeys(("ml", "mls", "milliliter", "milliliters", "millilitre", "millilitres", "cc", "ccs"), ("ml", 1)),
    **dict.fromkeys(("dl", "deciliter", "deciliters", "decilitre", "decilitres"), ("ml", 100)),
    **dict.fromkeys(("l", "liter", "liters", "litre", "litres"), ("ml", 1000)),
    **dict.fromkeys(("pmol",), ("mmol", 1e-9)),
    **dict.fromkeys(("nmol", "nanomole", "nanomoles"), ("mmol", 1e-6)),
    **dict.fromkeys(("umol", "µmol", "μmol", "micromole", "micromoles"), ("mmol", 0.001)),
    **dict.fromkeys(("mmol", "mmols", "millimole", "millimoles"), ("mmol", 1)),
    **dict.fromkeys(("mol",), ("mmol", 1000)),
    **dict.fromkeys(("meq", "meqs", "milliequivalent", "milliequivalents"), ("meq", 1)),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), ("cm", 0.1)),
    **dict.fromkeys(("cm", "cms", "centimeter", "centimeters", "centimetre", "centimetres"), ("cm", 1)),
    **dict.fromkeys(("meter", "meters", "metre", "metres"), ("cm", 100)),
    **dict.fromkeys(("inch", "inches"), ("cm", 2.54)),
    **dict.fromkeys(("feet", "foot", "ft"), ("cm", 30.48)),
    **dict.fromkeys(("m2", "m²"), ("m2", 1)),
    **dict.fromkeys(("mmhg", "mm hg", "millimeters of mercury"), ("mmhg", 1)),
    **dict.fromkeys(("%", "percent", "per cent"), ("%", 1)),
    **dict.fromkeys(("°f", "° f", "degrees f", "degrees fahrenheit", "fahrenheit"), ("°f", 1)),
    **dict.fromkeys(("°c", "° c", "degrees c", "degrees celsius", "degrees centigrade", "celsius"), ("°c", 1)),
    **dict.fromkeys(("°", "degree", "degrees"), ("degrees", 1)),
    **dict.fromkeys(("second", "seconds", "sec", "secs"), ("days", 1 / 86400)),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), ("days", 1 / 1440)),
    **dict.fromkeys(("hour", "hours", "hr", "hrs"), ("days", 1 / 24)),
    **dict.fromkeys(("day", "days"), ("days", 1)),
    **dict.fromkeys(("week", "weeks", "wk", "wks"), ("days", 7)),
    **dict.fromkeys(("month", "months", "mo"), ("days", 365 / 12)),
    **dict.fromkeys(("year", "years", "yr", "yrs", "yo", "y/o"), ("days", 365)),
    **dict.fromkeys(("unit", "units", "iu", "ius", "international units"), ("units", 1)),
    **dict.fromkeys(("kcal", "calorie", "calories"), ("kcal", 1)),
    **dict.fromkeys(("tablet", "tablets", "tab", "tabs", "pill", "pills"), ("tablets", 1)),
    **dict.fromkeys(("capsule", "capsules", "caps", "gel cap", "gel caps", "gelcap", "gelcaps"), ("capsules", 1)),
    **dict.fromkeys(("teaspoon", "teaspoons", "tsp", "teaspoonful", "teaspoonfuls"), ("teaspoons", 1)),
    **dict.fromkeys(("tablespoon", "tablespoons", "tbsp", "tablespoonful", "tablespoonfuls"), ("tablespoons", 1)),
    **dict.fromkeys(("drop", "drops", "gtt", "gtts"), ("drops", 1)),
    **dict.fromkeys(("puff", "puffs", "inhalation", "inhalations"), ("puffs", 1)),
    **dict.fromkeys(("spray", "sprays"), ("sprays", 1)),
    **dict.fromkeys(("patch", "patches"), ("patches", 1)),
    **dict.fromkeys(("suppository", "suppositories"), ("suppositories", 1)),
    **dict.fromkeys(("vial", "vials", "ampule", "ampules", "ampoule", "ampoules"), ("vials", 1)),
    **dict.fromkeys(("beat", "beats"), ("beats", 1)),
    **dict.fromkeys(("breath", "breaths"), ("breaths", 1)),
    **dict.fromkeys(("bpm",), ("beats/days", 1440)),
}
# What follows a unit after "per", "a" or "/": an amount for each kilogram, litre, minute, dose
DENOMINATORS = UNITS | {"h": UNITS["hour"], "d": UNITS["day"], "dose": ("dose", 1.0)}
SPELLED = {"M C G": "mcg", "M G": "mg", "M L": "ml", "C C": "cc"}  # letter by letter, as dictation systems write
_ALL = "|".join(sorted(map(re.escape, {*UNITS, *SPELLED}), key=len, reverse=True))
_BELOW = "|".join(sorted(map(re.escape, DENOMINATORS), key=len, reverse=True))
_END = r"(?![a-zµμ])"
# An eGFR is for each 1.73 m2 of body surface
_PER = rf"(?:\s?/\s?|\s(?:per|an?|each|for each)\s)(?:1\.73\s?)?(?:{_BELOW}){_END}"
UNIT = re.compile(rf"[\s-]{{0,3}}(?P<unit>{_ALL}){_END}(?P<per>(?:{_PER}){{0,3}})(?:[ -]old)?", re.IGNORECASE)
DENOMINATOR = re.compile(rf"(?:/|per|an?|each)\s?(?:1\.73\s?)?(?P<unit>{_BELOW}){_END}", re.IGNORECASE)


def read_unit(match: re.Match[str]) -> tuple[str, float, float | None]:
    """Return the measure, its factor, and how often a day, for a match of `UNIT`. "mg/kg" is a measure of its own, and
    "15 mg/week" is 15 mg, 1/7 times a day."""
    written = match["unit"]
    measure, factor = UNITS[SPELLED.get(written.upper(), written.lower())]
    times = None
    for below in DENOMINATOR.finditer(match["per"]):
        base, size = DENOMINATORS[below["unit"].lower()]
        if base == "days" and size >= 1:
            times = 1 / size
        else:
            measure, factor = f"{measure}/{base}", factor / size
    return measure, factor, times


NUMBERS = {word: n for n, word in enumerate("one two three four five six seven eight nine ten".split(), start=1)}
NUMBERS |= {"twelve": 12, "other": 2, "second": 2, "third": 3, "once": 1, "twice": 2, "thrice": 3}
PERIODS = {"hour": 24, "day": 1, "night": 1, "week": 1 / 7, "month": 12 / 365, "year": 1 / 365}  # times a day
ADVERBS = {
    "hourly": 24, "daily": 1, "nightly": 1, "weekly": 1 / 7, "fortnightly": 1 / 14, "monthly": 12 / 365,
    "yearly": 1 / 365, "annually": 1 / 365,
}  # fmt: skip
LATIN = {
    "qam": 1, "qpm": 1, "qhs": 1, "qd": 1, "qod": 0.5, "bid": 2, "bd": 2, "tid": 3, "tds": 3, "qid": 4, "qw": 1 / 7,
    "qwk": 1 / 7,
}  # fmt: skip
_N = rf"(?:\d{{1,2}}|{'|'.join(list(NUMBERS)[:11])})"
_RANGE = rf"{_N}(?:(?:\s?-\s?|\s(?:to|or)\s){_N})?"
_LATIN = "|".join(r"\.?\s?".join(name) + r"\.?" for name in sorted(LATIN, key=len, reverse=True))
# One pattern, so that "twice daily" is not "daily", too
FREQUENCY = re.compile(
    rf"""(?<![\w/])(?:
    (?P<times>once|twice|thrice|{_RANGE}\s?(?:times|time|x|days|nights))
        (?:\s?(?:an?|per|each|every|in\san?|/)\s?(?P<period>{"|".join(PERIODS)})|\s(?P<adverb>{"|".join(ADVERBS)}))
    |(?:every|each|q\.?)\s?(?P<every>{_RANGE}|other|second|third)?\s?-?
        (?P<unit>hours?|hrs?|h|days?|nights?|weeks?|wks?|months?|years?)
    |(?P<once>(?:each|every|in\sthe|at)\s(?:morning|afternoon|evening|night|bedtime)s?|before\sbed(?:time)?)
    |(?P<weekday>(?:(?:each|every)\s|on\s(?=\w+s\b))(?:mon|tues|wednes|thurs|fri|satur|sun)days?)
    |(?P<alone>{"|".join(ADVERBS)})
    |(?P<latin>{_LATIN})
    )(?!\w)""",
    re.IGNORECASE | re.VERBOSE,
)


def read_frequency(match: re.Match[str]) -> tuple[float, ...]:
    """Return how often a day, for a match of `FREQUENCY`; a range has two values."""
    if match["times"]:
        each = PERIODS[match["period"].lower()] if match["period"] else ADVERBS[match["adverb"].lower()]
        return tuple(count * each for count in _counts(match["times"]))
    if match["unit"]:
        period = {"hr": "hour", "h": "hour", "wk": "week"}.get(unit := match["unit"].lower().rstrip("s"), unit)
        return tuple(PERIODS[period] / count for count in _counts(match["every"] or "1"))
    if match["alone"]:
        return (ADVERBS[match["alone"].lower()],)
    if match["latin"]:
        return (LATIN[re.sub(r"[\s.]", "", match["latin"].lower())],)
    return (1,) if match["once"] else (1 / 7,)


def _counts(text: str) -> list[float]:
    found = re.findall(r"\d+|[a-z]+", text.lower())
    return [float(part) if part.isdigit() else NUMBERS[part] for part in found if part.isdigit() or part in NUMBERS]
