"""Does an export answer like the trained model? Logits, answers and metrics of the same rows say so."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from utils.arguments import UserError
from utils.metrics.intervals import Clusters, evaluate_statistics, paired_difference
from utils.reporting.metric_names import METRICS, label
from utils.reporting.tables import table

MAX_LOGIT_DIFFERENCE = 1e-3  # in float32, between two orders of the same sums; SmolLM2's differ by 1e-4
UNCOUNTED = ("perplexity", "uncalibrated")  # as the loss, on a scale of its own; not served


def compare(
    trained: Mapping[str, Any],
    export: Mapping[str, Any],
    statistics: tuple[Mapping[str, Any], Mapping[str, Any]],
    clusters: Clusters,
) -> dict[str, Any]:
    """Compare the answers of a trained model and of its export to the same rows.

    Args:
        trained, export: from `answer_rows`; `logits` may be missing where a runtime gives none.
        statistics: row statistics of both, from `measure`.
        clusters: cluster of each row.

    Returns:
        `rows`; `equal_answers`, their number; of texts `equal_first_tokens`, the share of the first tokens of the
        trained model's answers that the export has, too; `max_logit_difference`, None without logits; and for each
        metric that has a better direction its values as `trained_<name>` and `export_<name>`, and `delta_<name>`, the
        export minus the trained model, with the interval of that paired difference.
    """
    equal = sum(a == b for a, b in zip(trained["answers"], export["answers"], strict=True))
    results: dict[str, Any] = {"rows": len(trained["answers"]), "equal_answers": equal, "max_logit_difference": None}
    if "first_tokens" in export:
        results["equal_first_tokens"] = _equal_share(trained["first_tokens"], export["first_tokens"])
    if "logits" in export:  # another prompt has another number of them
        alike = trained["logits"].shape == export["logits"].shape
        results["max_logit_difference"] = (
            float(np.abs(trained["logits"] - export["logits"]).max()) if alike else float("inf")
        )
    both = [
        {name: own[name] for name in statistics[0].keys() & statistics[1].keys() if direction(name)}
        for own in statistics
    ]
    results |= evaluate_statistics(both[0], clusters, "trained") | evaluate_statistics(both[1], clusters, "export")
    return results | paired_difference(both[1], both[0], clusters, "delta")


def _equal_share(trained: Sequence[list[int]], export: Sequence[list[int]]) -> float:
    """Return the share of tokens of some texts that others have at the same place, too."""
    equal = sum(a == b for old, new in zip(trained, export, strict=True) for a, b in zip(old, new, strict=False))
    return equal / max(1, sum(map(len, trained)))


def direction(name: str) -> int:
    """Return 1 for a metric of which more is better, -1 for one of which less is, and 0 for another."""
    if name.startswith(UNCOUNTED):
        return 0
    return {"higher": 1, "lower": -1}.get(METRICS.get(name, ("", ""))[1], 0)


def faults(results: Mapping[str, Any], exact: bool, max_loss: float) -> list[str]:
    """Return what an export does otherwise than its trained model; empty if it is proven to answer like it.

    Args:
        results: from `compare`.
        exact: whether the export has to repeat every logit and every answer.
        max_loss: how much worse a metric may be: a loss counts from where its interval excludes 0 by more than this.
            With too few clusters for an interval the loss itself counts.
    """
    found = []
    logits, rows = results["max_logit_difference"], results["rows"]
    if exact and not logits <= MAX_LOGIT_DIFFERENCE:  # NaN, too
        found.append(f"its logits differ by up to {logits:.2g}, and {MAX_LOGIT_DIFFERENCE:g} is allowed")
    if exact and results["equal_answers"] < rows:
        found.append(f"{rows - results['equal_answers']} of {rows} answers differ")
    for key, value in results.items():
        name = key.removeprefix("delta_")
        if name == key or not direction(name):
            continue
        low, high = results[f"{key}_ci95"] or (value, value)
        least = -high if direction(name) == 1 else low  # the smallest loss that the rows leave possible
        if not least <= max_loss:
            found.append(f"its {label(name)} is {_change(results, name)} and `max_loss` is {max_loss:g}")
    return found


def check(results: Mapping[str, Any], exact: bool, max_loss: float, name: str) -> None:
    """Raise a UserError for an export that does not answer like its trained model."""
    if found := faults(results, exact, max_loss):
        raise UserError(f"the export of `model` {name} is broken and was deleted: {'; '.join(found[:3])}.")


def _change(results: Mapping[str, Any], name: str) -> str:
    return f"{results[f'export_{name}']:.4g} instead of {results[f'trained_{name}']:.4g}"


def export_table(results: Mapping[str, Any]) -> str:
    """Return a table of the answers and metrics of trained model and export."""
    difference = results["max_logit_difference"]
    lines = [
        ["equal answers", "-", f"{results['equal_answers']} of {results['rows']}", "-"],
        *(
            [["equal first 32 tokens", "-", f"{100 * results['equal_first_tokens']:.1f}%", "-"]]
            if "equal_first_tokens" in results
            else []
        ),
        ["largest difference of a logit", "-", "-" if difference is None else f"{difference:.2g}", "-"],
    ]
    for key, value in results.items():
        name = key.removeprefix("delta_")
        if name != key and direction(name):
            interval = results[f"{key}_ci95"]
            reach = f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else ""
            ends = [f"{results[f'{system}_{name}']:.4f}" for system in ("trained", "export")]
            lines.append([label(name), *ends, f"{value:+.4f}{reach}"])
    return table(["", "trained model", "export", "difference, 95% interval"], lines)
