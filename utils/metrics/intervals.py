"""95 % intervals and p-values for the metrics in `utils.metrics.statistics`, from what each cluster of rows adds.

Rows of one patient or document are not independent, so the units are clusters. Each metric is computed again without
each cluster (the jackknife; CV3 in MacKinnon, Nielsen and Webb 2023, Cluster-robust inference), and Student's t says
how far that standard error reaches. Of metrics with a smallest and a largest value the interval has Wilson's form
with the effective sample size (Korn and Graubard 1998), which stays inside the range and says something even where
every row is right. `python -m benchmarks.intervals` shows by simulation that this holds its 95 % where bootstrap
intervals do not, and from how many clusters on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy.sparse import csr_array, issparse

from utils.data.splits import MIN_CLUSTERS, effective_number
from utils.metrics.statistics import metric_range, reduce_sums

MOST_GROUPS = 1000  # clusters beyond this many are joined at random: more would only take time
ROUNDING = 1e-12
BLOCK = 2**22  # values per block of sums without one cluster, 32 MB

Clusters = Sequence[Any] | np.ndarray


def evaluate_statistics(statistics: dict[str, Any], clusters: Clusters, prefix: str = "") -> dict[str, Any]:
    """Return each metric as `{prefix}_{name}`, and its 95 % interval as `{prefix}_{name}_ci95`.

    Args:
        statistics: name -> row statistic, [rows, columns].
        clusters: id of the cluster of each row.
        prefix: start of the keys.

    Returns:
        values and intervals. An interval holds its value; it is None with fewer than `MIN_CLUSTERS` clusters of rows
        that count, and where `t_interval` gives none.
    """
    results: dict[str, Any] = {}
    for name, statistic in statistics.items():
        key = f"{prefix}_{name}" if prefix else name
        sums, used, units = cluster_sums(statistic, clusters)
        value, left_out = _jackknife(name, sums)
        results[key], left_out = value, left_out[used]
        if units < MIN_CLUSTERS:
            results[f"{key}_ci95"] = None
        elif name.endswith("perplexity"):  # the exponential of a mean, whose interval it takes over
            loss = t_interval(np.log(value), np.log(left_out), units, (0.0, np.inf))
            results[f"{key}_ci95"] = loss and np.exp(loss).tolist()
        else:
            results[f"{key}_ci95"] = t_interval(value, left_out, units, metric_range(name))
    return results


def paired_difference(
    statistics_a: dict[str, Any], statistics_b: dict[str, Any], clusters: Clusters, prefix: str = ""
) -> dict[str, Any]:
    """Return a - b of two systems on the same rows: `{prefix}_{name}`, `..._ci95` and `..._p`.

    Both systems lose the same cluster at a time, so what makes its rows hard cancels out. p is two-sided and agrees
    with the interval: it is below 0.05 where the interval excludes 0. Both are None with too few clusters, as for
    `evaluate_statistics`.
    """
    results: dict[str, Any] = {}
    for name, statistic in statistics_a.items():
        key = f"{prefix}_{name}" if prefix else name
        sums_a, used_a, units = cluster_sums(statistic, clusters)
        sums_b, used_b, _ = cluster_sums(statistics_b[name], clusters)
        (value_a, left_out_a), (value_b, left_out_b) = _jackknife(name, sums_a), _jackknife(name, sums_b)
        difference, left_out = value_a - value_b, (left_out_a - left_out_b)[used_a | used_b]
        low, high = metric_range(name)
        results[key] = difference
        enough = units >= MIN_CLUSTERS
        results[f"{key}_ci95"] = t_interval(difference, left_out, units, (low - high, high - low)) if enough else None
        results[f"{key}_p"] = t_test(difference, left_out, units, high - low) if enough else None
    return results


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike, clusters: Clusters) -> float | None:
    """Return the p-value of `sign_flip_test` that two systems are correct equally often; None with too few clusters.

    With one row per cluster this is McNemar's (1947) exact test. McNemar's test of single rows is wrong where the rows
    of a cluster move together.
    """
    if count_clusters(clusters) < MIN_CLUSTERS:
        return None
    differences = np.asarray(correct_a, dtype=bool).astype(int) - np.asarray(correct_b, dtype=bool)
    return sign_flip_test(np.bincount(np.unique(clusters, return_inverse=True)[1], differences))


def sign_flip_test(differences: ArrayLike) -> float:
    """Return the exact two-sided p-value that differences, one integer per cluster, are 0 on average.

    In each cluster the systems change places with probability 1/2, all rows at once; p is the probability that the sum
    is then at least as large as found (Fisher 1935).
    """
    sizes = np.asarray(differences).round().astype(int)
    found, total = abs(sizes.sum()), int(np.abs(sizes).sum())
    chance = np.zeros(2 * total + 1)  # of each sum from -total to total
    chance[total] = 1.0
    for size in sizes[sizes != 0]:
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    return float(min(1.0, chance[np.abs(np.arange(-total, total + 1)) >= found].sum()))


def cluster_sums(statistic: Any, clusters: Clusters) -> tuple[Any, np.ndarray, float]:
    """Sum a row statistic over the rows of each cluster.

    Returns:
        sums [clusters, columns]; which clusters have rows that count, bool [clusters]; and their
        `effective_number`. A row counts unless its statistic is zero: those of a rare
        class, or of the answers that a model is sure of, may be in few clusters.
    """
    index = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(index[_any(statistic)], minlength=index.max() + 1).astype(float)
    units = effective_number(sizes)
    if len(sizes) > MOST_GROUPS:
        index = (np.random.default_rng(0).permutation(len(sizes)) % MOST_GROUPS)[index]
    places = (np.ones(len(index)), (index, np.arange(len(index))))
    sums = csr_array(places, shape=(min(len(sizes), MOST_GROUPS), len(index))) @ statistic
    return sums, _any(sums), units


def jackknife(function: Callable[[np.ndarray], float], clusters: Clusters) -> tuple[float, np.ndarray, float]:
    """Return what a metric that is no function of sums, such as an area under a curve, is for all rows, without each
    cluster, and the effective number of clusters: the arguments of `t_interval`.

    Args:
        function: from the indices of rows to a value.
        clusters: id of the cluster of each row.
    """
    index = np.unique(clusters, return_inverse=True)[1]
    _, _, units = cluster_sums(np.ones((len(index), 1)), clusters)
    if index.max() + 1 > MOST_GROUPS:
        index = (np.random.default_rng(0).permutation(index.max() + 1) % MOST_GROUPS)[index]
    left_out = [function(np.flatnonzero(index != group)) for group in range(index.max() + 1)]
    return function(np.arange(len(index))), np.array(left_out), units


def count_clusters(clusters: Clusters) -> int:
    """Return the number of clusters of rows."""
    return len(np.unique(clusters))


def t_interval(
    value: float, left_out: np.ndarray, units: float, limits: tuple[float, float] = (-np.inf, np.inf)
) -> list[float] | None:
    """Return the 95 % interval of a value.

    Args:
        value: the value of all rows.
        left_out: its values without each cluster.
        units: effective number of clusters, from `cluster_sums`.
        limits: smallest and largest possible value.

    Returns:
        limits of the interval: in Wilson's form between two finite limits, on the logarithmic scale above 0, symmetric
        otherwise. None where all clusters agree on a value between the limits that is not 0: how far others are from
        it cannot be told.
    """
    if not np.isfinite(value) or not np.isfinite(left_out).all():
        return None
    low, high = limits
    reach = special.stdtrit(units - 1, 0.975)
    if np.isfinite(limits).all() and low <= value <= high:
        share, error = (value - low) / (high - low), _standard_error(left_out) / (high - low)
        variance = share * (1 - share)
        if variance < ROUNDING:  # all right or all wrong: as if each cluster were one row
            k = reach**2 / units
        else:
            k = (reach * error) ** 2 / variance
        middle, half = (share + k / 2) / (1 + k), np.sqrt(k * variance + k**2 / 4) / (1 + k)
        found = low + (high - low) * np.clip([middle - half, middle + half], 0, 1)
    elif low == 0 and value > 0 and (left_out > 0).all():
        found = value * np.exp(np.array([-1, 1]) * reach * _standard_error(np.log(left_out)))
    else:
        found = np.clip(value + np.array([-1, 1]) * reach * _standard_error(left_out), low, high)
    if found[1] - found[0] < ROUNDING and (value != 0 or low == 0):  # a count of 0 in each cluster may have any bound
        return None
    return [float(min(found[0], value)), float(max(found[1], value))]  # rounding


def t_test(difference: float, left_out: np.ndarray, units: float, width: float) -> float | None:
    """Return the two-sided p-value of a difference, which is below 0.05 where its `t_interval` excludes 0; `width` is
    the distance between the smallest and the largest value of the metric, and the other arguments are as there."""
    if not np.isfinite(difference) or not np.isfinite(left_out).all():
        return None
    if difference == 0:
        return 1.0
    error = _standard_error(left_out)
    flips = 2.0 ** (1 - len(left_out))  # no test of clusters can give less
    if error < ROUNDING:
        return flips
    shape = np.sqrt(1 - (difference / width) ** 2) if np.isfinite(width) and abs(difference) < width else 1.0
    return float(max(flips, 2 * special.stdtr(units - 1, -abs(difference) * shape / error)))


def _jackknife(name: str, sums: Any) -> tuple[float, np.ndarray]:
    """Return the metric of all clusters, and without each of them."""
    total = np.asarray(sums.sum(axis=0), dtype=float)
    step = max(1, BLOCK // len(total))
    left_out = [np.zeros(0)]
    for start in range(0, sums.shape[0], step):
        block = sums[start : start + step]
        left_out.append(reduce_sums(name, total - (block.toarray() if issparse(block) else block)))
    return float(reduce_sums(name, total)), np.concatenate(left_out)


def _any(values: Any) -> np.ndarray:
    """Return which rows of an array, dense or sparse, are not all zero."""
    return (values.count_nonzero(axis=1) if issparse(values) else np.count_nonzero(values, axis=1)) > 0


def _standard_error(left_out: np.ndarray) -> float:
    n = len(left_out)
    return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
