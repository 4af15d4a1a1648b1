"""Dose arithmetic: `two 500 mg tablets every 6 hours` is 4,000 mg a day.

Numbers that are not amounts of a drug are ignored: volumes (5 mL), concentrations (160 mg/5 mL), laboratory values
(90 mg/dL) and units of insulin.
"""

import re
from typing import NamedTuple

from utils.safety.amounts import AMOUNT, COUNT, KG_PER_POUND, PER_WEIGHT, PIECE, RANGE, in_mg, parse_number
from utils.safety.frequencies import DAY, find_frequency

MAX_PIECES = 10  # `500 mg, 30 tablets` is a pack, not a dose
# Counts before an amount (`2 tablets of ibuprofen `, `2 x `, `two `) and after it (`, two tablets`)
_COUNT_BEFORE = [
    re.compile(
        rf"\b{RANGE}\s+(?:[\w-]+\s+){{0,2}}?(?:{PIECE}|doses?\b)(?:[\s(]+[\w'-]+){{0,5}}?[\s(]*$", re.IGNORECASE
    ),
    re.compile(rf"\b{RANGE}\s*[x\u00d7]\s*$", re.IGNORECASE),
]
_COUNT_BARE = re.compile(  # `two `, `two of your `, `two paracetamol `
    rf"\b{RANGE}\s+(?:(?!(?:days?|weeks?|months?|years?|hours?|minutes?|times|doses?|more)\b)[a-z-]+ )?"
    r"(?:(?:a|an|of|the|those|these|your|extra|regular|maximum|strength|[\s-])*)\(?$",
    re.IGNORECASE,
)
_COUNT_AFTER = re.compile(rf"\b{RANGE}\s+(?:\w+\s+)?{PIECE}", re.IGNORECASE)
_COUNT_OF_NAME = re.compile(
    rf"\b{RANGE}\s+(?:{PIECE}\s+of\s+)?(?:(?:of|the|your|those|extra|regular|strength)\s+)*$", re.IGNORECASE
)
_PIECE_NEXT = re.compile(rf"^[\s)-]*(?:[\w'-]+\s+){{0,2}}?{PIECE}", re.IGNORECASE)

_LIMIT = re.compile(
    r"(?:no more than|not? (?:\w+ )?more than|not(?: to)? exceed(?:ing)?|never exceed|"
    r"maximum(?: (?:\w+ ){0,3}(?:is|of|:))?|max\.?(?: of|:| is)?|at most|"
    r"(?<!not go )(?<!never go )(?<!don't go )up to|as much as|"
    r"limit(?: is| of|ed to| to)?)\s*(?:a total of |about )?$",
    re.IGNORECASE,
)
_PIECE_LIMIT = re.compile(
    rf"(?:more than|exceed|maximum of|at most|limit of|up to)\s+(?P<low>{COUNT})\s+(?:\w+\s+)?{PIECE}[^.;]{{0,20}}?"
    rf"(?:{DAY}|daily)",
    re.IGNORECASE,
)
# `every 4 hours, no more than 5 doses a day`
_TIMES_LIMIT = re.compile(
    r"(?:more than|exceed(?:ing)?|maximum(?: of)?|max\.?|at most|limit of|up to)\s+"
    rf"(?P<low>{COUNT})\s+(?:times|doses)\b",
    re.IGNORECASE,
)
_ABOVE = re.compile(r"(?:more than|over|above|exceeding|exceeds?|greater than|>)\s*$", re.IGNORECASE)
# the amount is the total of a day: `60 mg/kg divided every 6 hours`, `1,200 mg in three doses`
_DIVIDED = re.compile(r"\b(?:divided|split|spread)\b|\bin (?:[\w-]+ ){1,2}doses\b", re.IGNORECASE)
# the amount is taken at one time
_AT_ONCE = re.compile(
    r"\bat (?:once|one time|a time)\b|\bin one go\b|\b(?:all|both) together\b|"
    r"\b(?:single|one|per|each|a) dose\b|/\s*dose\b|\b(?:each|every) time\b|\bright (?:now|away)\b|"
    r"\bstraight away\b|\bimmediately\b",
    re.IGNORECASE,
)
_TAKE = re.compile(r"\b(?:take|swallow|give|have|gulp|down)\b[^.;:,]{0,40}$", re.IGNORECASE)
_ONCE = re.compile(r"\bonce\b|\bone time\b|night|morning|evening|bedtime", re.IGNORECASE)
_PACK = re.compile(
    r"\b(?<!whole )(?<!entire )(?<!full )(?:packs?|packets?|packages?|box(?:es)?|bottles?|blisters?|strips?|cartons?|"
    r"suppl(?:y|ies))\s+(?:of|with|contain\w*|holds?)\s+(?:up to\s+)?$",
    re.IGNORECASE,
)
_A_MINUTE = re.compile(r"\s*(?:/|per|a)\s*min", re.IGNORECASE)


class Dose(NamedTuple):
    """A dose in a sentence.

    low, high: mg per day, per kg of body weight if `per_kg`.
    per_kg: whether the dose is per kg of body weight.
    times: maximum times per day; None without a frequency, which counts as once a day.
    is_limit: whether the text states it as a maximum.
    start, end: span in the sentence.
    single: most mg at one time, per kg if `per_kg`; None where the text says the amount of a day only.
    is_mg: whether the text counts in mg or g, not in micrograms.
    """

    low: float
    high: float
    per_kg: bool
    times: float | None
    is_limit: bool
    start: int
    end: int
    single: float | None = None
    is_mg: bool = True


def find_doses(sentence: str) -> list[Dose]:
    """Find the doses of a sentence in mg per day, in order.

    A range sets `low` and `high`. `as needed` is ignored, since the maximum that the advice allows is what counts. A
    daily limit (`not more than 4 g a day`) caps the preceding dose. `more than 4 g` and the content of a pack are no
    doses.
    """
    amounts = list(AMOUNT.finditer(sentence))
    doses: list[Dose] = []
    singles: list[float] = []
    for i, amount in enumerate(amounts):
        begin = amounts[i - 1].end() if i else 0
        end = amounts[i + 1].start() if i + 1 < len(amounts) else len(sentence)
        before, after = sentence[max(begin, amount.start() - 80) : amount.start()], sentence[amount.end() : end]
        weight = PER_WEIGHT.match(after[:60])
        count_low, count_high, start = _count(before, after, amount.start())
        is_limit = bool(_LIMIT.search(sentence[max(0, start - 40) : start]))
        is_above = not is_limit and _ABOVE.search(sentence[max(0, start - 20) : start])
        if is_above or _PACK.search(before) or _PACK.search(sentence[max(0, start - 40) : start]):
            continue
        if _A_MINUTE.match(after, weight.end() if weight else 0):  # the rate of an infusion
            continue
        frequency = find_frequency(after[:120])
        last = amount.end() + frequency[3] if frequency else amount.end() + (weight.end() if weight else 0)
        if frequency is None and i == 0 and (frequency := find_frequency(before)):
            start = min(start, amount.start() - len(before) + frequency[2])
        fewest, most = frequency[:2] if frequency else (1.0, 1.0)
        is_divided = bool(_DIVIDED.search(after[:120]))
        if is_divided:
            fewest = most = min(most, 1.0)
        elif frequency and (limit := _TIMES_LIMIT.search(after)):
            most = max(1.0, min(most, parse_number(limit["low"])))
            fewest = min(fewest, most)
        low, high = _in_mg(amount)
        if weight and (weight["unit"] or "")[:1] in ("l", "L", "p", "P"):
            low, high = low / KG_PER_POUND, high / KG_PER_POUND
        if any(abs(single * count_high - high) < 1e-6 for single in singles):  # `6 capsules (12 mg)` of 2 mg
            count_low = count_high = 1.0
        singles.append(high)
        dose = Dose(
            low * count_low * fewest, high * count_high * most, bool(weight), most if frequency else None, is_limit,
            start, last, None, in_mg(1.0, amount["unit"]) >= 1,
        )  # fmt: skip
        said = after[:60] if frequency is None else after[: max(60, frequency[3])]
        if _is_single(before, said, frequency, is_limit, start < amount.start() or count_high > 1, is_divided):
            dose = dose._replace(single=high * count_high)
        if is_limit and doses and doses[-1].times and not doses[-1].is_limit and dose.per_kg == doses[-1].per_kg:
            doses[-1] = doses[-1]._replace(high=min(doses[-1].high, dose.high), low=min(doses[-1].low, dose.high))
        doses.append(dose)
        cap = _PIECE_LIMIT.search(after) if frequency and not is_limit else None
        if cap:  # `not more than 8 tablets in 24 hours`
            strength = doses[-1].high / (count_high * most)
            doses[-1] = doses[-1]._replace(high=min(doses[-1].high, strength * parse_number(cap["low"])))
    return doses


def _in_mg(amount: re.Match) -> tuple[float, float]:
    """Return the lowest and highest mg of an amount. In `500 mg to 1 g` each number has its own unit."""
    low = in_mg(parse_number(amount["low"]), amount["low_unit"] or amount["unit"])
    return low, max(low, in_mg(parse_number(amount["high"]), amount["unit"])) if amount["high"] else low


def _is_single(
    before: str, after: str, frequency: tuple | None, is_limit: bool, is_counted: bool, is_divided: bool
) -> bool:
    """Return whether an amount is taken at one time: `4 g a day` may be the sum, `4 g every 6 hours` is not."""
    if is_divided:
        return False
    if _AT_ONCE.search(after) or re.search(r"\b(?:single dose|at once)\b[^.;]{0,20}$", before, re.IGNORECASE):
        return True
    if frequency is None:
        return not is_limit and (is_counted or bool(_TAKE.search(before)))
    return frequency[1] > 1 or bool(_ONCE.search(after[frequency[2] : frequency[3]]))


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
        match = match if match and parse_number(match["low"]) <= MAX_PIECES else None
    if not match:
        return 1.0, 1.0, at
    low = parse_number(match["low"])
    return low, max(low, parse_number(match["high"])) if match["high"] else low, start


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
        if count is None or frequency is None or AMOUNT.search(sentence[max(0, start - 15) : end + 25]):
            continue
        low = parse_number(count["low"])
        high = max(low, parse_number(count["high"])) if count["high"] else low
        fewest, most = frequency[:2]
        doses.append((Dose(low * mg * fewest, high * mg * most, False, most, False, begin, end + frequency[3]), i))
    return doses
