"""The plots of a summarizer's report: hallucinations and omissions, error patterns, and quality by source length."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from utils.reporting.metric_names import FINDINGS, METRICS, NOVEL, is_number, label, metric_names, system_names
from utils.reporting.plots import COLORS, RED, bin_name, new_figure, plain, plot_bars, save, whiskers
from utils.reporting.tables import error_counts, format_number

EXTRACTS = ("baseline_lead_test_", "baseline_copy_test_")  # copies of the source, without novel n-grams


def plot_findings(results: dict[str, Any], analysis: dict[str, Any], path: Path) -> bool:
    """Plot omission and hallucination of each system: shares of the content, then findings per summary by kind."""
    shares = ["omission", "hallucination", "any_hallucination"]
    hallucinations = [metric for metric in FINDINGS if not metric.startswith("omitted")]
    omissions = [metric for metric in FINDINGS if metric.startswith("omitted")]
    measured = metric_names(results, list(system_names(results)))
    panels = [[m for m in group if m in measured] for group in (shares, hallucinations, omissions)]
    title = "Omissions and hallucinations, with 95% intervals"
    return plot_bars(results, [panel for panel in panels if panel], title, path, bar=0.16)


def plot_errors(results: dict[str, Any], analysis: dict[str, Any], path: Path) -> bool:
    """Plot how many test rows show each error pattern. Return False if none was counted."""
    counts = error_counts(results)
    if not counts:
        return False
    total = results.get("test_rows")
    figure, axes = new_figure(8, 0.36 * len(counts) + 1.3)
    axes.barh(range(len(counts)), list(counts.values()), 0.7, color=COLORS[0])
    for y, count in enumerate(counts.values()):
        share = f" ({count / total:.1%})" if total else ""
        axes.annotate(f"{count:,}{share}", (count, y), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(range(len(counts)), [name.replace("_", " ") for name in counts])
    rows = f" out of {total:,}" if total else ""
    axes.set(xlabel=f"test rows{rows} (one row may show several patterns)", title="Error patterns")
    axes.set(xlim=(0, max(counts.values()) * 1.15 or 1), ylim=(len(counts) - 0.5, -0.5))
    plain(axes, "x")
    return save(figure, path)


def plot_source_length(results: dict[str, Any], analysis: dict[str, Any], path: Path) -> bool:
    """Plot ROUGE-L, omission and hallucination against the length of the source, with intervals."""
    bins = analysis["source_length"]["bins"]
    spearman = analysis["source_length"]["spearman"]
    figure = Figure(figsize=(8.5, 1.2 + 2 * len(spearman)), layout="constrained")
    grid = figure.subplots(len(spearman), 1, squeeze=False, sharex=True)[:, 0]
    for axes, metric, color in zip(grid, spearman, (COLORS[0], COLORS[2], RED), strict=False):
        known = [i for i, row in enumerate(bins) if is_number(row[metric])]
        values, intervals = [bins[i][metric] for i in known], [bins[i][f"{metric}_ci95"] for i in known]
        axes.errorbar(known, values, whiskers(values, intervals), color=color, marker="o", ms=5, lw=1.5,
                      elinewidth=1.2, capsize=3)  # fmt: skip
        axes.set_ylabel(label(metric))
        better = f"{METRICS[metric][1]} is better"
        axes.set_title(f"{label(metric)} ({better}); Spearman {format_number(spearman[metric], '+')}", fontsize=10)
        axes.set_ylim(
            0, max([(own or (0, value))[1] * 1.1 for value, own in zip(values, intervals, strict=True)] + [0.05])
        )
        plain(axes)
    names = [bin_name(row) + (f"\n{row['cut']:,} truncated" if row["cut"] else "") for row in bins]
    grid[-1].set_xticks(range(len(bins)), names, fontsize=8.5)
    grid[-1].set(xlabel="words in the source", xlim=(-0.5, len(bins) - 0.5))
    figure.suptitle("Quality by source length, with 95% intervals")
    return save(figure, path)


def plot_length_and_novelty(results: dict[str, Any], analysis: dict[str, Any], path: Path) -> bool:
    """Plot the lengths of summaries and references, and the share of their n-grams that the source does not have."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, name, color, line in (
        ("references", "references", "#222222", "--"),
        ("predictions", "fine-tuned", COLORS[0], "-"),
    ):
        words = np.maximum(analysis["summary_words"][key], 0.5)  # the log of 0 is undefined
        left.step(words, np.linspace(0, 1, len(words)), where="post", color=color, ls=line, lw=2, label=name)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.set(xlabel="words (log scale)", ylabel="share of summaries up to this length", title="Length", ylim=(0, 1.02))
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.legend(loc="upper left")

    for i, (prefix, name) in enumerate(system_names(results).items()):
        values = [results.get(prefix + metric) for metric in NOVEL]
        if any(map(is_number, values)) and prefix not in EXTRACTS:
            intervals = [
                results.get(f"{prefix}{metric}_ci95") or [v, v] for metric, v in zip(NOVEL, values, strict=True)
            ]
            right.errorbar(range(1, 5), np.array(values, dtype=float), whiskers(values, intervals), label=name,
                           color=COLORS[i % len(COLORS)], marker="o", lw=1.8, elinewidth=1, capsize=2)  # fmt: skip
    novelty = np.array([analysis["references"][name] for name in NOVEL], dtype=float)
    right.plot(range(1, 5), novelty, color="#222222", ls="--", lw=2, marker="s", label="references")
    right.set_xticks(range(1, 5), ["words", "2-grams", "3-grams", "4-grams"])
    right.set(ylim=(-0.03, 1.03), ylabel="share that is not in the source", title="Novel n-grams")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    right.legend(fontsize=8.5)
    for axes in (left, right):
        plain(axes)
    return save(figure, path)


PLOTS = {
    "factuality.png": plot_findings, "errors.png": plot_errors, "quality_by_length.png": plot_source_length,
    "length_and_novelty.png": plot_length_and_novelty,
}  # fmt: skip
