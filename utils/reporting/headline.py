"""What a reader wants first: what was trained, how good it is and against what, and what to look at."""

from collections.abc import Sequence
from typing import Any

from utils.data.splits import MIN_CLUSTERS
from utils.push import last_part
from utils.reporting.metric_names import HEADLINES, METRICS, PROBE, is_number, label, metric_names, system_names
from utils.reporting.tables import (
    ALPHA,
    difference,
    error_counts,
    format_number,
    interval_text,
    intervals_line,
    table,
    with_interval,
)

DOES = {
    "qa": "answers medical questions", "classification": "classifies medical texts",
    "hierarchical": "sorts medical texts into a tree of classes", "summarization": "summarizes medical texts",
}  # fmt: skip
ENCODER_ALONE = "baseline_encoder_alone_test_"  # part of the fine-tuned model, so no baseline to beat
WIDE = 0.1  # width of an interval above which a reader is told that the test split is small
SIMPLE = {  # verdict on the best baseline -> what it does
    "It is worse than": "does better",
    "It is not clearly different from": "does as well",
    "Too few clusters": "may do as well",
}
CHEAPER = "It is cheaper to train, to run and to explain."
NOTABLE = 0.01  # share of the rows that a step of data preparation dropped or cut, from which a reader is told
KEYS = {  # count of data preparation -> what it says
    "repeated_ids": "rows have the id of another row",
    "similar_ids": "ids differ from others only in case, zeros or look-alike letters",
    "similar_keys": "labels or groups differ only in case, zeros or look-alike letters, and count as several: rows of "
    "one patient may be in training and test",
    "rounded_keys": "names are numbers that a spreadsheet has rounded: several labels or groups may share one",
    "rows_without_group": "rows have no group and stand alone: one patient may be in training and test",
    "untested_classes": "classes have no test row, so no number tells anything about them",
    "rows_repeated_in_other_groups": "dropped duplicates are of another group than the row that stays",
}
NOT_FOR = """**Not a medical device.** On texts of another hospital, specialty, language or kind expect lower scores, \
and measure them first. Not for patients to use alone, and not for any decision about a person that no professional \
checks."""


def opening(results: dict[str, Any], task: dict[str, Any], is_adapter: bool) -> str:
    """Say in two sentences what was trained from what, on how many rows of which data, and on what it was tested."""
    data = task.get("data", {})
    kind = "a LoRA adapter for" if is_adapter else "a fine-tuned version of"
    base, classes = last_part(task.get("base_model") or "a base model"), results.get("data_classes")
    does = DOES.get(task.get("task", ""), "reads medical texts") + (f" into {classes:,} classes" if classes else "")
    source = data.get("dataset_name") or last_part(data.get("train_file") or "local files")
    train, test = (results.get(f"{split}_rows") for split in ("train", "test"))
    text = f"This is {kind} `{base}` that {does}."
    if train:
        text += f" It was trained on {train:,} rows of `{source}`"
        text += f" and tested on {test:,} other rows." if test else "."
    return text


def headline_metrics(results: dict[str, Any]) -> list[str]:
    """Return the one or two metrics of this task that a reader should see first."""
    return [name for name in HEADLINES if is_number(results.get(f"test_{name}"))][:2]


def best_baseline(results: dict[str, Any], metric: str) -> str | None:
    """Return the prefix of the baseline with the best value; the model before training is no baseline."""
    sign = 1 if METRICS[metric][1] == "higher" else -1
    prefixes = [
        prefix
        for prefix in sorted(system_names(results))
        if prefix.startswith("baseline_") and prefix != ENCODER_ALONE and is_number(results.get(prefix + metric))
    ]
    return max(prefixes, key=lambda prefix: sign * results[prefix + metric], default=None)


def summary(results: dict[str, Any]) -> str:
    """Compare the fine-tuned model with the base model and the best baseline, in one or two sentences."""
    metric = next(iter(headline_metrics(results)), None)
    if metric is None:
        return "No test metric was measured."
    sign = 1 if METRICS[metric][1] == "higher" else -1
    names = system_names(results)
    base = "a linear probe on the base model" if PROBE in results else "the base model"
    models = {"base_test_": base, "first_adapter_test_": "the first adapter"}
    text = f"On the test split, the fine-tuned model reaches {label(metric)} "
    text += with_interval(results, f"test_{metric}")
    for prefix in (*models, best_baseline(results, metric)):
        if prefix is None or not is_number(results.get(prefix + metric)):
            continue
        key = f"delta_{prefix}{metric}"
        other, delta = results[prefix + metric], results.get(key, results[f"test_{metric}"] - results[prefix + metric])
        name = models.get(prefix) or f"the best baseline, {names[prefix]},"
        span = " ".join([format_number(delta, "+"), *filter(None, [interval_text(results.get(f"{key}_ci95"), "+")])])
        text += f". {verdict(results, key, sign * delta)} {name} at {format_number(other)} (difference {span})"
    before, after = results.get("base_test_perplexity"), results.get("test_perplexity")
    if before and after and metric != "perplexity":
        text += f". Perplexity went from {format_number(before)} to {format_number(after)} ({after / before - 1:+.1%})"
    if is_number(results.get("test_omission")) and is_number(results.get("test_any_hallucination")):
        omission, hallucinated = (with_interval(results, f"test_{name}") for name in ("omission", "any_hallucination"))
        text += f". Its summaries omit a share of {omission} of the reference content"
        text += f"; a share of {hallucinated} of them contains a hallucination"
    return f"{text}. {intervals_line(results)}"


def verdict(results: dict[str, Any], key: str, gain: float) -> str:
    """Say whether a difference is more than noise.

    Args:
        results: the content of `all_results.json`.
        key: of the difference; `key_p` and `key_ci95` test it.
        gain: the difference, positive where the fine-tuned model is better.
    """
    p, interval = results.get(f"{key}_p"), results.get(f"{key}_ci95")
    if p is None and not interval:
        units = results.get("test_clusters")
        return "It was not tested against" if units is None else f"Too few clusters ({units:,}) to tell it from"
    if (p is not None and p >= ALPHA) or (interval and interval[0] <= 0 <= interval[1]):
        return "It is not clearly different from"
    return "It is better than" if gain > 0 else "It is worse than"


def headline_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row per system: the headline metrics, and how far the fine-tuned model is from it."""
    names, metrics = system_names(results), headline_metrics(results)
    if not metrics:
        return [], []
    best = best_baseline(results, metrics[0])
    with_differences = any(f"delta_{prefix}{metrics[0]}" in results for prefix in names)
    header = ["system", *(f"{label(m)} ({METRICS[m][1]} is better)" for m in metrics)]
    header += [f"fine-tuned minus this, {label(metrics[0])}"] if with_differences else []
    rows = [
        [
            name + (" (best baseline)" if prefix == best else ""),
            *(with_interval(results, prefix + metric) for metric in metrics),
            *([difference(results, f"delta_{prefix}{metrics[0]}")] if with_differences else []),
        ]
        for prefix, name in names.items()
        if metric_names(results, [prefix])
    ]
    return header, rows


def headline_table(results: dict[str, Any]) -> str:
    """Return `headline_rows` as a Markdown table, the fine-tuned model in bold."""
    header, rows = headline_rows(results)
    if not rows:
        return "No test metric was measured."
    return table(header, [[cell if cell == "-" else f"**{cell}**" for cell in rows[0]], *rows[1:]])


def look_at(results: dict[str, Any], advice: dict[str, str], notes: Sequence[str] = ()) -> str:
    """Return a list of what a reader should look at first, the most important on top.

    Args:
        results: the content of `all_results.json`.
        advice: error pattern (its key without `errors_`) -> what to do about it.
        notes: what only this task knows.
    """
    found = []
    for metric in headline_metrics(results)[:1]:
        best, sign = best_baseline(results, metric), 1 if METRICS[metric][1] == "higher" else -1
        delta = results.get(f"delta_{best}{metric}")
        said = "" if delta is None else verdict(results, f"delta_{best}{metric}", sign * delta)
        if best and (does := SIMPLE.get(said.split(" (")[0])):
            name = system_names(results)[best]
            found.append(f"**A simple method {does}:** {name}, in {label(metric)}. {CHEAPER}")
        if not results.get(f"test_{metric}_ci95") and (units := results.get("test_clusters")) is not None:
            found.append(
                f"**Too few test rows:** no number has an interval, and no difference could be tested, with {units:,} "
                f"clusters of test rows (intervals need {MIN_CLUSTERS} of similar size). Raise `test_fraction` or "
                "`max_predict_samples`, or add patients, not rows."
            )
        low, high = results.get(f"test_{metric}_ci95") or (0, 0)
        if METRICS[metric][1] == "higher" and high - low > WIDE:
            found.append(
                f"**Few test rows:** the interval of {label(metric)} is {high - low:.2f} wide. A smaller difference "
                "between two runs tells nothing; compare them with several seeds (`sweep.py`)."
            )
    found += notes
    total = results.get("test_rows")
    patterns = [(name, n) for name, n in error_counts(results).items() if n and name in advice and name != "other"]
    for name, n in patterns[:3]:
        share = f" ({n / total:.1%} of the test rows)" if total else ""
        found.append(f"**{name.replace('_', ' ').capitalize()}:** {n:,}{share}. {advice[name]}")
    rows = {"dropped": results.get("data_rows_read"), "train": results.get("train_rows")}
    for key, value in results.items():
        part = key.removeprefix("data_").split("_")
        of = rows.get(part[0]) if part[0] == "dropped" or part[1:2] == ["cut"] else None
        if key.startswith("data_") and of and is_number(value) and value / of >= NOTABLE:
            found.append(f"**Data, {' '.join(part)}:** {value:,} of {of:,} rows ({value / of:.1%}).")
    found += [f"**Data:** {many:,} {says}." for key, says in KEYS.items() if (many := results.get(f"data_{key}"))]
    if patterns:
        found.append("Read the rows themselves in `_private/error_examples.csv`: no table replaces that.")
    return "\n".join(f"- {line}" for line in found)
