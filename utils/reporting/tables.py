"""The results of a run as Markdown tables and sentences. A missing key omits its line."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.data.splits import MIN_CLUSTERS
from utils.reporting.metric_names import METRICS, is_number, label, metric_names, system_names

ALPHA = 0.05  # p below which two systems are called different


def paragraphs(*texts: str | None) -> str:
    """Join the non-empty texts with a blank line between them."""
    return "\n\n".join(text for text in texts if text)


def results_table(results: dict[str, Any]) -> str:
    """Return one row per metric and one column per system, with 95% intervals in brackets."""
    names = system_names(results)
    rows = [
        [label(metric), METRICS.get(metric, ("", "-"))[1], *(with_interval(results, p + metric) for p in names)]
        for metric in metric_names(results, list(names))
    ]
    return table(["metric", "better", *names.values()], rows) if rows else "No test metric was measured."


def differences_table(results: dict[str, Any]) -> str:
    """Return the paired differences between the fine-tuned model and each other system, for each metric that has a
    better direction, with 95% intervals and p-values. Exact tests of accuracies follow."""
    others = {prefix: name for prefix, name in system_names(results).items() if prefix != "test_"}
    rows = []
    for metric in metric_names(results, [f"delta_{prefix}" for prefix in others]):
        if METRICS.get(metric, ("", "higher"))[1] in ("higher", "lower"):
            rows.append([label(metric), *(difference(results, f"delta_{prefix}{metric}") for prefix in others)])
    tests = {
        m: None for key, p in results.items() for m in re.findall(r"^mcnemar_.*?test_(.+)_p$", key) if p is not None
    }
    single = results.get("test_clusters", results.get("test_rows")) == results.get("test_rows")
    exact = "McNemar's test" if single else "exact test by clusters"
    for metric in tests:
        keys = [f"mcnemar_{prefix.removeprefix('base_')}{metric}_p" for prefix in others]
        rows.append([f"{label(metric)}, {exact}", *(_p_value(results.get(key)) or "-" for key in keys)])
    return table(["fine-tuned minus", *others.values()], rows) if rows else ""


def data_tables(results: dict[str, Any], digits: int = 12, zeros: bool = True) -> str:
    """Return the rows and fingerprint of each split, then what data preparation removed or changed (`data_*`).

    Args:
        results: the content of `all_results.json`.
        digits: how many digits of a fingerprint to show.
        zeros: also show the steps that changed nothing.
    """
    splits = [
        [split, format_number(results.get(f"{split}_rows")), f"`{results.get(f'{split}_sha256', '')[:digits]}`"]
        for split in ("train", "validation", "test")
        if f"{split}_rows" in results
    ]
    steps = [
        [
            key.removeprefix("data_").replace("_", " "),
            format_number(value) + _share_of_split(results, key) if is_number(value) else value,
        ]
        for key, value in results.items()
        if key.startswith("data_") and (isinstance(value, str) or is_number(value)) and (zeros or value)
    ]
    return paragraphs(
        table(["split", "rows", "sha256"], splits) if splits else None,
        table(["data", "value"], steps) if steps else None,
    )


def confidence_table(results: dict[str, Any], task: dict[str, Any]) -> str:
    """Return how well the answers in each third of confidence score, on validation and test rows."""
    measured = task.get("confidence")
    if not measured:
        return ""
    low, high = (format_number(edge) for edge in measured["edges"])
    spans = {
        "least_confident": f"below {low}",
        "middle_confident": f"{low} to {high}",
        "most_confident": f"{high} or more",
    }
    metric = measured["metric"]
    rows = [
        [span, *(with_interval(results, f"{split}_{metric}_{part}") for split in ("eval", "test"))]
        for part, span in spans.items()
    ]
    return paragraphs(
        table(["confidence", f"{label(metric)}, validation", f"{label(metric)}, test"], rows),
        "Confidence is the geometric mean of the probabilities that the model gave to the tokens of its answer, "
        f"lowered where it repeats itself. The limits divide {measured['rows']:,} validation answers, sampled from "
        "all clusters, into thirds. With each answer, `app.py` shows the score of its third.",
        confidence_sentence(results, measured),
    )


def confidence_sentence(results: dict[str, Any], measured: dict[str, Any]) -> str:
    """Say how well confidence tells right test answers from wrong ones; empty if it was not measured."""
    if "test_confidence_auroc" not in results:
        return ""
    right = "its letter is right" if "accuracy" in measured["metric"] else f"ROUGE-L is {measured['all']:.3f} or more"
    auroc, by_length, gain = (
        with_interval(results, f"test_{name}") for name in ("confidence_auroc", "length_auroc", "confidence_gain")
    )
    return (
        f"Call an answer right if {right}. Of a right and a wrong test answer, the right one has the higher "
        f"confidence in a share of {auroc} (AUROC). The length of the answers alone gives {by_length}; confidence "
        f"minus that is {gain}."
    )


def wrong_rows(row: dict[str, Any]) -> int:
    """Return how many test rows of a class were predicted as another class."""
    return round(row["support"] * (1 - (row["recall"] or 0)))


def error_counts(results: dict[str, Any]) -> dict[str, int]:
    """Map each error pattern to the number of test rows that show it, the most frequent first."""
    counts = {key.removeprefix("errors_"): n for key, n in results.items() if key.startswith("errors_")}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def errors_table(results: dict[str, Any], advice: dict[str, str]) -> str:
    """Return the count of each error pattern, its share of the test rows and, if given, the advice on it."""
    total, header = results.get("test_rows"), ["pattern", "rows", "share", *(["what to do"] if advice else [])]
    rows = [
        [name.replace("_", " "), format_number(n), f"{n / total:.1%}" if total else "-", advice.get(name, "")]
        for name, n in error_counts(results).items()
    ]
    return table(header, [row[: len(header)] for row in rows]) if rows else ""


def precision(task: dict[str, Any]) -> str:
    """Describe the precision of the base model. `task["quantization"]` holds only the settings that differ from the
    defaults of `BitsAndBytesConfig`."""
    config = task.get("quantization")
    if not config:
        return f"none ({task.get('dtype') or 'float32'})"
    if config.get("load_in_8bit"):
        return "8-bit"
    double = " with double quantization" if config.get("bnb_4bit_use_double_quant") else ""
    compute = config.get("bnb_4bit_compute_dtype", "float32")
    return f"4-bit {config.get('bnb_4bit_quant_type', 'fp4')}{double}, computing in {compute}"


def is_hub_id(name: str | None) -> bool:
    """Return whether `name` can be a Hub id and is not a local path."""
    return bool(name and re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) and not Path(name).exists())


def training_lines(task: dict[str, Any], results: dict[str, Any]) -> str:
    """List what was trained, for how long, on what device and with which library versions."""
    total, trainable = results.get("total_parameters"), results.get("trainable_parameters")
    share = f" of {total:,} ({trainable / total:.2%})" if total and trainable else ""
    base = task.get("base_model")
    facts = {
        "Base model": base,
        "Revision": is_hub_id(base) and task.get("base_model_revision"),
        "First adapter": task.get("first_adapter"),
        "Quantization": base and precision(task),
        "Trainable parameters": trainable and f"{trainable:,}{share}",
        "LoRA parameters": results.get("lora_parameters"),
        "Fully trained module parameters": results.get("saved_module_parameters"),
        "Steps": results.get("train_steps"),
        "Training loss": results.get("train_loss"),
        "Validation loss": results.get("eval_loss"),
        "Ensemble weight of the class prior": results.get("ensemble_prior"),
        "Ensemble weight of the linear model": results.get("ensemble_linear"),
        "Training time": "train_runtime" in results and f"{results['train_runtime'] / 60:.1f} min",
        "Samples per second": results.get("train_samples_per_second"),
        "Tokens per second": results.get("train_tokens_per_second"),
        "Device": task.get("device"),
        "Peak memory": "peak_memory_gb" in results and f"{results['peak_memory_gb']:.2f} GB",
        "Peak GPU memory": "peak_gpu_memory_gb" in results and f"{results['peak_gpu_memory_gb']:.2f} GB",
        "Median latency per text": "latency_p50_ms" in results and f"{format_number(results['latency_p50_ms'])} ms",
        "95th percentile latency": "latency_p95_ms" in results and f"{format_number(results['latency_p95_ms'])} ms",
        "Texts per second in batches": results.get("predict_texts_per_second"),
        "Code": _commits(results),
        "Versions": ", ".join(f"{name} {version}" for name, version in task.get("versions", {}).items()),
    }
    return "\n".join(f"- {name}: {format_number(fact)}" for name, fact in facts.items() if fact)


def _commits(results: dict[str, Any]) -> str | None:
    """Name the git commit of the code, both where it changed between training and evaluation."""
    evaluated, trained = results.get("commit"), results.get("train_commit", results.get("commit"))
    if trained == evaluated:
        return evaluated and f"commit {evaluated}"
    return f"trained at commit {trained or 'unknown'}, evaluated at {evaluated or 'unknown'}"


def intervals_line(results: dict[str, Any]) -> str:
    """Say what the brackets show, or why there are none."""
    found, needed = results.get("test_clusters"), f"intervals and p-values need {MIN_CLUSTERS} of similar size"
    if any(key.startswith("test_") and key.endswith("_ci95") and value for key, value in results.items()):
        return (
            f"Brackets show 95% intervals over {found:,} clusters of rows."
            if found
            else "Brackets show 95% intervals."
        )
    return "" if found is None else f"Too few clusters of test rows ({found:,}) to tell: {needed}."


def format_number(value: Any, sign: str = "") -> str:
    """Format a number with three decimals below 10 and fewer above; None and NaN become "-", other values
    their text."""
    if not is_number(value):
        return "-" if value is None or isinstance(value, float) and math.isnan(value) else str(value)
    if isinstance(value, int):
        return f"{value:{sign},}"
    size = abs(value)
    if 0 < size < 0.0005:
        return f"{value:{sign}.2g}"
    return f"{value:{sign},.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def interval_text(low_high: list[float] | None, sign: str = "") -> str:
    """Format an interval as `[low, high]`; empty if there is none."""
    return f"[{format_number(low_high[0], sign)}, {format_number(low_high[1], sign)}]" if low_high else ""


def with_interval(results: dict[str, Any], key: str) -> str:
    """Format `results[key]`, followed by its 95% interval in brackets where there is one."""
    return f"{format_number(results.get(key))} {interval_text(results.get(f'{key}_ci95'))}".strip()


def difference(results: dict[str, Any], key: str) -> str:
    """Format a paired difference with its interval and p-value; "-" if it was not measured."""
    if not is_number(results.get(key)):
        return "-"
    parts = (interval_text(results.get(f"{key}_ci95"), "+"), _p_value(results.get(f"{key}_p")))
    return " ".join([format_number(results[key], "+"), *(part for part in parts if part)])


def _share_of_split(results: dict[str, Any], key: str) -> str:
    match = re.fullmatch(r"data_(train|validation|test)_cut_(?:texts|sources)", key)
    rows = match and results.get(f"{match[1]}_rows")
    return f" ({results[key] / rows:.1%})" if rows else ""


def _p_value(p: float | None) -> str:
    return "" if not is_number(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; each row has one cell per column of the header."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])
