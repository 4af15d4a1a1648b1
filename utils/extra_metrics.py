"""Further metrics by name, from the library `evaluate`: `extra_metrics: [meteor]` in a recipe.

`utils.metrics.extra` computes them for every system in the table of a run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.arguments import UserError

if TYPE_CHECKING:
    from evaluate import EvaluationModule


def check_extra_metrics(names: Sequence[str] | None, trust_remote_code: bool, examples: Sequence[Any]) -> None:
    """Load metrics, and let each score examples, so that a metric of another task is noticed before any work.

    Args:
        names: folders of metrics, or names on the Hub, such as `meteor`.
        trust_remote_code: run the code of a metric on the Hub.
        examples: predictions of the task: texts, or the numbers of all classes.

    Raises:
        UserError: a metric cannot be loaded, its code is on the Hub and not trusted, two have one name, or one scores
            no such predictions.
    """
    names = names or ()
    for i, name in enumerate(names):
        if not Path(name).exists() and not trust_remote_code:
            raise UserError(
                f"`extra_metrics` has {name}, which is no folder, and a metric on the Hub is code that runs here: "
                "read it, and set `trust_remote_code: true`, or give the folder of a copy."
            )
        metric = load_metric(name)
        if Path(name).stem in [Path(other).stem for other in names[:i]]:
            raise UserError(f"`extra_metrics` has two metrics called {Path(name).stem}: drop one.")
        try:
            found = scores(metric, examples, examples)
        except Exception as error:  # whatever the code of the metric raises
            raise UserError(
                f"`extra_metrics`: {name} does not score the predictions of this task ({first_line(error)}): drop it."
            ) from error
        if not found:
            raise UserError(f"`extra_metrics`: {name} returns no number: drop it.")


def load_metric(name: str) -> "EvaluationModule":
    """Load a metric; its code is trusted.

    Raises:
        UserError: it cannot be loaded.
    """
    import evaluate  # here: few recipes have such metrics

    try:
        return evaluate.load(name, keep_in_memory=True)
    except Exception as error:  # whatever the code of the metric raises
        raise UserError(f"`extra_metrics`: {name} cannot be loaded ({first_line(error)}).") from error


def scores(metric: "EvaluationModule", predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """Return the numbers of a metric; a list with one number per row counts as its mean."""
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    if getattr(features["predictions"], "dtype", None) == "string":  # such as `exact_match`, of classes
        predictions, references = [str(p) for p in predictions], [str(r) for r in references]
    if hasattr(features["references"], "feature"):  # a list of references per row
        references = [[reference] for reference in references]
    found = metric.compute(predictions=list(predictions), references=list(references)) or {}
    numbers = {key: np.ravel(value) for key, value in found.items() if not isinstance(value, str | dict | bool)}
    return {
        key: float(np.mean(value))
        for key, value in numbers.items()
        if value.dtype.kind in "iuf" and len(value) in (1, len(predictions))
    }


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
