"""Maximum doses of `utils/safety/tables/doses.csv`, for the age and weight of a person.

- The ceiling of an adult holds for minors, too.
- A dose per kg is compared with ceilings per kg whatever the age. Where the age is unknown, the highest one counts.
- Ceilings `weight unknown` go by age, as labels do for parents who do not know the weight.
- An unknown weight is replaced so that only clear overdoses are found: by the 97th percentile for the age where a
  dose is divided by it, by the 3rd where it is multiplied (`reference_weights.csv`, CDC).
- Micrograms: a dose in mg that would be right in micrograms is found with one level of severity more.
"""

import math
from typing import NamedTuple

from utils.safety.context import Finding, make_finding
from utils.safety.doses import Dose
from utils.safety.phrases import read_table

ADULT = 40.0  # default age in years
GROWN = 18.0  # from this age on no weight is guessed from the age
SMALL = 50.0  # kg, below which the ceilings `under 50 kg` hold
ROUNDING = 1.001
FAR_ABOVE = 10  # times a ceiling in micrograms, from which mg is a mistake of the unit


class Excess(NamedTuple):
    """A dose above a ceiling: row of doses.csv, amount and ceiling in mg (per kg if the row is), `is_single`: of one
    dose and not of a day, reference weight in kg if one was used."""

    row: dict[str, str]
    amount: float
    limit: float
    is_single: bool
    weight: float | None


def find_excess(drug: str, dose: Dose, age: float | None, weight: float | None, form: str) -> Excess | None:
    """Return the most severe excess of a dose, of equally severe ones the largest, or None.

    Args:
        drug: generic name.
        dose: the dose; its `single` is compared with ceilings of one dose.
        age: years; None if unknown, which counts as an adult unless the weight is a child's.
        weight: kg, or None.
        form: `oral`, `er` (oral, extended release) or `other`; other routes have no ceiling but those that
            hold for every route.
    """
    rows = [row for row in read_table("doses") if row["drug"] == drug and _has_form(row, form)]
    found = []
    for row in rows:
        if not _is_for(row, rows, dose, age, weight):
            continue
        factor, reference = _factor(row, dose, age, weight)
        for column, amount in (("max_daily", dose.high), ("max_single", dose.single)):
            if not row[column] or amount is None or factor is None:
                continue
            limit = float(row[column]) / (1000 if row["unit"] == "mcg" else 1)
            if amount * factor > limit * ROUNDING:
                found.append(Excess(row, amount * factor, limit, column == "max_single", reference))
    return max(found, key=lambda e: (e.row["severity"], not e.is_single, e.amount / e.limit), default=None)


def describe(drug: str, excess: Excess, dose: Dose, span: tuple[int, int]) -> Finding:
    """Return the finding of an excess."""
    row, is_single = excess.row, excess.is_single
    per = "/kg" if row["per_kg"] else ""
    when = "at once" if is_single else "a day"
    amount, limit = (_words(mg, row["unit"], per) for mg in (excess.amount, excess.limit))
    message = f"{drug}: up to {amount} {when}; the maximum is {limit} {when}"
    notes = [row["note"]] if row["note"] else []
    notes += [f"weight unknown: {excess.weight:g} kg was assumed for the age"] if excess.weight else []
    message += f" ({'; '.join(notes)})" if notes else ""
    rule, severity = "single_dose" if is_single else "daily_dose", int(row["severity"])
    is_far_above = excess.amount >= FAR_ABOVE * excess.limit and excess.amount / 1000 <= excess.limit * ROUNDING
    if row["unit"] == "mcg" and dose.is_mg and is_far_above:
        rule, severity = "mg_for_micrograms", min(4, severity + 1)
        message += f"; {drug} is given in micrograms: mg may be a mistake for micrograms"
    return make_finding(rule, "dose", severity, message, span, row["source"])


def reference_weights(age: float) -> tuple[float, float]:
    """Return the 3rd and 97th percentile of the weight in kg at an age in years, over both sexes."""
    months = age * 12 + 1e-6
    rows = read_table("reference_weights")
    row = next(row for row in rows if months < float(row["max_months"] or "inf"))
    return float(row["p3_kg"]), float(row["p97_kg"])


def oldest_age(weight: float) -> float | None:
    """Return the highest age in years at which a weight in kg is not below the 3rd percentile; None for adults."""
    rows = [row for row in read_table("reference_weights") if float(row["p3_kg"]) <= weight]
    if not rows:
        return 0.0
    return float(rows[-1]["max_months"]) / 12 - 0.01 if rows[-1]["max_months"] else None


def _has_form(row: dict[str, str], form: str) -> bool:
    if form == "other":
        return row["form"] == "every route"
    return row["form"] != {"oral": "er", "er": "ir"}[form]


def _is_for(
    row: dict[str, str], rows: list[dict[str, str]], dose: Dose, age: float | None, weight: float | None
) -> bool:
    """Return whether a ceiling applies to a person and can be compared with the dose."""
    if row["when"] == "weight unknown" and (weight is not None or dose.per_kg):
        return False
    if dose.per_kg and row["per_kg"]:
        same = [other for other in rows if other["per_kg"] and age is not None and _fits(other, age)]
        if same:
            return row in same
        highest = max(float(other["max_daily"] or 0) for other in rows if other["per_kg"])
        return float(row["max_daily"] or math.inf) >= highest
    if row["when"] == "under 50 kg" and (weight is None or weight >= SMALL):
        return False
    return _fits(row, ADULT if age is None else age)


def _fits(row: dict[str, str], age: float) -> bool:
    low, high = float(row["min_age"]), float(row["max_age"] or "inf")
    is_of_adults = low <= ADULT < high and not row["per_kg"]
    return age < high and (age >= low or is_of_adults)


def _factor(
    row: dict[str, str], dose: Dose, age: float | None, weight: float | None
) -> tuple[float | None, float | None]:
    """Return the factor that brings a dose into the unit of a ceiling, and the reference weight in kg that it uses.
    The factor is None without a weight."""
    if bool(row["per_kg"]) == dose.per_kg:
        return 1.0, None
    if weight:
        return (1 / weight if row["per_kg"] else weight), None
    low, high = reference_weights(age or 0.0)  # of an unknown age the lowest weight there is
    if dose.per_kg:
        return low, low
    return (1 / high, high) if age is not None and age < GROWN else (None, None)


def _words(mg: float, unit: str, per: str) -> str:
    if unit == "mcg" and mg < 10:
        return f"{round(mg * 1000, 1):,.6g} micrograms{per}"
    return f"{round(mg, 2) if mg >= 1 else mg:,.6g} mg{per}"
