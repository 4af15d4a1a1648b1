"""Plots of a sweep: the runs of each configuration, and the metric against each varied key."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.reporting.metric_names import METRICS, is_number, label
from utils.reporting.plots import COLORS, RED, plain

MOST_SHOWN = 30  # configurations
MOST_KEYS = 4
MOST_TICKS = 6  # label every grid value up to this many


def plot_comparison(
    summaries: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    seeds: list[int],
    metric: str,
    chosen: str | None,
    keys: list[str],
    ranges: dict[str, dict[str, Any]],
    path: Path,
) -> None:
    """Plot one point per seed, the means and the first configuration's mean; below, the metric against each key.

    Args:
        summaries: from `summarize`.
        rows: all runs.
        seeds: seeds of the comparison.
        keys: keys of the grid or search; [] for named configurations.
        ranges: key -> `log`, whether its axis is logarithmic.
    """
    shown = summaries[:1] + sorted(summaries[1:], key=lambda row: row["configuration"] != chosen)[: MOST_SHOWN - 1]
    shown = [row for row in summaries if row in shown and row["mean"] is not None]
    heights = [1.1 + 0.34 * len(shown)]  # inches
    panels = [key for key in keys if len({str(row["values"].get(key)) for row in rows}) > 1][:MOST_KEYS]
    rows_of_panels = (len(panels) + 1) // 2
    figure = Figure(figsize=(9, heights[0] + 3.0 * rows_of_panels), layout="constrained")
    grid = figure.add_gridspec(1 + rows_of_panels, 2, height_ratios=heights + [3.0] * rows_of_panels)
    name = label(metric.removeprefix("eval_"))
    direction = METRICS.get(metric.removeprefix("eval_"), ("", None))[1]
    better = f" ({direction} is better)" if direction in ("higher", "lower") else ""

    axes = figure.add_subplot(grid[0, :])
    _plot_points(axes, shown, rows, seeds, metric, chosen)
    axes.set_xlabel(f"{name} on validation{better}")
    for number, key in enumerate(panels):
        place = grid[1 + number // 2, number % 2 if number + 1 < len(panels) or number % 2 else slice(None)]
        log = ranges.get(key, {}).get("log", False)
        _plot_key(figure.add_subplot(place), rows, metric, key, log, name)
    figure.suptitle("Configurations, one point per seed")
    figure.savefig(path, dpi=150)


def _plot_points(
    axes: Axes,
    shown: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    seeds: list[int],
    metric: str,
    chosen: str | None,
) -> None:
    for y, row in enumerate(shown):
        color = RED if row["configuration"] == chosen else COLORS[0]
        for i, seed in enumerate(seeds):
            values = [r["evals"][metric] for r in rows if _is_run(r, row["configuration"], seed) and r["evals"]]
            height = y + 0.3 * ((i + 0.5) / len(seeds) - 0.5)  # same order in every row, to show the pairs
            axes.plot(values, [height] * len(values), "o", color=color, alpha=0.6, ms=5, mew=0)
        sd = row["sd"] or 0
        axes.plot([row["mean"] - sd, row["mean"] + sd], [y, y], color=color, lw=1.2)
        axes.plot([row["mean"]] * 2, [y - 0.28, y + 0.28], color=color, lw=2.5)
    if shown:
        axes.axvline(shown[0]["mean"], color="#444444", ls="--", lw=1, label="mean of the first configuration")
        axes.plot([], [], color=COLORS[0], lw=2.5, label="mean ± 1 sd")
        axes.plot([], [], color=RED, lw=2.5, label="chosen")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9)
    axes.set_yticks(range(len(shown)), [row["configuration"] for row in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    plain(axes, "x")


def _plot_key(axes: Axes, rows: list[dict[str, Any]], metric: str, key: str, log: bool, name: str) -> None:
    """Plot the metric of every finished run against one key, with means if the key has few values."""
    runs = [row for row in rows if row["evals"] and key in row["values"]]
    values, scores = [row["values"][key] for row in runs], np.array([row["evals"][metric] for row in runs])
    numbers = all(is_number(value) for value in values)
    if not numbers:
        values = ["+".join(value) if isinstance(value, list) else str(value) for value in values]
    places = sorted(set(values)) if numbers else list(dict.fromkeys(values))
    x = np.array([value if numbers else places.index(value) for value in values], dtype=float)
    if numbers and log:
        axes.set_xscale("log")
    if not numbers or len(places) <= MOST_TICKS:
        ticks = places if numbers else range(len(places))
        axes.set_xticks(ticks, [f"{place:g}" if numbers else place for place in places])
        axes.minorticks_off()
        means = [scores[x == tick].mean() for tick in ticks]
        axes.plot(ticks, means, "-_" if numbers else "_", color=COLORS[0], lw=1, ms=14, mew=2)
        axes.margins(x=0.1 if numbers else 0.3)
    axes.plot(x, scores, "o", color=COLORS[0], alpha=0.5, ms=5, mew=0)
    axes.set(xlabel=key, ylabel=name)
    plain(axes)


def _is_run(row: dict[str, Any], name: str, seed: int) -> bool:
    return row["configuration"] == name and row["seed"] == seed


def plot_differences(results: dict[str, Any], names: list[str], metrics: list[str], path: Path) -> None:
    """Plot the difference of each run from the first, with 95 % interval, one row per metric and run.

    Args:
        results: `delta_{name}_{metric}` and `..._ci95` for all `names` but the first.
    """
    others = names[1:]
    figure = Figure(figsize=(9, 1.2 + 0.34 * len(metrics) * len(others)), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(others):
        color = COLORS[i % len(COLORS)]
        for row, metric in enumerate(metrics):
            y = row + (i + 0.5) * 0.7 / len(others) - 0.35
            value = results[f"delta_{name}_{metric}"]
            low, high = results[f"delta_{name}_{metric}_ci95"] or (value, value)
            axes.plot([low, high], [y, y], color=color, lw=1.5, marker="|", ms=6)
            axes.plot(value, y, "o", color=color, ms=6, label="" if row else name)
    axes.axvline(0, color="#444444", ls="--", lw=1)
    directions = {m: METRICS.get(m, ("", ""))[1] for m in metrics}
    marks = {m: f"\n({directions[m]} is better)" if directions[m] in ("higher", "lower") else "" for m in metrics}
    axes.set_yticks(range(len(metrics)), [label(m) + marks[m] for m in metrics])
    axes.set_ylim(len(metrics) - 0.5, -0.5)
    axes.set_xlabel(f"difference from {names[0]}, with 95 % interval")
    plain(axes, "x")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)
