"""Which 95 % interval holds its 95 %, and which test its 5 %, with few clusters of rows.

    python -m benchmarks.intervals

Draws test sets of 2 to 100 clusters, in which rows of a cluster are alike, for two systems that are equally good, and
counts how often the interval of a metric holds its true value, the interval of the difference holds 0, and a test
calls the systems different. Clusters have 1, 5 or 16 rows each, sizes of a log-normal distribution, or one of them has
half of the rows. Writes results/intervals.json, from which docs/evaluation.md takes its table and
`utils.metrics.intervals` the method and `MIN_CLUSTERS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special
from scipy.stats import binomtest

from utils.json_files import write_json
from utils.metrics import intervals
from utils.metrics.statistics import reduce_sums

SETS, RESAMPLES = 500, 300  # of 500 intervals a share of 0.95 has a standard error of 0.01
CLUSTERS = (2, 3, 5, 8, 10, 15, 20, 30, 50, 100)
SIZES = ("1 row", "5 rows", "16 rows", "unequal", "one has half")
METRICS = {"accuracy 0.7": "accuracy", "accuracy 0.94": "accuracy", "ROUGE-L": "rougeL", "macro F1": "macro_f1"}
CLASSES = np.array([0.45, 0.3, 0.15, 0.1])
Metric = Callable[[np.ndarray], np.ndarray]


def cluster_sizes(n: int, sizes: str, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of each of n clusters."""
    if sizes == "unequal":
        return np.maximum(1, rng.lognormal(1.2, 1.0, n).round()).astype(int)
    if sizes == "one has half":
        return np.array([5 * max(1, n - 1), *[5] * (n - 1)])
    return np.full(n, int(sizes.split()[0]))


def draw(
    metric: str, sizes: str, n: int, sets: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sums of two systems over each cluster, [sets, clusters, 2 x columns], its rows, [sets, clusters], and
    those that only one of them has right, int [sets, clusters, 2].

    A cluster is hard or easy for both systems, and suits one of them more than the other.
    """
    rows = np.concatenate([cluster_sizes(n, sizes, rng) for _ in range(sets)])
    cluster = np.repeat(np.arange(len(rows)), rows)
    hardness, total = rng.normal(0, 0.9, len(rows)), len(cluster)
    if metric == "macro F1":
        true = _choose(rng.dirichlet(6 * CLASSES, len(rows))[cluster], rng)
    columns, first = [], []
    for _ in range(2):
        ease = hardness + rng.normal(0, 0.7, len(rows))
        if metric == "ROUGE-L":
            mean = special.expit(0.8 * ease - 0.6)[cluster]
            values = [rng.beta(3 * mean, 3 * (1 - mean)) * (rng.random(total) > 0.1), np.ones(total)]
        else:
            right = rng.random(total) < special.expit(ease + (3.4 if metric == "accuracy 0.94" else 1.1))[cluster]
            values = [right, np.ones(total)]
            if metric == "macro F1":
                guess = np.where(right, true, _choose(np.broadcast_to(CLASSES, (total, len(CLASSES))), rng))
                values = [(true == k) & (guess == k) for k in range(4)]
                values += [guess == k for k in range(4)] + [true == k for k in range(4)]
        columns += [np.bincount(cluster, value, len(rows)) for value in values]
        first.append(values[0].astype(bool))
    a, b = first
    only = np.stack([np.bincount(cluster, x & ~y, len(rows)) for x, y in ((a, b), (b, a))], axis=1).astype(int)
    return np.stack(columns, axis=1).reshape(sets, n, -1), rows.reshape(sets, n), only.reshape(sets, n, 2)


def _choose(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (shares.cumsum(axis=1) < rng.random((len(shares), 1))).sum(axis=1).clip(0, shares.shape[1] - 1)


def bootstrap_intervals(sums: np.ndarray, metric: Metric, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the percentile, BCa and studentized bootstrap intervals (Davison and Hinkley 1997), each [sets, 2]."""
    n = sums.shape[1]
    total, weights = sums.sum(axis=1), rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    value, drawn = metric(total), weights @ sums
    resampled = metric(drawn)
    left_out = metric(total[:, None] - sums)
    below = ((resampled < value[:, None]).mean(axis=1) + (resampled <= value[:, None]).mean(axis=1)) / 2
    bias = special.ndtri(np.clip(below, 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES))
    away = np.nanmean(left_out, axis=1, keepdims=True) - left_out
    skew = np.nansum(away**3, axis=1) / (6 * np.maximum(np.nansum(away**2, axis=1), 1e-300) ** 1.5)
    z = bias[:, None] + special.ndtri([0.025, 0.975])
    places = special.ndtr(bias[:, None] + z / (1 - skew[:, None] * z))
    spread = _delta_error(drawn, weights, sums, metric)
    own = _delta_error(total[:, None], np.ones((1, n)), sums, metric)[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = np.where(spread > 0, (resampled - value[:, None]) / spread, np.nan)
    found = {"percentile": [], "BCa": [], "studentized": []}
    for i in range(len(sums)):
        known, pivot = resampled[i][np.isfinite(resampled[i])], pivots[i][np.isfinite(pivots[i])]
        found["percentile"].append(np.quantile(known, (0.025, 0.975)))
        found["BCa"].append(np.quantile(known, np.nan_to_num(places[i], nan=0.5).clip(0, 1)))
        high, low = np.quantile(pivot, (0.025, 0.975)) if len(pivot) else (0, 0)
        found["studentized"].append([value[i] - low * own[i], value[i] - high * own[i]])
    return {name: np.array(limits) for name, limits in found.items()}


def _delta_error(drawn: np.ndarray, weights: np.ndarray, sums: np.ndarray, metric: Metric) -> np.ndarray:
    """Return the standard error of the metric by the delta method, with a numeric gradient: [sets, resamples]."""
    n, step = sums.shape[1], 1e-4
    influence = np.zeros((*drawn.shape[:2], n))
    for k in range(sums.shape[2]):
        shift = np.eye(sums.shape[2])[k] * step
        slope = np.nan_to_num((metric(drawn + shift) - metric(np.maximum(drawn - shift, 0))) / (2 * step))
        influence += slope[:, :, None] * sums[:, None, :, k]
    return np.sqrt((weights * influence**2).sum(axis=2) * n / (n - 1))


def our_intervals(
    sums: np.ndarray, rows: np.ndarray, metric: Metric, limits: tuple[float, float]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return three intervals from the jackknife of clusters, each [sets, 2], and the p-value of the last, [sets].

    `t`: value +- t x standard error. `t, Wilson`: `t_interval` with the number of clusters. `t, Wilson, effective`:
    with their effective number, as `evaluate_statistics` does.
    """
    total, effective = sums.sum(axis=1), rows.sum(axis=1) ** 2 / (rows**2).sum(axis=1)
    values, left_out = metric(total), metric(total[:, None] - sums)
    found: dict[str, list] = {"t": [], "t, Wilson": [], "t, Wilson, effective": []}
    p = []
    for value, own, units in zip(values, left_out, effective, strict=True):
        n = float(len(own))
        for name, arguments in zip(found, ((n,), (n, limits), (max(units, 1.01), limits)), strict=True):
            found[name].append(intervals.t_interval(value, own, *arguments) or (value, value))
        p.append(intervals.t_test(value, own, max(units, 1.01), limits[1] - limits[0]) or 1.0)
    return {name: np.array(own) for name, own in found.items()}, np.array(p)


def rejected(only: np.ndarray) -> dict[str, float]:
    """Return how often tests of two accuracies reject at 5 % though the systems are equally good, from the rows of
    each cluster that only the first and only the second has right, [sets, clusters, 2]."""
    rows = [binomtest(a, a + b).pvalue if a + b else 1.0 for a, b in only.sum(axis=1).tolist()]
    clusters = [intervals.sign_flip_test(own) for own in only[:, :, 0] - only[:, :, 1]]
    return {"McNemar, rows": _below(rows), "exact, clusters": _below(clusters)}


def _below(p_values: Any) -> float:
    return float((np.asarray(p_values) < 0.05).mean())


def measure(metric: str, sizes: str, n: int, truth: float) -> dict[str, Any]:
    """Return the shares of a cell of the table."""
    rng, name = np.random.default_rng([n, SIZES.index(sizes), list(METRICS).index(metric)]), METRICS[metric]
    sums, rows, only = draw(metric, sizes, n, SETS, rng)
    half = sums.shape[2] // 2

    def one(x: np.ndarray) -> np.ndarray:
        return reduce_sums(name, x)

    def both(x: np.ndarray) -> np.ndarray:
        return reduce_sums(name, x[..., :half]) - reduce_sums(name, x[..., half:])

    cell: dict[str, Any] = {"metric": metric, "sizes": sizes, "clusters": n}
    cell["effective_clusters"] = float((rows.sum(axis=1) ** 2 / (rows**2).sum(axis=1)).mean())
    values, _ = our_intervals(sums[:, :, :half], rows, one, (0.0, 1.0))
    differences, p = our_intervals(sums, rows, both, (-1.0, 1.0))
    if sizes in ("5 rows", "unequal"):
        parts = np.array_split(np.arange(SETS), 20)  # a block of resamples at a time
        for found, columns, of in ((values, half, one), (differences, 2 * half, both)):
            blocks = [bootstrap_intervals(sums[part, :, :columns], of, rng) for part in parts]
            found |= {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    cell["value"] = {key: _share(limits, truth) for key, limits in values.items()}
    cell["difference"] = {key: _share(limits, 0.0) for key, limits in differences.items()}
    cell["rejected"] = {"t": _below(p)} | (rejected(only) if name == "accuracy" else {})
    return cell


def _share(limits: np.ndarray, truth: float) -> float:
    return float(((limits[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= limits[:, 1])).mean())


def main() -> None:
    cells = []
    for metric, name in METRICS.items():
        for sizes in SIZES:
            sums, *_ = draw(metric, sizes, 2000, 20, np.random.default_rng(0))
            truth = float(reduce_sums(name, sums[:, :, : sums.shape[2] // 2].sum(axis=(0, 1))))
            for n in CLUSTERS:
                cells.append(measure(metric, sizes, n, truth))
                print(cells[-1], flush=True)
    about = {"sets": SETS, "resamples": RESAMPLES, "min_clusters": intervals.MIN_CLUSTERS}
    write_json(
        Path("benchmarks/results/intervals.json"),
        about | {"cells": cells, "command": "python -m benchmarks.intervals"},
    )


if __name__ == "__main__":
    main()
