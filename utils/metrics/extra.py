"""Further metrics of the library `evaluate`, for every system in the table of a run.

A metric that is a mean over rows gets an interval and paired differences like the others; one that is not, such as a
corpus score, has its value alone.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.extra_metrics import first_line, load_metric, scores
from utils.metrics.intervals import Clusters, evaluate_statistics, paired_difference

if TYPE_CHECKING:
    from evaluate import EvaluationModule

logger = logging.getLogger(__name__)
TOLERANCE = 1e-6  # of a metric that is a mean over rows, from the mean of its values for single rows


def compare_extra(
    names: Sequence[str] | None,
    systems: Mapping[str, Any],
    references: Any,
    clusters: Clusters,
) -> dict[str, Any]:
    """Return further metrics of all systems, and their paired differences from the fine-tuned model.

    Args:
        names: `extra_metrics` of the run, which has loaded them, so their code is trusted.
        systems: prefix of the keys, `test` for the fine-tuned model -> predictions, one per row.
        references: one per row, each a text or a class as int.
        clusters: id of the cluster of each row.

    Returns:
        `{prefix}_extra_{metric}`, with `..._ci95` and `delta_{prefix}_...` for means over rows. A metric that fails is
        left out with a warning.
    """
    results: dict[str, Any] = {}
    for name in names or ():
        try:  # hours of training are not lost to the code of a metric
            metric, short = load_metric(name), Path(name).stem
            values = {prefix: _values(metric, predictions, references) for prefix, predictions in systems.items()}
        except Exception as error:
            logger.warning("`extra_metrics`: %s failed, and the report has nothing of it: %s", name, first_line(error))
            continue
        for key in values["test"]:
            full = f"extra_{short}" if key == short else f"extra_{short}_{key}"
            rows = {prefix: of_system[key][1] for prefix, of_system in values.items()}
            statistics = {
                prefix: {full: np.stack([own, np.ones_like(own)], axis=1)}
                for prefix, own in rows.items()
                if own is not None
            }
            if len(statistics) < len(rows):
                results |= {f"{prefix}_{full}": of_system[key][0] for prefix, of_system in values.items()}
                continue
            for prefix, statistic in statistics.items():
                results |= evaluate_statistics(statistic, clusters, prefix)
                if prefix != "test":
                    results |= paired_difference(statistics["test"], statistic, clusters, f"delta_{prefix}")
    return results


def _values(
    metric: "EvaluationModule", predictions: Sequence[Any], references: Sequence[Any]
) -> dict[str, tuple[float, np.ndarray | None]]:
    """Return for each number of a metric its value for all rows and, if that is their mean, for each row."""
    whole = scores(metric, predictions, references)
    singles = [scores(metric, [p], [r]) for p, r in zip(predictions, references, strict=True)]
    found: dict[str, tuple[float, np.ndarray | None]] = {}
    for key, value in whole.items():
        rows = np.array([single.get(key, math.nan) for single in singles])
        is_mean = abs(rows.mean() - value) <= TOLERANCE * max(1.0, abs(value))
        found[key] = value, rows if is_mean else None
    return found
