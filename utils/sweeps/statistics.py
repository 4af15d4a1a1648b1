"""Select the best configuration and test it against the first. The unit of analysis is the seed: runs with the same
seed form pairs, and the spread is that across seeds, not across validation rows."""

from typing import Any

import numpy as np
from scipy import special, stats

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 1000  # upper bound for `seeds_needed`


def compare(values: np.ndarray) -> list[dict[str, Any]]:
    """Compare each configuration with the first.

    Args:
        values: [configurations, seeds], NaN for a run without a result.

    Returns:
        one row per configuration with `seeds` (number of results), `mean` and `sd` (sample; None with one seed). All
        rows but the first add `pairs` (seeds with both results), `difference` (of the means over the pairs), `ci95`
        (Student's t), `p` (two-sided paired t-test) and `p_holm` (Holm 1979). They are None if there is nothing to
        test: fewer than 2 pairs, or the same difference for every seed.
    """
    rows: list[dict[str, Any]] = []
    for own in values:
        found = own[np.isfinite(own)]
        row = {"seeds": len(found), "mean": float(found.mean()) if len(found) else None}
        rows.append(row | {"sd": float(found.std(ddof=1)) if len(found) > 1 else None})
    for row, own in zip(rows[1:], values[1:], strict=True):
        row |= paired_test(own - values[0])
    tested = [row for row in rows[1:] if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    return rows


def paired_test(differences: np.ndarray) -> dict[str, Any]:
    """Paired t-test on one difference per seed; NaN marks a missing pair. See `compare`."""
    found = differences[np.isfinite(differences)]
    n, empty = len(found), {"sd_difference": None, "ci95": None, "p": None, "p_holm": None}
    if n == 0:
        return {"pairs": 0, "difference": None} | empty
    mean = float(found.mean())
    sd = float(found.std(ddof=1)) if n > 1 else 0.0
    if n < 2 or sd <= 1e-12 * max(1.0, abs(mean)):  # equal up to rounding: the seeds do not vary
        return {"pairs": n, "difference": mean} | empty
    error = sd / np.sqrt(n)
    half = float(special.stdtrit(n - 1, 0.975) * error)
    p = float(2 * special.stdtr(n - 1, -abs(mean) / error))
    return {"pairs": n, "difference": mean, "sd_difference": sd, "ci95": [mean - half, mean + half], "p": p}


def holm(p_values: list[float]) -> list[float]:
    """Adjust p-values to control the family-wise error rate (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()


def choose(rows: list[dict[str, Any]], n_seeds: int, maximize: bool) -> int | None:
    """Return the index of the best mean among configurations with a result for every seed; ties go to the first."""
    whole = [i for i, row in enumerate(rows) if row["seeds"] == n_seeds]
    sign = 1 if maximize else -1
    return max(whole, key=lambda i: (sign * rows[i]["mean"], -i), default=None)


def is_winner(row: dict[str, Any], maximize: bool) -> bool:
    """Return whether a configuration is significantly better than the first."""
    better = row.get("difference") is not None and (row["difference"] > 0) == maximize
    return better and row["p_holm"] is not None and row["p_holm"] < ALPHA


def seeds_needed(difference: float, sd: float, comparisons: int) -> int | None:
    """Return the number of seeds that gives a paired t-test the power `POWER`; None above `MOST_SEEDS`.

    Uses the noncentral t distribution (Cohen 1988) at the level of Holm's first step, `ALPHA` / `comparisons`.

    Args:
        difference: true difference of the means.
        sd: standard deviation of the per-seed differences.
        comparisons: number of configurations compared with the first.
    """
    n = np.arange(2, MOST_SEEDS + 1)
    bound = stats.t.isf(ALPHA / comparisons / 2, n - 1)
    shift = abs(difference) / sd * np.sqrt(n)
    power = stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)
    enough = np.flatnonzero(power >= POWER)
    return int(n[enough[0]]) if len(enough) else None
