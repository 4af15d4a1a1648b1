"""The plots of a summarizer's report: what it invents and leaves out, its errors, and how they go with length."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from utils.reporting.metric_names import FINDINGS, METRICS, NOVEL, is_number, label, metric_names, system_names
from utils.reporting.plots import COLORS, RED, plain, plot_bars
from utils.reporting.tables import error_counts, format_number

EXTRACTS = ("baseline_lead_test_", "baseline_copy_test_")  # of which nothing is novel


def plot_findings(results: dict[str, Any], analysis: dict[str, Any], path: Path) -> bool:
    """What each system leaves out and invents: shares of the content, then findings a summary by kind."""
    groups = [("omission", "hallucination", "any_hallucination")]
    groups += [[m for m in FINDINGS if m.startswith("omitted") == omitted] for omitted in (False, True)]
    measured = metric_names(results, list(system_names(results)))
    panels = [[metric for metric in group if metric in measured] for group in groups]
    title = "Left out of the reference, and invented beyond the source, with 95 % intervals"
    return plot_bars(results, [panel for panel in panels if panel], title, path, bar=0.16)


def plot_errors(results: dict[str, Any], analysis: dict[str, Any], path: Path) -> bool:
    """How many test rows show each error pattern."""
    counts = error_counts(results)
    if not counts:
        return False
    total = results.get("test_rows")
    figure = Figure(figsize=(8, 0.36 * len(counts) + 1.3), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(counts)), counts.values(), 0.7, color=COLORS[0])
    for y, count in enumerate(counts.values()):
        share = f" ({count / total:.1%})" if total else ""
        axes.annotate(f"{count:,}{share}", (count, y), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(range(len(counts)), [name.replace("_", " ") for name in counts])
    rows = f" of {total:,}" if total else ""
    axes.set(xlabel=f"test rows{rows} (a row may show several)", title="Error patterns")
    axes.set(xlim=(0, max(counts.values()) * 1.15 or 1), ylim=(len(counts) - 0.5, -0.5))
    plain(axes, "x")
    figure.savefig(path, dpi=150)
    return True


def plot_source_length(results: dict[str, Any], analysis: dict[str, Any], path: Path) -> bool:
    """ROUGE-L, omission and hallucination of sources of about the same length, with bootstrap intervals."""
    bins = analysis["source_length"]["bins"]
    spearman = analysis["source_length"]["spearman"]
    figure = Figure(figsize=(8.5, 1.2 + 2 * len(spearman)), layout="constrained")
    grid = figure.subplots(len(spearman), 1, squeeze=False, sharex=True)[:, 0]
    for axes, metric, color in zip(grid, spearman, (COLORS[0], COLORS[2], RED), strict=False):
        known = [i for i, row in enumerate(bins) if is_number(row[metric]) and row[f"{metric}_ci95"]]
        values = np.array([bins[i][metric] for i in known])
        ends = np.array([bins[i][f"{metric}_ci95"] for i in known]).reshape(-1, 2)
        axes.errorbar(known, values, np.abs(ends.T - values), color=color, marker="o", ms=5, lw=1.5, elinewidth=1.2,
                      capsize=3)  # fmt: skip
        axes.set_ylabel(label(metric))
        better = f"{METRICS[metric][1]} is better"
        axes.set_title(f"{label(metric)} ({better}); Spearman {format_number(spearman[metric], '+')}", fontsize=10)
        axes.set_ylim(0, max(ends.max(initial=0) * 1.1, 0.05))
        plain(axes)
    grid[-1].set_xticks(range(len(bins)), [_bin_name(row) for row in bins], fontsize=8.5)
    grid[-1].set(xlabel="words of the source", xlim=(-0.5, len(bins) - 0.5))
    figure.suptitle("Quality by length of the source, with 95 % intervals")
    figure.savefig(path, dpi=150)
    return True


def plot_length_and_novelty(results: dict[str, Any], analysis: dict[str, Any], path: Path) -> bool:
    """How long the summaries are, and how many of their n-grams are not in the source, beside the references'."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, name, color, style in (
        ("references", "references", "#222222", "--"),
        ("predictions", "fine-tuned", COLORS[0], "-"),
    ):
        words = np.maximum(analysis["summary_words"][key], 0.5)  # 0 has no logarithm
        left.step(words, np.linspace(0, 1, len(words)), where="post", color=color, ls=style, lw=2, label=name)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.set(
        xlabel="words (log scale)", ylabel="share of summaries with at most so many", title="Length", ylim=(0, 1.02)
    )
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.legend(loc="upper left")

    own = [analysis["references"][name] for name in NOVEL]
    for i, (prefix, name) in enumerate(system_names(results).items()):
        values = [results.get(prefix + metric) for metric in NOVEL]
        if any(map(is_number, values)) and prefix not in EXTRACTS:
            ends = [results.get(f"{prefix}{NOVEL[n]}_ci95") or (value, value) for n, value in enumerate(values)]
            y, (low, high) = np.array(values, dtype=float), np.array(ends, dtype=float).T
            style = {"color": COLORS[i % len(COLORS)], "marker": "o", "lw": 1.8, "elinewidth": 1, "capsize": 2}
            right.errorbar(range(1, 5), y, np.abs([y - low, high - y]), label=name, **style)
    right.plot(range(1, 5), np.array(own, dtype=float), color="#222222", ls="--", lw=2, marker="s", label="references")
    right.set_xticks(range(1, 5), ["words", "2-grams", "3-grams", "4-grams"])
    right.set(ylim=(-0.03, 1.03), ylabel="share that is not in the source", title="Novel n-grams")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    right.legend(fontsize=8.5)
    for axes in (left, right):
        plain(axes)
    figure.savefig(path, dpi=150)
    return True


def _bin_name(row: dict[str, Any]) -> str:
    span = f"{row['low']:,}" + (f"-{row['high']:,}" if row["high"] > row["low"] else "")
    cut = f"\n{row['cut']:,} cut" if row["cut"] else ""
    return f"{span}\n{row['rows']:,} rows{cut}"
