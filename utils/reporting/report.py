"""The results of a run as people read them: `report.md` and `plots/`, made from the files in `output_dir` alone."""

import csv
from pathlib import Path
from typing import Any

from utils.json_files import read_json
from utils.reporting.class_plots import (
    MOST,
    plot_confusion,
    plot_error_by_length,
    plot_error_by_training_rows,
    plot_reliability,
    plot_risk_coverage,
    plot_tree,
    wrong_rows,
)
from utils.reporting.metric_names import baselines_line, label, metric_names, notes_line, system_names
from utils.reporting.plots import plot_loss, plot_metrics
from utils.reporting.summary_plots import plot_errors, plot_findings, plot_length_and_novelty, plot_source_length
from utils.reporting.tables import (
    confidence_table,
    data_tables,
    differences_table,
    errors_table,
    format_number,
    paragraphs,
    results_table,
    summary,
    table,
    training_lines,
    with_interval,
)

FILES = {
    "README.md": "the model card", "report.md": "this report", "all_results.json": "every number, unrounded",
    "baseline_comparison.csv": "the test metrics of each system, unrounded",
    "analysis.json": "every number about classes, lengths, confidence or findings, unrounded",
    "per_class.csv": "precision, recall and F1 of each class", "classification_report.txt": "the same to read",
    "recipe.yaml": "the recipe that repeats the run", "task.json": "what `predict.py` and `app.py` need",
    "adapter_model.safetensors": "the adapter's weights", "adapter_config.json": "the adapter's configuration",
    "model.safetensors": "the model's weights", "linear.safetensors": "the linear model of `ensemble`",
    "_private": "predictions and errors as text; never published",
}  # fmt: skip
CLASS_PLOTS = {
    "confusion_matrix.png": plot_confusion, "reliability.png": plot_reliability,
    "risk_coverage.png": plot_risk_coverage, "error_by_length.png": plot_error_by_length,
    "error_by_training_rows.png": plot_error_by_training_rows, "tree.png": plot_tree,
}  # fmt: skip
SUMMARY_PLOTS = {
    "factuality.png": plot_findings, "errors.png": plot_errors, "quality_by_length.png": plot_source_length,
    "length_and_novelty.png": plot_length_and_novelty,
}  # fmt: skip
MOST_ABOVE = 40  # classes of a confusion matrix with numbers: the levels above the leaves have few classes
MAX_PARENTS = 30


def write_report(output_dir: Path, advice: dict[str, str]) -> Path:
    """Write `report.md`, `baseline_comparison.csv` and `plots/*.png` from the files in `output_dir`.

    Args:
        output_dir: folder with `all_results.json`, `task.json` and, for the loss curve, `trainer_state.json`, for the
            sections about classes or summaries `analysis.json`.
        advice: error pattern (the part of its key after `errors_`) -> what to do about it.

    Returns:
        the path of `report.md`.
    """
    output_dir = Path(output_dir)
    results, task = read_json(output_dir / "all_results.json"), read_json(output_dir / "task.json")
    plots = output_dir / "plots"
    plots.mkdir(exist_ok=True)
    history = read_json(output_dir / "trainer_state.json").get("log_history", [])
    analysis = read_json(output_dir / "analysis.json")
    drawn = {"baseline_comparison.png": plot_metrics(results, plots / "baseline_comparison.png")}
    drawn["loss.png"] = plot_loss(history, plots / "loss.png")
    drawn |= {name: plot(analysis, plots / name) for name, plot in CLASS_PLOTS.items()}
    if len(analysis.get("classes", [])) > MOST:
        drawn["confusion_matrix_all.png"] = plot_confusion(analysis, plots / "confusion_matrix_all.png", most=None)
    for name, level in zip(analysis.get("level_names", []), analysis.get("levels", []), strict=False):
        file = f"confusion_matrix_{name}.png"
        drawn[file] = plot_confusion(level, plots / file, most=MOST_ABOVE)
        drawn[f"reliability_{name}.png"] = plot_reliability(level, plots / f"reliability_{name}.png")
    if "source_length" in analysis:
        drawn |= {name: plot(results, analysis, plots / name) for name, plot in SUMMARY_PLOTS.items()}
    images = {name: f"![{name.removesuffix('.png')}](plots/{name})" for name, done in drawn.items() if done}
    write_comparison(results, output_dir / "baseline_comparison.csv")

    present = [(name, about) for name, about in FILES.items() if name == "report.md" or (output_dir / name).exists()]
    sections = {
        "Results": paragraphs(
            results_table(results),
            baselines_line(results),
            notes_line(results),
            images.get("baseline_comparison.png"),
        ),
        "Differences": differences_table(results),
        "Tree": tree_section(analysis, images) if "tree" in analysis else "",
        **(class_sections(analysis, images) if "classes" in analysis else {}),
        **(summary_sections(results, analysis, images) if "source_length" in analysis else {}),
        "Confidence": confidence_table(results, task),
        "Error patterns": paragraphs(errors_table(results, advice), images.get("errors.png")),
        "Data": data_tables(results),
        "Training": paragraphs(training_lines(task, results), images.get("loss.png")),
        "Run it again": task.get("command") and f"```bash\n{task['command']}\n```",
        "Files": "\n".join(f"- `{name}`: {about}" for name, about in present),
    }
    body = "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items() if text)
    path = output_dir / "report.md"
    path.write_text(f"# Report: {task.get('task', 'run')}\n\n{summary(results)}\n{body}", encoding="utf-8")
    return path


def write_comparison(results: dict[str, Any], path: Path) -> None:
    """Write the test metrics as csv: a row a system, and for each metric its value and both ends of its interval."""
    names = system_names(results)
    metrics = metric_names(results, list(names))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["system", *(f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high"))])
        for prefix, name in names.items():
            keys = [prefix + metric for metric in metrics]
            cells = [[results.get(key), *(results.get(f"{key}_ci95") or ("", ""))] for key in keys]
            writer.writerow([name, *sum(cells, [])])


def class_sections(analysis: dict[str, Any], images: dict[str, str]) -> dict[str, str]:
    """The sections of a classifier's report.

    Args:
        analysis: the content of `analysis.json`.
        images: name of each plot that was drawn -> its Markdown.
    """
    scored = [row for row in analysis["classes"] if row["f1"] is not None]
    worst = sorted(scored, key=lambda row: (row["f1"], -row["support"]))[:10]
    numbers = ("train_rows", "support", "precision", "recall")
    classes = [[row["label"], *(format_number(row[n]) for n in numbers), with_interval(row, "f1")] for row in worst]
    pairs = [
        [row["true"], row["predicted"], row["rows"], f"{row['share_of_true']:.1%}", format_number(row["confidence"])]
        for row in analysis["confused_pairs"][:10]
    ]
    pairs_header = ["true", "predicted", "rows", "share of the true class", "mean confidence"]
    tempered = analysis.get("temperature")
    sentences = [f"Logits are divided by the temperature {format_number(tempered)}." if tempered else ""]
    sentences.append(abstention_sentence(analysis))
    length, training = analysis["length"], analysis["training"]
    correlations = (
        f"Spearman's correlation of a text's words and being wrong is {format_number(length['spearman'], '+')}; of a "
        f"class's training rows and its error rate {format_number(training['spearman'], '+')} (Pearson's "
        f"{format_number(training['pearson'], '+')})."
    )
    return {
        "Classes": paragraphs(
            table(["class", "training rows", "test rows", "precision", "recall", "F1"], classes),
            f"The {len(worst)} classes of lowest F1; all {len(analysis['classes'])} stand in `per_class.csv`.",
        ),
        "Most confused": paragraphs(
            table(pairs_header, pairs) if pairs else "Every test row is right.",
            images.get("confusion_matrix.png"),
            images.get("confusion_matrix_all.png"),
        ),
        "Calibration and abstention": paragraphs(
            " ".join(filter(None, sentences)), images.get("reliability.png"), images.get("risk_coverage.png")
        ),
        "Length and training rows": paragraphs(
            correlations, images.get("error_by_length.png"), images.get("error_by_training_rows.png")
        ),
    }


def abstention_sentence(analysis: dict[str, Any]) -> str:
    """What is answered and how often that is wrong, from `analysis["abstention"]`; empty without it."""
    chosen = analysis.get("abstention") or {}
    if not chosen:
        return ""
    if chosen["threshold"] is None:
        return f"No threshold was found that keeps `max_risk: {chosen['max_risk']}`: let a person decide."
    wrong = "-" if chosen["risk"] is None else f"{chosen['risk']:.1%}"
    others = "stop at a level above, or are for a person" if "tree" in analysis else "are for a person"
    return (
        f"With `max_risk: {chosen['max_risk']}` the model answers where its confidence is "
        f"{format_number(chosen['threshold'])} or more: {chosen['coverage']:.1%} of the test rows, {wrong} of them "
        f"wrong. The others {others}."
    )


def tree_section(analysis: dict[str, Any], images: dict[str, str]) -> str:
    """The levels above the leaves: classes by F1, each with its child that is most often wrong, and what is answered.

    Args:
        analysis, images: as for `class_sections`.
    """
    levels = [level["classes"] for level in (*analysis["levels"], analysis)]
    names, sections = analysis["level_names"], [images.get("tree.png")]
    for level, parents in enumerate(analysis["tree"]["parents"]):
        children = {parent: [] for parent in range(len(levels[level]))}
        for child, parent in zip(levels[level + 1], parents, strict=True):
            children[parent].append(child)
        scores = [(row["f1"] is None, row["f1"], -row["support"]) for row in levels[level]]
        rows = []
        for parent in sorted(children, key=scores.__getitem__)[:MAX_PARENTS]:
            row, worst = levels[level][parent], max(children[parent], key=wrong_rows)
            wrong = "-"  # also of a parent without finer classes
            if len(children[parent]) > 1 and wrong_rows(worst):
                wrong = f"{worst['label']} ({wrong_rows(worst):,} of {worst['support']:,})"
            cells = (format_number(row[name]) for name in ("support", "recall"))
            rows.append([row["label"], *cells, with_interval(row, "f1"), wrong])
        left_out = len(children) - len(rows)
        sections += [
            table([names[level].replace("_", " "), "test rows", "recall", "F1", "child most often wrong"], rows),
            f"The {len(rows)} of lowest F1, of {len(children):,}." if left_out else None,
            images.get(f"confusion_matrix_{names[level]}.png"),
            abstention_sentence(analysis["levels"][level]),
            images.get(f"reliability_{names[level]}.png"),
        ]
    return paragraphs(*sections)


def summary_sections(results: dict[str, Any], analysis: dict[str, Any], images: dict[str, str]) -> dict[str, str]:
    """The sections of a summarizer's report.

    Args:
        results: the content of `all_results.json`.
        analysis, images: as for `class_sections`.
    """
    columns = ("hallucinations", "rows_with_hallucinations", "omissions", "rows_with_omissions")
    findings = [[kind, *(f"{counts[c]:,}" for c in columns)] for kind, counts in analysis["findings"].items()]
    header = ["kind", "hallucinated", "summaries with one", "left out", "summaries that lack one"]
    own = [
        [label(name), format_number(value), with_interval(results, f"test_{name}")]
        for name, value in analysis["references"].items()
    ]
    correlations = [f"{label(k)} {format_number(v, '+')}" for k, v in analysis["source_length"]["spearman"].items()]
    return {
        "Factuality": paragraphs(
            table(header, findings) if findings else "Nothing was invented, and nothing left out.",
            "Of the fine-tuned model's summaries: what their source does not say, and what they lack of the "
            "reference. Rules and word lists found it, so a clinician has to read it: "
            "`_private/predictions_test.jsonl` has each with its place.",
            images.get("factuality.png"),
        ),
        "Length and compression": paragraphs(
            table(["of all test rows", "references", "fine-tuned"], own),
            f"Spearman's correlation with the words of the source: {', '.join(correlations)}.",
            images.get("quality_by_length.png"),
            images.get("length_and_novelty.png"),
        ),
    }
