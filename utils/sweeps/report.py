"""What came out of a sweep: tables, one page to read, and the same for programs."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from utils.arguments import UserError
from utils.reporting.metric_names import is_number, label
from utils.reporting.tables import format_number, paragraphs, summary, table
from utils.sweeps.statistics import POWER, choose, compare, is_winner, seeds_needed

COSTS = ("minutes", "peak_memory_gb", "peak_gpu_memory_gb", "energy_kwh")
MOST_ROWS = 15  # of the report's table; all stand in the csv
EDGE = 0.05  # of a searched range


def check_same_rows(rows: list[dict[str, Any]]) -> None:
    """Refuse runs that were validated on different rows: their numbers cannot be compared."""
    known = [row for row in rows if row["rows"]]
    for row in known[1:]:
        if row["rows"] != known[0]["rows"]:
            raise UserError(
                f"configurations `{known[0]['configuration']}` and `{row['configuration']}` have other rows to "
                "validate or test on: give keys of the data in `overrides`, the same for all."
            )


def summarize(rows: list[dict[str, Any]], names: list[str], seeds: list[int], metric: str) -> list[dict[str, Any]]:
    """A row a configuration: its values, what `compare` says of it, and the mean cost of its finished runs."""
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
    """Write `hyperparameter_results.csv`, a row a run, and `hyperparameter_summary.csv`, a row a configuration. What
    is measured (time, memory, energy) comes last: all before it is the same in a sweep that was interrupted."""
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
    """Which configuration is chosen, whether it is better than the first by more than noise, and with how many seeds
    that could be told if it is as much better as it seems."""
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
    """What won, by how much, and whether that is more than noise."""
    if found["chosen"] is None:
        return "No configuration finished with every seed: nothing is chosen."
    first, row = summaries[0], _of(summaries, found["chosen"])
    text = f"**`{row['configuration']}`** has the best mean {_label(metric)} on validation: {_mean_sd(row)}"
    text += f" over the seeds {', '.join(map(str, seeds))}." if len(seeds) > 1 else f" with the seed {seeds[0]}."
    if row is first:
        return f"{text} It is the first configuration: none of the {len(summaries) - 1} others has a better mean."
    text += f" The first, `{first['configuration']}`, has {_mean_sd(first)}."
    if row["p"] is None:
        why = "one seed has no spread" if row["pairs"] < 2 else "the seeds change nothing in the difference"
        return f"{text} **Nothing is tested**: {why}, so this difference may be noise."
    ci = f"[{format_number(row['ci95'][0], '+')}, {format_number(row['ci95'][1], '+')}]"
    text += f" The difference is {format_number(row['difference'], '+')}, 95 % interval {ci}"
    text += f" (paired over {row['pairs']} seeds, p {_p(row['p'])}, by Holm's correction {_p(row['p_holm'])})."
    if found["more_than_noise"]:
        return f"{text} **That is more than noise.** The best of several is flattered: expect somewhat less."
    return f"{text} **That is not more than noise**: with these seeds the two cannot be told apart."


def advice(
    summaries: list[dict[str, Any]],
    found: dict[str, Any],
    rows: list[dict[str, Any]],
    ranges: dict[str, dict[str, Any]],
) -> list[str]:
    """What to try next.

    Args:
        ranges: key -> `low`, `high` and `log` of what was tried of it.
    """
    lines = []
    chosen = _of(summaries, found["chosen"]) if found["chosen"] else {"values": {}}
    for key, value in chosen["values"].items():
        if key in ranges and (side := edge(value, **ranges[key])):
            lines.append(f"`{key}` is best at the {side} end of what was tried, {value:g}: try {side} values.")
    if (needed := found["seeds_needed"]) and not found["more_than_noise"]:
        lines.append(
            f"If the difference is what it seems, {needed} seeds find it with probability {POWER:.0%}: worth it only "
            f"where {format_number(abs(chosen['difference']))} matters. Until then take the cheaper one: "
            f"`{chosen['configuration']}` takes {chosen['minutes']:.1f} min a run, "
            f"`{summaries[0]['configuration']}` {summaries[0]['minutes']:.1f} min."
        )
    elif chosen.get("difference") is not None and chosen["p"] is None:
        lines.append("Give at least three `seeds`: without a spread over seeds no difference can be told from noise.")
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        reasons = "; ".join(dict.fromkeys(row["reason"] for row in failed))
        lines.append(
            f"{len(failed)} of {len(rows)} runs failed ({reasons}): their `run.log` says more, and `--retry_failed` "
            "runs them again."
        )
    return lines or ["The best values lie inside of what was tried: more data, or another model, is the next thing."]


def edge(value: float, low: float, high: float, log: bool) -> str | None:
    """Whether a value lies at the `lower` or `higher` end of a range."""
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
    notes: list[str],
    test: dict[str, Any],
) -> None:
    """Write the page.

    Args:
        summaries, found: of `summarize` and `outcome`.
        rows: of all runs.
        ranges: as for `advice`.
        notes: sentences on how the runs were chosen and measured.
        test: the content of the winner's `all_results.json`; {} without a winner.
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
    header += ["minutes", "memory, GB", "GPU memory, GB", "energy, kWh"]
    kept = [i for i in range(len(header)) if i < 5 or any(line[i] != "-" for line in lines)]
    total = {key: sum(row["cost"].get(key, 0) for row in rows) for key in ("minutes", "energy_kwh")}
    spent = f"{len(rows)} runs took {total['minutes']:.1f} min"
    spent += f" and {total['energy_kwh']:.3g} kWh." if total["energy_kwh"] else "."
    more = f"{len(summaries) - len(shown)} more configurations stand in `hyperparameter_summary.csv`."
    sections = {
        "Configurations": paragraphs(
            table([header[i] for i in kept], [[line[i] for i in kept] for line in lines]),
            more if len(shown) < len(summaries) else None,
            "Brackets are 95 % intervals of that pair alone; a run's minutes, memory and energy are means.",
            "![comparison](plots/hyperparameter_comparison.png)",
        ),
        "Test": test
        and f"`best/` is the run of `{chosen}` with seed {test['seed']}, the first that counts and not "
        f"the best; nothing else was tested. {summary(test)}",
        "Cost": " ".join([spent, *notes]),
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
