"""Every unit that is recognized has an amount."""

import re

import pytest

from utils.safety import check_response
from utils.safety.amounts import AMOUNT, UNIT, in_mg

SPELLED = [
    f"{scale}{gram}{s}" for scale in ("", "milli", "micro") for gram in ("gram", "gramm", "grame", "gramme")
    for s in ("", "s")
]  # fmt: skip
SHORT = ["mcg", "mcgs", "µg", "μg", "ug", "mg", "mgs", "gm", "g"]


@pytest.mark.parametrize("unit", [*SPELLED, *SHORT, *(unit.upper() for unit in SPELLED)])
def test_a_unit_that_is_read_has_an_amount(unit):
    assert re.fullmatch(UNIT, unit, re.IGNORECASE)
    factor = {"mi": {"l": 1.0, "c": 1e-3}.get(unit.lower()[2:3]), "mc": 1e-3, "mg": 1.0}.get(unit.lower()[:2], 1e3)
    factor = 1e-3 if unit in ("µg", "μg", "ug") else factor
    assert in_mg(2, unit) == 2 * factor
    assert AMOUNT.search(f"take 2 {unit} a day")


def test_a_dose_in_grams_is_checked_however_they_are_spelled():
    found = [check_response(f"Take 10 {unit} of paracetamol a day.") for unit in ("grams", "gramms", "grammes")]
    assert found[0] and all([f["rule"] for f in own] == [f["rule"] for f in found[0]] for own in found)
