"""95 % intervals and p-values for the metrics in `utils.metrics.statistics`, by resampling rows or clusters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from utils.metrics.statistics import CLASS_METRICS, reduce_sums

INTERVAL = (0.025, 0.975)


def resampling_weights(
    n_rows: int, seed: int, clusters: Sequence[int] | None = None, n_resamples: int = 1000
) -> np.ndarray:
    """Return how often each bootstrap resample contains each row, float32 [n_resamples, n_rows] (Efron 1979).

    With `clusters`, one id per row, whole clusters are drawn: rows of one document or patient are not independent, and
    resampling single rows would give intervals that are too narrow.
    """
    rng = np.random.default_rng(seed)
    cluster_of_row = np.arange(n_rows) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    n_clusters = cluster_of_row.max() + 1
    weights = np.empty((n_resamples, n_rows), dtype=np.float32)
    for resample in weights:  # one by one, to avoid a second array of this size
        drawn = rng.integers(n_clusters, size=n_clusters)
        resample[:] = np.bincount(drawn, minlength=n_clusters)[cluster_of_row]
    return weights


def evaluate_statistics(statistics: dict[str, np.ndarray], weights: np.ndarray, prefix: str = "") -> dict[str, Any]:
    """Return each metric as `{prefix}_{name}`, and its 95 % percentile bootstrap interval as `{prefix}_{name}_ci95`.

    Resamples of `CLASS_METRICS` are shifted so that their mean equals the metric (bias correction, Efron 1979).
    Resamples with a zero denominator are excluded from the interval, which is None if all are.
    """
    results: dict[str, Any] = {}
    for name, statistic in statistics.items():
        key = f"{prefix}_{name}" if prefix else name
        results[key], resampled = _values(name, statistic, weights)
        results[f"{key}_ci95"] = _interval(resampled)
    return results


def paired_difference(
    statistics_a: dict[str, np.ndarray], statistics_b: dict[str, np.ndarray], weights: np.ndarray, prefix: str = ""
) -> dict[str, Any]:
    """Return a - b of two systems on the same rows: `{prefix}_{name}`, `..._ci95` and `..._p` (Koehn 2004).

    Both systems use the same resamples, so the difficulty of a row cancels out. p is two-sided: twice the smaller
    share of resamples at or beyond 0, with 1 added to both counts so that it is never 0 (Davison and Hinkley 1997). It
    agrees with the interval: p < 0.05 if the interval excludes 0, up to one resample.
    """
    results: dict[str, Any] = {}
    for name, statistic in statistics_a.items():
        key = f"{prefix}_{name}" if prefix else name
        value_a, resampled_a = _values(name, statistic, weights)
        value_b, resampled_b = _values(name, statistics_b[name], weights)
        differences = resampled_a - resampled_b
        differences = differences[np.isfinite(differences)]
        smaller = min((differences <= 0).sum(), (differences >= 0).sum())
        results[key] = value_a - value_b
        results[f"{key}_ci95"] = _interval(differences)
        results[f"{key}_p"] = float(min(1, 2 * (smaller + 1) / (len(differences) + 1)))
    return results


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Return the exact two-sided p-value that two systems are correct equally often (McNemar 1947)."""
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _values(name: str, statistic: Any, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the metric of all rows and of each resample, in blocks, since a product may copy weights as float64."""
    sums = np.concatenate([block @ statistic for block in np.array_split(weights, 10)])
    value, resampled = float(reduce_sums(name, statistic.sum(axis=0, dtype=float))), reduce_sums(name, sums)
    if name.endswith(CLASS_METRICS) and len(weights) > 1:
        # Resamples miss some rare classes, so their macro mean covers other classes. With hundreds of classes it was
        # below the metric in every resample, and the interval excluded the metric.
        resampled = np.clip(resampled - (np.nanmean(resampled) - value), -1, 1)
    return value, resampled


def _interval(resampled: np.ndarray) -> list[float] | None:
    finite = resampled[np.isfinite(resampled)]
    return np.quantile(finite, INTERVAL).tolist() if len(finite) else None
