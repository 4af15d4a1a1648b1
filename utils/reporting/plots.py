"""The plots of every report, loss curve and metrics of all systems, and what the other plots share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from utils.reporting.headline import best_baseline, headline_metrics
from utils.reporting.metric_names import METRICS, is_number, label, system_names
from utils.reporting.tables import format_number

RED = "#D55E00"  # marks what to look at
# Okabe-Ito palette, safe for color blindness
COLORS = ("#0072B2", "#8C8C8C", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", RED, "#F0E442")
STYLES = {"tuned": ("D", COLORS[0]), "best": ("s", RED), "other": ("o", "#444444")}  # marker and color


def plot_loss(history: list[dict[str, Any]], path: Path) -> bool:
    """Plot training and validation loss over steps. Return False if there is nothing to plot.

    Args:
        history: `log_history` of `trainer_state.json`.
        path: file to write.
    """
    train = [(row["step"], row["loss"]) for row in history if is_number(row.get("loss"))]
    validation = [(row["step"], row["eval_loss"]) for row in history if is_number(row.get("eval_loss"))]
    if not train and not validation:
        return False
    figure, axes = new_figure(8, 4.5)
    if train:
        marker = "o" if len(train) < 40 else ""
        axes.plot(*zip(*train, strict=True), color=COLORS[0], lw=1.5, marker=marker, ms=4, label="training")
    if validation:
        axes.plot(*zip(*validation, strict=True), color=RED, lw=2, marker="s", ms=5, label="validation")
        step, low = min(validation, key=lambda point: point[1])
        axes.axvline(step, color=RED, lw=1, ls=":", label=f"lowest validation loss: {low:.3f} at step {step}")
    axes.set(xlabel="step", ylabel="mean loss per target token or row", title="Loss during training")
    axes.grid(alpha=0.3)
    axes.legend()
    return save(figure, path)


def plot_metrics(results: dict[str, Any], path: Path) -> bool:
    """Plot each headline metric of every system as a dot with its 95% interval, one panel per metric.

    Shape and color tell the fine-tuned model, the best baseline and the others apart, also in black and white. Return
    False if there is nothing to plot.
    """
    metrics, names = headline_metrics(results), system_names(results)
    if not metrics:
        return False
    figure = Figure(figsize=(9, 0.9 + len(metrics) * (0.75 + 0.27 * len(names))), layout="constrained")
    grid = figure.subplots(len(metrics), 1, squeeze=False)[:, 0]
    best = best_baseline(results, metrics[0])
    for axes, metric in zip(grid, metrics, strict=True):
        _plot_dots(axes, results, metric, best)
        axes.set_yticks(range(len(names)), [n + " (best baseline)" * (p == best) for p, n in names.items()])
        axes.set_ylim(len(names) - 0.5, -0.7)
        plain(axes, "x")
    rows = f" on {results['test_rows']:,} test rows" if results.get("test_rows") else ""
    intervals = " with 95% intervals" if any(results.get(f"test_{metric}_ci95") for metric in metrics) else ""
    figure.suptitle(f"Fine-tuned model and baselines{rows}{intervals}", fontsize=11)
    return save(figure, path)


def plot_bars(results: dict[str, Any], panels: list[list[str]], title: str, path: Path, bar: float = 0.22) -> bool:
    """Plot one panel per list of metrics, with one bar per system and its interval. Return False without panels.

    Args:
        results: the content of `all_results.json`.
        panels: metrics of each panel.
        title: of the figure.
        path: file to write.
        bar: height of a bar in inches.
    """
    if not panels:
        return False
    names = system_names(results)
    heights = [0.4 + len(panel) * (bar * len(names) + 0.22) for panel in panels]  # inches
    handles = [Patch(color=COLORS[i % len(COLORS)], label=name) for i, name in enumerate(names.values())]
    figure = Figure(figsize=(9, sum(heights) + 0.6 + 0.25 * len(names)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        right = max(_bounds(results, p + metric)[1] for p in names for metric in panel) or 1
        for i, prefix in enumerate(names):
            for row, metric in enumerate(panel):
                y, value = row + (i + 0.5) * 0.8 / len(names) - 0.4, results.get(prefix + metric)
                if not is_number(value):
                    axes.text(right * 0.008, y, "not measured", va="center", fontsize=8, color="#666666")
                    continue
                low, high = _bounds(results, prefix + metric)
                axes.barh(y, value, 0.74 / len(names), color=COLORS[i % len(COLORS)])
                axes.plot([low, high], [y, y], color="#222222", lw=1.2, marker="|", ms=5 if high > low else 0)
                axes.text(high + right * 0.012, y, format_number(value), va="center", fontsize=8.5)
        directions = {METRICS[m][1] if m in METRICS else None for m in panel}
        better = [f"\n({METRICS[m][1]} is better)" if m in METRICS and len(directions) > 1 else "" for m in panel]
        axes.set_yticks(range(len(panel)), [label(m) + text for m, text in zip(panel, better, strict=True)])
        if len(directions) == 1 and None not in directions:
            axes.set_xlabel(f"{directions.pop()} is better")
        axes.set(xlim=(0, right * 1.12), ylim=(len(panel) - 0.5, -0.5))
        plain(axes, "x")
    figure.suptitle(title)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return save(figure, path)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure with one plot; width and height are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def plain(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Draw pale grid lines behind the data and remove the top and right frame."""
    axes.grid(alpha=0.3, axis=grid)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def whiskers(values: Sequence[float | None], intervals: Sequence[Sequence[float | None] | None]) -> np.ndarray:
    """Return the distances from the values to their interval limits, float [2, values], as `errorbar` expects them;
    0 without an interval."""
    known = [interval or (value, value) for value, interval in zip(values, intervals, strict=True)]
    return np.abs(np.array(known, dtype=float).reshape(-1, 2) - np.array(values, dtype=float)[:, None]).T


def bin_name(row: dict[str, Any]) -> str:
    """Return the range of a bin of text lengths and its number of rows, in two lines."""
    span = f"{row['low']:,}" + (f"-{row['high']:,}" if row["high"] > row["low"] else "")
    return f"{span}\n{row['rows']:,} rows"


def save(figure: Figure, path: Path) -> Literal[True]:
    """Write a figure to a file; the plot functions return the result."""
    figure.savefig(path, dpi=150)
    return True


def _bounds(results: dict[str, Any], key: str) -> tuple[float, float]:
    value = results.get(key) or 0
    low, high = results.get(f"{key}_ci95") or (value, value)
    return low, max(high, value)


def _plot_dots(axes: Axes, results: dict[str, Any], metric: str, best: str | None) -> None:
    """Plot a metric of every system, one below the other, with a line at the best baseline."""
    known = {y: p for y, p in enumerate(system_names(results)) if is_number(results.get(p + metric))}
    for y, prefix in known.items():
        marker, color = STYLES["tuned" if prefix == "test_" else "best" if prefix == best else "other"]
        value, fill = results[prefix + metric], "white" if marker == "o" else color
        axes.plot(_bounds(results, prefix + metric), [y, y], color=color, lw=2 if prefix == "test_" else 1.3)
        axes.plot(value, y, marker, color=color, mfc=fill, ms=7)
        text = format_number(value)
        axes.annotate(text, (value, y), (0, 6), textcoords="offset points", ha="center", fontsize=8.5)
        if prefix == best:
            axes.axvline(value, color=RED, lw=1, ls=":")
    values, scale = [results[prefix + metric] for prefix in known.values()], ""
    if metric == "perplexity" and min(values) > 0:  # of an untrained model it is a hundred times higher
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        few, many = MaxNLocator(6, steps=[1, 2, 5, 10]), LogLocator(subs=(1.0, 2.0, 5.0))
        axes.xaxis.set_major_locator(few if high < 10 * low else many)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 6, not 6 x 10^0
        axes.xaxis.set_minor_locator(NullLocator())
        scale = ", log scale"
    elif min(values) >= 0 and max(values) <= 1:
        axes.set_xlim(-0.02, 1.02)
        scale = ", from 0 to 1"
    for y in set(range(len(system_names(results)))) - known.keys():
        axes.annotate("not measured", (0.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
    axes.set_xlabel(f"{label(metric)}{scale}; {METRICS[metric][1]} is better")
