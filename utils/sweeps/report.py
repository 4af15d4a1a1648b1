"""The results of a sweep: csv tables and a one-page report."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from utils.arguments import UserError
from utils.reporting.headline import summary
from utils.reporting.metric_names import is_number, label
from utils.reporting.tables import format_number, paragraphs, table
from utils.sweeps.statistics import POWER, choose, compare, is_winner, seeds_needed

COSTS = ("minutes", "peak_memory_gb", "peak_gpu_memory_gb")
MOST_ROWS = 15  # in the table of the report; the csv file has all
EDGE = 0.05  # share of a range that counts as its end


def check_same_rows(rows: list[dict[str, Any]]) -> None:
    """Refuse runs with different validation or test rows, which cannot be compared."""
    known = [row for row in rows if row["rows"]]
    for row in known[1:]:
        if row["rows"] != known[0]["rows"]:
            raise UserError(
                f"configurations `{known[0]['configuration']}` and `{row['configuration']}` have different validation "
                "or test rows: set data keys in `overrides`, which apply to all configurations."
            )


def summarize(rows: list[dict[str, Any]], names: list[str], seeds: list[int], metric: str) -> list[dict[str, Any]]:
    """Return one row per configuration: its values, its row from `compare`, and the mean cost of its finished runs."""
    cells = {(row["configuration"], row["seed"]): row for row in rows}
    values = [[cells[name, seed]["evals"].get(metric, np.nan) for seed in seeds] for name in names]
    compared = compare(np.array(values, dtype=float))
    summaries = []
    for name, own in zip(names, compared, strict=True):
        runs = [cells[name, seed] for seed in seeds]
        costs = {key: _mean([run["cost"].get(key) for run in runs if run["status"] == "finished"]) for key in COSTS}
        summaries.append({"configuration": name, "values": runs[0]["values"]} | own | costs)
    return summaries


def write_tables(output_dir: Path, rows: list[dict[str, Any]], summaries: list[dict[str, Any]], metric: str) -> None:
    """Write `hyperparameter_results.csv` (one row per run) and `hyperparameter_summary.csv` (one per configuration).

    The cost columns come last. All other columns are the same after an interruption.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row["values"]))
    evals = [metric, *sorted({key for row in rows for key in row["evals"]} - {metric})]
    lines = [
        {**{k: row[k] for k in ("configuration", "seed", "status", "reason")}, **row["values"], **row["evals"]}
        | row["cost"]
        for row in rows
    ]
    _write_csv(
        output_dir / "hyperparameter_results.csv",
        ["configuration", "seed", *keys, *evals, "status", "reason", *COSTS],
        lines,
    )
    numbers = ["seeds", "mean", "sd", "pairs", "difference", "ci95_low", "ci95_high", "p", "p_holm"]
    lines = [
        row | row["values"] | dict(zip(("ci95_low", "ci95_high"), row.get("ci95") or (None, None), strict=True))
        for row in summaries
    ]
    _write_csv(output_dir / "hyperparameter_summary.csv", ["configuration", *keys, *numbers, *COSTS], lines)


def outcome(summaries: list[dict[str, Any]], seeds: list[int], maximize: bool) -> dict[str, Any]:
    """Return the selected configuration, whether it is significantly better than the first, and how many seeds would
    detect the observed difference."""
    best = choose(summaries, len(seeds), maximize)
    found = {"chosen": None if best is None else summaries[best]["configuration"], "more_than_noise": False}
    if best is None or best == 0:
        return found | {"seeds_needed": None}
    row = summaries[best]
    needed = (
        seeds_needed(row["difference"], row["sd_difference"], len(summaries) - 1) if row["p"] is not None else None
    )
    return found | {"more_than_noise": is_winner(row, maximize), "seeds_needed": needed}


def verdict(summaries: list[dict[str, Any]], found: dict[str, Any], seeds: list[int], metric: str) -> str:
    """Describe which configuration won, by how much, and whether the difference is significant."""
    if found["chosen"] is None:
        return "No configuration finished with every seed, so none was selected."
    first, row = summaries[0], _of(summaries, found["chosen"])
    text = f"**`{row['configuration']}`** has the best mean {_label(metric)} on validation: {_mean_sd(row)}"
    text += f" over the seeds {', '.join(map(str, seeds))}." if len(seeds) > 1 else f" with the seed {seeds[0]}."
    if row is first:
        return f"{text} It is the first configuration: none of the {len(summaries) - 1} others has a better mean."
    text += f" The first, `{first['configuration']}`, has {_mean_sd(first)}."
    if row["p"] is None:
        why = "one seed gives no spread" if row["pairs"] < 2 else "the difference is the same for every seed"
        return f"{text} **The difference was not tested**: {why}. It may be noise."
    ci = f"[{format_number(row['ci95'][0], '+')}, {format_number(row['ci95'][1], '+')}]"
    text += f" The difference is {format_number(row['difference'], '+')}, 95 % interval {ci}"
    text += f" (paired over {row['pairs']} seeds, p {_p(row['p'])}, with Holm's correction {_p(row['p_holm'])})."
    if found["more_than_noise"]:
        return f"{text} **The difference is significant.** Selection flatters the winner: expect a smaller gain."
    return f"{text} **The difference is not significant**: these seeds cannot tell the two apart."


def advice(
    summaries: list[dict[str, Any]],
    found: dict[str, Any],
    rows: list[dict[str, Any]],
    ranges: dict[str, dict[str, Any]],
) -> list[str]:
    """Return suggestions for the next sweep.

    Args:
        ranges: key -> `low`, `high` and `log` of the values tried.
    """
    lines = []
    chosen = _of(summaries, found["chosen"]) if found["chosen"] else {"values": {}}
    for key, value in chosen["values"].items():
        if key in ranges and (side := edge(value, **ranges[key])):
            lines.append(f"`{key}` is best at the {side} end of the range, {value:g}: try {side} values.")
    if (needed := found["seeds_needed"]) and not found["more_than_noise"]:
        lines.append(
            f"{needed} seeds would detect a true difference of this size with {POWER:.0%} power. Run them only if "
            f"{format_number(abs(chosen['difference']))} matters. Otherwise use the cheaper configuration: "
            f"`{chosen['configuration']}` takes {chosen['minutes']:.1f} min per run, "
            f"`{summaries[0]['configuration']}` {summaries[0]['minutes']:.1f} min."
        )
    elif chosen.get("difference") is not None and chosen["p"] is None:
        lines.append("Give at least three `seeds`, to separate the difference from noise.")
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        reasons = "; ".join(dict.fromkeys(row["reason"] for row in failed))
        lines.append(
            f"{len(failed)} of {len(rows)} runs failed ({reasons}): see their `run.log`, and repeat them with "
            "`--retry_failed`."
        )
    return lines or ["The best values lie inside the range: try more data or another model next."]


def edge(value: float, low: float, high: float, log: bool) -> str | None:
    """Return `lower` or `higher` if a value lies at that end of a range, else None."""
    if not is_number(value) or low >= high:
        return None
    position, start, stop = (np.log([value, low, high]) if log else np.array([value, low, high])).tolist()
    share = (position - start) / (stop - start)
    return "lower" if share <= EDGE else "higher" if share >= 1 - EDGE else None


def write_report(
    path: Path,
    title: str,
    summaries: list[dict[str, Any]],
    found: dict[str, Any],
    rows: list[dict[str, Any]],
    seeds: list[int],
    metric: str,
    ranges: dict[str, dict[str, Any]],
    note: str,
    test: dict[str, Any],
) -> None:
    """Write the report.

    Args:
        summaries: from `summarize`.
        found: from `outcome`.
        rows: all runs.
        ranges: as for `advice`.
        note: sentence for the cost section.
        test: `all_results.json` of the winner; {} without a winner.
    """
    first, chosen = summaries[0]["configuration"], found["chosen"]
    shown = [row for row in summaries if row["configuration"] in (first, chosen)] if len(summaries) > MOST_ROWS else []
    shown += [row for row in summaries if row not in shown][: MOST_ROWS - len(shown)]
    shown = [row for row in summaries if row in shown]
    lines = [
        [
            row["configuration"], row["seeds"], _mean_sd(row), _difference(row), _p(row.get("p_holm")),
            *(format_number(row[key]) for key in COSTS),
        ]
        for row in shown
    ]  # fmt: skip
    header = ["configuration", "seeds", f"{_label(metric)}, mean and sd", "minus the first", "p (Holm)"]
    header += ["minutes", "memory, GB", "GPU memory, GB"]
    kept = [i for i in range(len(header)) if i < 5 or any(line[i] != "-" for line in lines)]
    minutes = sum(row["cost"]["minutes"] for row in rows)
    more = f"`hyperparameter_summary.csv` has {len(summaries) - len(shown)} more configurations."
    sections = {
        "Configurations": paragraphs(
            table([header[i] for i in kept], [[line[i] for i in kept] for line in lines]),
            more if len(shown) < len(summaries) else None,
            "Brackets show the 95 % interval of that pair alone. Minutes and memory are means per run.",
            "![comparison](plots/hyperparameter_comparison.png)",
        ),
        "Test": test
        and f"`best/` is the run of `{chosen}` with seed {test['seed']}, the first seed of the comparison and not the "
        f"best one. No other run was tested. {summary(test)}",
        "Cost": f"{len(rows)} runs took {minutes:.1f} min. {note}",
        "What to try next": "\n".join(f"- {line}" for line in advice(summaries, found, rows, ranges)),
    }
    body = "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items() if text)
    path.write_text(f"# {title}\n\n{verdict(summaries, found, seeds, metric)}\n{body}", encoding="utf-8")


def _write_csv(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _of(summaries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row for row in summaries if row["configuration"] == name)


def _mean(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _label(metric: str) -> str:
    return label(metric.removeprefix("eval_"))


def _mean_sd(row: dict[str, Any]) -> str:
    sd = "" if row["sd"] is None else f" (sd {format_number(row['sd'])})"
    return f"{format_number(row['mean'])}{sd}"


def _difference(row: dict[str, Any]) -> str:
    if row.get("difference") is None:
        return "-"
    ci = f" [{format_number(row['ci95'][0], '+')}, {format_number(row['ci95'][1], '+')}]" if row["ci95"] else ""
    return f"{format_number(row['difference'], '+')}{ci}"


def _p(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
