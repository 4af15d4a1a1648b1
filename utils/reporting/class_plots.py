"""The plots of `analysis.json`: what a classifier confuses, how far to trust its probabilities, and where it fails."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from utils.reporting.plots import COLORS, RED, plain
from utils.reporting.tables import format_number

MOST = 15  # classes of the confusion matrix that fit a page, with names and numbers
ALL = 300  # classes beyond which a cell would be under three pixels
LINES = 70  # classes of a tree's level that fit a page
WHITE_TO_BLUE = LinearSegmentedColormap.from_list("blue", ["#FFFFFF", COLORS[0]])
BLUE_TO_RED = LinearSegmentedColormap.from_list("error", [COLORS[5], COLORS[2], "#A02000"])  # no grey: no test rows


def plot_confusion(analysis: dict[str, Any], path: Path, most: int | None = MOST) -> bool:
    """Which class is taken for which: a row a true class, the most frequent first, its cells as shares of the row.

    Args:
        most: how many classes to show, None for all (up to 300); predictions outside them share the last column.
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

    cell = 0.5 if n <= MOST else 0.32 if n <= 40 else 0.2 if n <= 60 else 7.5 / n  # inches
    size = max(3, n * cell) + (3.2 if n <= 60 else 1.2)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=WHITE_TO_BLUE, norm=PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest")
    if n <= 40:
        for i, k in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[i, k] > 0.6 else "#222222"
            axes.text(k, i, f"{counts[i, k]:,}", ha="center", va="center", fontsize=9 if n <= MOST else 7, color=color)
    if n <= 60:
        names = [_short(classes[i]["label"]) for i in shown]
        font = {"fontsize": 9 if n <= MOST else 8 if n <= 40 else 7}
        axes.set_xticks(range(counts.shape[1]), names + ["other"] * (others > 0), rotation=45, ha="right",
                        rotation_mode="anchor", **font)  # fmt: skip
        axes.set_yticks(range(n), names, **font)
    else:
        axes.set(xticks=[], yticks=[])
    axes.set(xlabel="predicted class" + (", the last column all others" if others else ""), ylabel="true class")
    which = f"the {n} most frequent of {len(classes):,} classes" if others else f"all {n} classes"
    axes.set_title(f"Confusion matrix of {which}")
    figure.colorbar(image, label="share of the true class's rows", format=PercentFormatter(1), shrink=0.6)
    figure.savefig(path, dpi=150)
    return True


def plot_reliability(analysis: dict[str, Any], path: Path) -> bool:
    """Accuracy against confidence, before and after calibration, with Wilson's intervals; below it the rows."""
    if not analysis.get("reliability"):
        return False
    figure = Figure(figsize=(6.5, 7), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color="#222222", lw=1, ls=":", label="perfect")
    after = f"after calibration (temperature {format_number(analysis.get('temperature'))})"
    for key, color, name in (("reliability_uncalibrated", COLORS[1], "before"), ("reliability", COLORS[0], after)):
        if not (bins := analysis.get(key)):
            continue
        x, y = [row["confidence"] for row in bins], [row["accuracy"] for row in bins]
        top.errorbar(x, y, _whiskers(y, [row["accuracy_ci95"] for row in bins]), color=color, marker="o", ms=5,
                     lw=1.5, elinewidth=1, capsize=2, label=name)  # fmt: skip
        low, high = np.array([[row["low"], row["high"]] for row in bins]).T
        style = {"alpha": 0.8} if key == "reliability" else {"fill": False, "edgecolor": color, "lw": 1.5, "zorder": 3}
        bottom.bar(low, [row["rows"] for row in bins], high - low, align="edge", color=color, **style)
    top.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel="accuracy", title="Reliability: accuracy against confidence")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    bottom.set(xlabel="confidence: the probability of the prediction", ylabel="rows")
    for axes in (top, bottom):
        plain(axes)
    figure.savefig(path, dpi=150)
    return True


def plot_risk_coverage(analysis: dict[str, Any], path: Path) -> bool:
    """Share of wrong answers against the share of texts that are answered, the surest first; the chosen threshold."""
    points = analysis.get("risk_coverage")
    if not points:
        return False
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([p["coverage"] for p in points], [p["risk"] for p in points], color=COLORS[0], lw=2)
    chosen = analysis.get("abstention") or {}
    if chosen.get("max_risk") is not None:
        axes.axhline(chosen["max_risk"], color=RED, lw=1.2, ls=":", label=f"wanted: at most {chosen['max_risk']:.1%}")
        if chosen.get("threshold") is not None and chosen.get("risk") is not None:
            label = f"confidence {chosen['threshold']:.2f} or more: {chosen['coverage']:.1%} answered, "
            label += f"{chosen['risk']:.1%} of them wrong"
            axes.plot(chosen["coverage"], chosen["risk"], color=RED, marker="o", ms=8, ls="", label=label)
        axes.legend(loc="upper left")
    # one wrong answer among the first few rows would stretch the axis to 100 %
    top = max([p["risk"] for p in points if p["coverage"] >= 0.05] + [chosen.get("max_risk") or 0])
    axes.set(xlim=(0, 1), ylim=(0, top * 1.3 or 1), xlabel="coverage: share of texts answered",
             ylabel="risk: share of answers that are wrong", title="Risk against coverage")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    plain(axes)
    figure.savefig(path, dpi=150)
    return True


def plot_error_by_length(analysis: dict[str, Any], path: Path) -> bool:
    """Error rate of texts of about the same length, with Wilson's intervals."""
    length = analysis.get("length") or {}
    bins = length.get("bins")
    if not bins:
        return False
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rates = [row["error_rate"] for row in bins]
    whiskers = _whiskers(rates, [row["error_rate_ci95"] for row in bins])
    axes.bar(range(len(bins)), rates, 0.75, color=COLORS[0])
    axes.errorbar(range(len(bins)), rates, whiskers, color="#222222", ls="", lw=1.2, capsize=3)
    spans = [f"{row['low']:,}" + (f"-{row['high']:,}" if row["high"] > row["low"] else "") for row in bins]
    names = [f"{span}\n{row['rows']:,} rows" for span, row in zip(spans, bins, strict=True)]
    axes.set_xticks(range(len(bins)), names, fontsize=8.5)
    title = f"Error rate by length of the text (Spearman {format_number(length['spearman'], '+')})"
    axes.set(ylim=(0, None), xlim=(-0.6, len(bins) - 0.4), xlabel="words", ylabel="error rate", title=title)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    plain(axes)
    axes.grid(False, axis="x")
    figure.savefig(path, dpi=150)
    return True


def plot_error_by_training_rows(analysis: dict[str, Any], path: Path) -> bool:
    """Error rate (1 - recall) of each class against its training rows; larger points have more test rows."""
    classes = [row for row in analysis.get("classes", []) if row["support"]]
    if not classes:
        return False
    figure = Figure(figsize=(8.5, 5.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    x = [max(row["train_rows"], 0.5) for row in classes]  # 0 has no logarithm
    y = [1 - row["recall"] for row in classes]
    largest = max(row["support"] for row in classes)
    sizes = [20 + 280 * row["support"] / largest for row in classes]
    axes.scatter(x, y, sizes, color=COLORS[0], alpha=0.55, edgecolors="white", linewidths=0.8)
    axes.set_xscale("log")
    limits = min(x) / 1.6, max(x) * 1.6  # wide enough for a tick
    ticks = [step * 10**power for power in range(9) for step in (1, 2, 5)]
    ticks = [tick for tick in ticks if limits[0] < tick < limits[1]]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    training = analysis["training"]
    spearman, pearson = (format_number(training[name], "+") for name in ("spearman", "pearson"))
    title = f"Error rate by number of training rows (Spearman {spearman}, Pearson {pearson})"
    axes.set(xlabel="training rows of the class (log scale)", ylabel="error rate (1 - recall)", title=title)
    axes.set(xlim=limits, ylim=(-0.05, 1.08))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    plain(axes)
    worst = sorted(range(len(classes)), key=lambda i: (-y[i], -classes[i]["support"]))[:8]
    _name_points(figure, axes, np.column_stack([x, y]), np.sqrt(sizes) / 2, [(i, classes[i]["label"]) for i in worst])
    figure.savefig(path)
    return True


def plot_tree(analysis: dict[str, Any], path: Path) -> bool:
    """The tree of the classes from left to right, coloured by error rate (1 - recall), as wide as there are test rows.

    A level of more than `LINES` classes shows those of each parent with the most wrong rows.
    """
    if not analysis.get("tree"):
        return False
    levels = [level["classes"] for level in (*analysis["levels"], analysis)]
    shown = _worst_of_each(levels, analysis["tree"]["parents"])
    places = [{} for _ in levels]  # node -> y: leaves a line each, a parent in the middle of its children
    for level in range(len(levels) - 1, -1, -1):
        for node in (node for children in shown[level].values() for node in children):
            below = [places[level + 1][child] for child in shown[level + 1][node]] if level + 1 < len(levels) else []
            places[level][node] = (below[0] + below[-1]) / 2 if below else len(places[level])

    lines, curve, column = len(places[-1]), 0.8, 4.1  # inches
    figure = Figure(figsize=(column * len(levels) + 0.3, 0.23 * lines + 1.7), layout="constrained")
    axes = figure.add_subplot()
    most = max([row["support"] for row in levels[0]] + [1])
    root = sum(places[0].values()) / len(places[0])
    for level, classes in enumerate(levels):
        x = column * level
        for above, children in shown[level].items():
            y0 = places[level - 1][above] if level else root
            for node in children:
                y, row = places[level][node], classes[node]
                style = {"color": "#BBBBBB", "lw": 0.8, "ls": ":"}
                if row["support"]:
                    width = 0.8 + 7 * (row["support"] / most) ** 0.5
                    style = {"color": BLUE_TO_RED(1 - row["recall"]), "lw": width, "ls": "-"}
                points = [(x, y0), (x + curve / 2, y0), (x + curve / 2, y), (x + curve, y)]
                end = x + (curve + 0.1 if level + 1 == len(levels) else column)
                codes = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO]
                axes.add_patch(PathPatch(Curve([*points, (end, y)], codes), fill=False, capstyle="butt", **style))
                rate = f"{1 - row['recall']:.0%} of {row['support']:,}" if row["support"] else "no test rows"
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                axes.text(x + curve + 0.12, y, f"{_short(row['label'])}  {rate}", va="center", fontsize=8, bbox=box)
    axes.set(xlim=(0, column * len(levels)), ylim=(lines - 0.3, -0.7))
    axes.axis("off")
    axes.set_title(_tree_title(levels, shown), fontsize=11)
    key = "error rate (1 - recall), of how many test rows; width of a line: the root of its test rows"
    figure.colorbar(ScalarMappable(cmap=BLUE_TO_RED), ax=axes, location="bottom", label=key,
                    format=PercentFormatter(1), fraction=0.25 / (0.23 * lines + 1.7), aspect=40, pad=0.01)  # fmt: skip
    figure.savefig(path, dpi=150)
    return True


def _worst_of_each(levels: list[list[dict[str, Any]]], parents: list[list[int]]) -> list[dict[int, list[int]]]:
    """For each level: parent (-1 above the first) -> those of its children to show, in the order of the tree: as many
    of each as fit `LINES`, those with the most wrong rows."""
    shown: list[dict[int, list[int]]] = []
    for classes, parent_of in zip(levels, [[-1] * len(levels[0]), *parents], strict=True):
        above = [node for children in shown[-1].values() for node in children] if shown else [-1]
        children = {node: [] for node in above}
        for node, parent in enumerate(parent_of):
            if parent in children:
                children[parent].append(node)
        most = next(k for k in range(LINES, 0, -1) if sum(min(k, len(c)) for c in children.values()) <= LINES)
        worst = [sorted(c, key=lambda i: -wrong_rows(classes[i]))[:most] for c in children.values()]
        shown.append({node: sorted(c) for node, c in zip(children, worst, strict=True)})
    return shown


def wrong_rows(row: dict[str, Any]) -> int:
    """Test rows of a class that were taken for another."""
    return round(row["support"] * (1 - (row["recall"] or 0)))


def _tree_title(levels: list[list[dict[str, Any]]], shown: list[dict[int, list[int]]]) -> str:
    counts = [sum(map(len, children.values())) for children in shown]
    pairs = zip(counts, map(len, levels), strict=True)
    numbers = ", ".join(f"{n:,}" if n == all_n else f"{n} of {all_n:,}" for n, all_n in pairs)
    whole = counts == [len(level) for level in levels]
    which = "each branch" if whole else "the branches with the most wrong rows under each parent"
    return f"Error rate of {which}\nclasses on each level: {numbers}"


def _name_points(
    figure: Figure, axes: Axes, points: np.ndarray, radii: np.ndarray, names: list[tuple[int, str]]
) -> None:
    """Write names beside points, each where it hides no point and no other name; one that finds no room is left out.

    Args:
        points: x and y of all points [points, 2].
        radii: their radii in typographic points.
        names: place in `points`, and name; the first ones choose first.
    """
    figure.draw_without_rendering()
    inside, pixels = axes.get_window_extent(), axes.transData.transform(points)
    reach = radii * figure.dpi / 72
    taken = [Bbox([center - r, center + r]) for center, r in zip(pixels, reach, strict=True)]
    for i, name in names:
        away = radii[i] + 4
        for x, y, side in ((1, 0, "left"), (-1, 0, "right"), (0.3, 1, "left"), (0.3, -1, "left"), (-0.3, 1, "right")):
            text = axes.annotate(_short(name), points[i], (x * away, y * (away + 4)), textcoords="offset points",
                                 ha=side, va="center", fontsize=8)  # fmt: skip
            box = text.get_window_extent()
            fits = inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0 and box.y1 < inside.y1
            if fits and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def _whiskers(values: list[float], intervals: list[list[float]]) -> np.ndarray:
    """Distances to both ends of the intervals [2, values], as `errorbar` wants them."""
    return np.abs(np.array(intervals) - np.array(values)[:, None]).T


def _short(label: str, width: int = 38) -> str:
    """The label in one line of at most `width` characters; a dollar would begin a formula."""
    label = " ".join(label.split())
    label = label if len(label) <= width else label[: width - 1].rstrip() + "\u2026"
    return label.replace("$", r"\$")
