"""Numbers and amounts in texts: `1,000 mg`, `2,5 mg`, `half a gram`, `15 mg per kilogram`.

Patterns take linear time, whatever the text: a number is tried at its first digit only, and repeated parts cannot
match the empty string (tests/safety/test_patterns.py).
"""

import re

WORDS = {
    "half": 0.5, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "twelve": 12, "twenty": 20, "\u00bd": 0.5, "once": 1, "twice": 2, "thrice": 3,
    "eleven": 11, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "dozen": 12, "couple": 2,
}  # fmt: skip
MG = {
    "mg": 1.0, "milligram": 1.0, "milligrame": 1.0, "g": 1e3, "gm": 1e3, "gram": 1e3, "grame": 1e3,
    "mcg": 1e-3, "ug": 1e-3, "microgram": 1e-3, "micrograme": 1e-3,
}  # fmt: skip
KG_PER_POUND = 0.4536
# `1,000`, `1 000` and `1.000` are a thousand; in `5,10,20 mg` a comma separates numbers, in `2,5 mg` it is decimal
_THOUSANDS = r"[1-9]\d{0,2}(?:(?:,\d{3})+(?!\d)(?:\.\d+)?|[ \u00a0\u202f.]000(?!\d))"
NUMBER = rf"(?:(?<!\d)(?<!\d[.,])(?:{_THOUSANDS}|\d+,\d{{1,3}}(?!\d|,\d))|(?<!\d)\d+(?:\.\d+)?|\.\d+|\u00bd)"
COUNT = rf"(?:{NUMBER}|\b(?:{'|'.join(word for word in WORDS if len(word) > 2)})\b)"
TO = r"\s*(?:-|\u2013|to|or)\s*"
UNIT = r"(?:milligramm?e?s?|microgramm?e?s?|gramm?e?s?|mcgs?|\u00b5g|\u03bcg|ug|mgs?|gm|g)\b"
PIECES = frozenset(
    f"{piece}{s}" for s in ("", "s")
    for piece in (
        "tablet", "tab", "pill", "capsule", "cap", "caplet", "gelcap", "geltab", "softgel", "lozenge", "sachet",
    )
)  # fmt: skip
PIECE = rf"(?:{'|'.join(sorted(PIECES, reverse=True))})\b"
RANGE = rf"(?P<low>{COUNT})(?:{TO}(?P<high>{COUNT}))?"
# numbers in words, only before a spelled-out unit: `a gram`, `half a gram`, `two hundred milligrams`
_SPELT = rf"(?:half an?|an?|{'|'.join(WORDS)})(?:\s+(?:hundred|thousand))?(?=[\s-]+(?:milli|micro)?gramm?e?s?\b)"
# matches amounts per kg, but not per mL or dL; "/day" is a frequency
AMOUNT = re.compile(
    rf"(?P<low>{NUMBER}|\b{_SPELT})\s*(?P<low_unit>{UNIT})?(?:{TO}(?P<high>{NUMBER}))?[\s-]*(?P<unit>{UNIT})"
    r"(?!\s*(?:/|per)\s*(?:\d|m?l\b|dl\b|l\b|litre|liter|millil|squ|sq\b|m2|m\u00b2))",
    re.IGNORECASE,
)
# behind an amount: `/kg`, ` per kilogram`, ` of ibuprofen for each kilo`, ` kg-1`
PER_WEIGHT = re.compile(
    r"(?:\s+[\w-]+){0,4}?\s*(?:(?:/|\bper\b|\b(?:for )?(?:each|every)\b)\s*"
    r"(?P<unit>kg|kilo(?:gramm?e?)?s?|lb|pound)\b|"
    r"\bkg\s?(?:-1|\u207b\u00b9|\^-1))",
    re.IGNORECASE,
)


def parse_number(text: str) -> float:
    """Parse a number in digits or words: `1,000`, `2,5`, `eighty`, `half a`, `a hundred`.

    Raises:
        ValueError: digits that are no number, such as `5,10,20`.
    """
    words = text.lower().split()
    if words[0] in WORDS or words[0] in ("a", "an"):
        scale = {"hundred": 100, "thousand": 1000}.get(words[-1], 1)
        return float(WORDS.get(words[0], 1)) * scale
    if re.fullmatch(_THOUSANDS, text):
        return float(re.sub(r"[,\s]|\.(?=000$)", "", text))
    return float(text.replace(",", ".") if text.count(",") == 1 else text)


def in_mg(number: float, unit: str) -> float:
    """Return an amount in mg; `unit` as `UNIT` matches it."""
    name = unit.lower().replace("\u00b5", "u").replace("\u03bc", "u").replace("mm", "m")  # milligramm, gramme
    return number * MG[name if name in MG else name.rstrip("s")]
