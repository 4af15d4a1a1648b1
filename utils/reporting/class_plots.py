"""The plots of a classifier's report, from `analysis.json`: confusions, calibration, abstention, errors, the tree."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.ticker import LogLocator, PercentFormatter
from matplotlib.transforms import Bbox

from utils.reporting.plots import COLORS, RED, bin_name, new_figure, plain, save, whiskers
from utils.reporting.tables import format_number, wrong_rows

MOST = 15  # classes in the confusion matrix that fits a page, with names and counts
ALL = 300  # classes in the largest confusion matrix: with more, a cell would be smaller than three pixels
# classes in a confusion matrix -> inches per cell, font size of the names, and of the counts (0 shows none)
CONFUSION_SIZES = {MOST: (0.5, 9, 9), 40: (0.32, 8, 7), 60: (0.2, 7, 0)}
LINES = 70  # classes of one tree level that fit a page
WHITE_TO_BLUE = LinearSegmentedColormap.from_list("blue", ["#FFFFFF", COLORS[0]])
BLUE_TO_RED = LinearSegmentedColormap.from_list("error", [COLORS[5], COLORS[2], "#A02000"])  # gray: no test rows


def plot_confusion(analysis: dict[str, Any], path: Path, most: int | None = MOST) -> bool:
    """Plot the confusion matrix: one row per true class, the most frequent first, cells as shares of their row.

    `most` is the number of classes to show, None for all (up to 300). The last column holds all other predictions.
    """
    classes = analysis.get("classes", [])
    if not classes:
        return False
    shown = sorted(range(len(classes)), key=lambda i: -classes[i]["support"])[: most or ALL]
    place = {i: number for number, i in enumerate(shown)}
    n, others = len(shown), len(classes) - len(shown)
    counts = np.zeros((n, n + (others > 0)), dtype=int)
    for true, predicted, rows in analysis["confusion"]:
        if true in place:
            counts[place[true], place.get(predicted, n)] += rows
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    sizes = (size for fits, size in CONFUSION_SIZES.items() if n <= fits)
    cell, name_size, count_size = next(sizes, (7.5 / n, 0, 0))
    height = max(3, n * cell) + (3.2 if name_size else 1.2)
    figure, axes = new_figure(height + 0.8, height)
    image = axes.imshow(shares, cmap=WHITE_TO_BLUE, norm=PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest")
    for i, k in zip(*np.nonzero(counts), strict=True) if count_size else ():
        color = "white" if shares[i, k] > 0.6 else "#222222"
        axes.text(k, i, f"{counts[i, k]:,}", ha="center", va="center", fontsize=count_size, color=color)
    names = [_shorten(classes[i]["label"]) for i in shown] if name_size else []
    columns = names + ["other"] * (others > 0 and name_size > 0)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=name_size)
    axes.set_yticks(range(len(names)), names, fontsize=name_size)
    axes.set(xlabel="predicted class" + (" (last column: all others)" if others else ""), ylabel="true class")
    which = f"the {n} most frequent of {len(classes):,} classes" if others else f"all {n} classes"
    axes.set_title(f"Confusion matrix of {which}")
    figure.colorbar(image, label="share of the true class", format=PercentFormatter(1), shrink=0.6)
    return save(figure, path)


def plot_reliability(analysis: dict[str, Any], path: Path) -> bool:
    """Plot accuracy against confidence, before and after calibration, with Wilson intervals, above a histogram."""
    if not analysis.get("reliability"):
        return False
    figure = Figure(figsize=(6.5, 7), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color="#222222", lw=1, ls=":", label="perfect calibration")
    after = f"after calibration (temperature {format_number(analysis.get('temperature'))})"
    for key, color, name in (("reliability_uncalibrated", COLORS[1], "before"), ("reliability", COLORS[0], after)):
        if not (bins := analysis.get(key)):
            continue
        x, y = [row["confidence"] for row in bins], [row["accuracy"] for row in bins]
        top.errorbar(x, y, whiskers(y, [row["accuracy_ci95"] for row in bins]), color=color, marker="o", ms=5,
                     lw=1.5, elinewidth=1, capsize=2, label=name)  # fmt: skip
        low, high = np.array([[row["low"], row["high"]] for row in bins]).T
        style = {"alpha": 0.8} if key == "reliability" else {"fill": False, "edgecolor": color, "lw": 1.5, "zorder": 3}
        bottom.bar(low, [row["rows"] for row in bins], high - low, align="edge", color=color, **style)
    top.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel="accuracy", title="Reliability diagram")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    bottom.set(xlabel="confidence (probability of the predicted class)", ylabel="rows")
    for axes in (top, bottom):
        plain(axes)
    return save(figure, path)


def plot_risk_coverage(analysis: dict[str, Any], path: Path) -> bool:
    """Plot selective risk against coverage, from the most confident row on, and mark the abstention threshold."""
    points = analysis.get("risk_coverage")
    if not points:
        return False
    figure, axes = new_figure(7, 4.5)
    axes.plot([p["coverage"] for p in points], [p["risk"] for p in points], color=COLORS[0], lw=2)
    chosen = analysis.get("abstention") or {}
    if chosen.get("max_risk") is not None:
        axes.axhline(chosen["max_risk"], color=RED, lw=1.2, ls=":", label=f"maximum risk: {chosen['max_risk']:.1%}")
        if chosen.get("threshold") is not None and chosen.get("risk") is not None:
            label = f"confidence {chosen['threshold']:.2f} or more: "
            label += f"coverage {chosen['coverage']:.1%}, risk {chosen['risk']:.1%}"
            axes.plot(chosen["coverage"], chosen["risk"], color=RED, marker="o", ms=8, ls="", label=label)
        axes.legend(loc="upper left")
    # a wrong answer among the first few rows would stretch the axis to 100%
    top = max([p["risk"] for p in points if p["coverage"] >= 0.05] + [chosen.get("max_risk") or 0])
    axes.set(xlim=(0, 1), ylim=(0, top * 1.3 or 1), xlabel="coverage (share of texts answered)",
             ylabel="selective risk (share of answers that are wrong)", title="Risk-coverage curve")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    plain(axes)
    return save(figure, path)


def plot_error_by_length(analysis: dict[str, Any], path: Path) -> bool:
    """Plot the error rate in bins of text length, with Wilson intervals."""
    length = analysis.get("length") or {}
    bins = length.get("bins")
    if not bins:
        return False
    figure, axes = new_figure(8, 4.5)
    rates = [row["error_rate"] for row in bins]
    axes.bar(range(len(bins)), rates, 0.75, color=COLORS[0])
    axes.errorbar(range(len(bins)), rates, whiskers(rates, [row["error_rate_ci95"] for row in bins]),
                  color="#222222", ls="", lw=1.2, capsize=3)  # fmt: skip
    axes.set_xticks(range(len(bins)), [bin_name(row) for row in bins], fontsize=8.5)
    title = f"Error rate by text length (Spearman {format_number(length['spearman'], '+')})"
    axes.set(ylim=(0, None), xlim=(-0.6, len(bins) - 0.4), xlabel="words", ylabel="error rate", title=title)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    plain(axes, "y")
    return save(figure, path)


def plot_error_by_training_rows(analysis: dict[str, Any], path: Path) -> bool:
    """Plot the error rate (1 - recall) of each class against its training rows; larger points have more test rows."""
    classes = [row for row in analysis.get("classes", []) if row["support"]]
    if not classes:
        return False
    figure, axes = new_figure(8.5, 5.5)
    x = [max(row["train_rows"], 0.5) for row in classes]  # the log of 0 is undefined
    y = [1 - row["recall"] for row in classes]
    largest = max(row["support"] for row in classes)
    sizes = [20 + 280 * row["support"] / largest for row in classes]
    axes.scatter(x, y, sizes, color=COLORS[0], alpha=0.55, edgecolors="white", linewidths=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    spearman, pearson = (format_number(analysis["training"][name], "+") for name in ("spearman", "pearson"))
    title = f"Error rate by number of training rows (Spearman {spearman}, Pearson {pearson})"
    axes.set(xlabel="training rows of the class (log scale)", ylabel="error rate (1 - recall)", title=title)
    axes.set(xlim=(min(x) / 1.6, max(x) * 1.6), ylim=(-0.05, 1.08))  # wide enough for one tick
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    plain(axes)
    worst = sorted(range(len(classes)), key=lambda i: (-y[i], -classes[i]["support"]))[:8]
    _name_points(figure, axes, np.column_stack([x, y]), np.sqrt(sizes) / 2, {i: classes[i]["label"] for i in worst})
    return save(figure, path)


def plot_tree(analysis: dict[str, Any], path: Path) -> bool:
    """Plot the tree of classes from left to right: color is the error rate (1 - recall), width the test rows.

    Where a level has more than `LINES` classes, each parent shows its children with the most errors.
    """
    if not analysis.get("tree"):
        return False
    levels = [level["classes"] for level in (*analysis["levels"], analysis)]
    shown = _most_errors(levels, analysis["tree"]["parents"])
    y_of: list[dict[int, float]] = [{} for _ in levels]  # each leaf on its own line, a parent amid its children
    for level in range(len(levels) - 1, -1, -1):
        for node in (node for children in shown[level].values() for node in children):
            below = [y_of[level + 1][child] for child in shown[level + 1][node]] if level + 1 < len(levels) else []
            y_of[level][node] = (below[0] + below[-1]) / 2 if below else len(y_of[level])

    lines, curve, column = len(y_of[-1]), 0.8, 4.1  # number of lines; inches
    figure, axes = new_figure(column * len(levels) + 0.3, 0.23 * lines + 1.7)
    most = max([row["support"] for row in levels[0]] + [1])
    root = sum(y_of[0].values()) / len(y_of[0])
    branches = [(level, parent, node) for level in range(len(levels))
                for parent, children in shown[level].items() for node in children]  # fmt: skip
    for level, parent, node in branches:
        x, y0, y = column * level, y_of[level - 1][parent] if level else root, y_of[level][node]
        row, style, rate = levels[level][node], {"color": "#BBBBBB", "lw": 0.8, "ls": ":"}, "no test rows"
        if row["support"]:
            style = {"color": BLUE_TO_RED(1 - row["recall"]), "lw": 0.8 + 7 * (row["support"] / most) ** 0.5}
            rate = f"{1 - row['recall']:.0%} of {row['support']:,}"
        points = [(x, y0), (x + curve / 2, y0), (x + curve / 2, y), (x + curve, y)]
        points.append((x + (curve + 0.1 if level + 1 == len(levels) else column), y))
        codes = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO]
        axes.add_patch(PathPatch(Curve(points, codes), fill=False, capstyle="butt", **style))
        axes.text(x + curve + 0.12, y, f"{_shorten(row['label'])}  {rate}", va="center", fontsize=8,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    axes.set(xlim=(0, column * len(levels)), ylim=(lines - 0.3, -0.7))
    axes.axis("off")
    counts, totals = [sum(map(len, children.values())) for children in shown], [len(level) for level in levels]
    which = "each class" if counts == totals else "the classes with the most errors under each parent"
    pairs = zip(counts, totals, strict=True)
    numbers = ", ".join(f"{total:,}" if n == total else f"{n} of {total:,}" for n, total in pairs)
    axes.set_title(f"Error rate of {which}\nclasses on each level: {numbers}", fontsize=11)
    key = "error rate (1 - recall) and number of test rows; line width grows with the square root of the test rows"
    figure.colorbar(ScalarMappable(cmap=BLUE_TO_RED), ax=axes, location="bottom", label=key,
                    format=PercentFormatter(1), fraction=0.25 / (0.23 * lines + 1.7), aspect=40, pad=0.01)  # fmt: skip
    return save(figure, path)


def _most_errors(levels: list[list[dict[str, Any]]], parents: list[list[int]]) -> list[dict[int, list[int]]]:
    """Return, for each level: parent (-1 for the root) -> children to show, in the order of the tree. Where not all
    fit `LINES`, those with the most errors, up to the same number for each parent."""
    shown: list[dict[int, list[int]]] = []
    above = [-1]
    for classes, parent_of in zip(levels, [[-1] * len(levels[0]), *parents], strict=True):
        children: dict[int, list[int]] = {node: [] for node in above}
        for node, parent in enumerate(parent_of):
            if parent in children:
                children[parent].append(node)
        most = next(k for k in range(LINES, 0, -1) if sum(min(k, len(c)) for c in children.values()) <= LINES)
        shown.append({n: sorted(sorted(c, key=lambda i: -wrong_rows(classes[i]))[:most]) for n, c in children.items()})
        above = [node for nodes in shown[-1].values() for node in nodes]
    return shown


def _name_points(figure: Figure, axes: Axes, points: np.ndarray, radii: np.ndarray, names: dict[int, str]) -> None:
    """Write `names` (index -> name) beside `points` [points, 2] with `radii` in typographic points, in order. A name
    that would cover a point, another name or the frame is left out."""
    figure.draw_without_rendering()
    frame, pixels = axes.get_window_extent(), axes.transData.transform(points)
    reach = radii[:, None] * figure.dpi / 72
    taken = [Bbox(corners) for corners in np.stack([pixels - reach, pixels + reach], axis=1)]
    for i, name in names.items():
        away = radii[i] + 4
        for x, y, side in ((1, 0, "left"), (-1, 0, "right"), (0.3, 1, "left"), (0.3, -1, "left"), (-0.3, 1, "right")):
            text = axes.annotate(_shorten(name), points[i], (x * away, y * (away + 4)), textcoords="offset points",
                                 ha=side, va="center", fontsize=8)  # fmt: skip
            box = text.get_window_extent()
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def _shorten(name: str, width: int = 38) -> str:
    """Return a name in one line of at most `width` characters; a bare dollar sign would start a formula."""
    name = " ".join(name.split())
    name = name if len(name) <= width else name[: width - 1].rstrip() + "\u2026"
    return name.replace("$", r"\$")


PLOTS = {
    "confusion_matrix.png": plot_confusion, "reliability.png": plot_reliability,
    "risk_coverage.png": plot_risk_coverage, "error_by_length.png": plot_error_by_length,
    "error_by_training_rows.png": plot_error_by_training_rows, "tree.png": plot_tree,
}  # fmt: skip
