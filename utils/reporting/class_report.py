"""The report of a classifier: classes, confusions, calibration, abstention, and the tree if there is one."""

from pathlib import Path
from typing import Any

from utils.evaluation.class_analysis import ERROR_ADVICE
from utils.json_files import read_json
from utils.reporting import report
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
from utils.reporting.tables import format_number, paragraphs, table, with_interval

PLOTS = {
    "confusion_matrix.png": plot_confusion, "reliability.png": plot_reliability,
    "risk_coverage.png": plot_risk_coverage, "error_by_length.png": plot_error_by_length,
    "error_by_training_rows.png": plot_error_by_training_rows, "tree.png": plot_tree,
}  # fmt: skip
MAX_ABOVE = 40  # classes of a confusion matrix with numbers: the levels above the leaves have few classes
MAX_PARENTS = 30


def write_report(output_dir: Path) -> Path:
    """Write `report.md`, `baseline_comparison.csv` and `plots/*.png`, and return the path of `report.md`.

    Args:
        output_dir: as for `utils.reporting.report.write_report`, with `analysis.json`.
    """
    output_dir = Path(output_dir)
    analysis, plots = read_json(output_dir / "analysis.json"), report.plots_folder(output_dir)
    drawn = {name: plot(analysis, plots / name) for name, plot in PLOTS.items()}
    if len(analysis["classes"]) > MOST:
        drawn["confusion_matrix_all.png"] = plot_confusion(analysis, plots / "confusion_matrix_all.png", most=None)
    for name, level in zip(analysis.get("level_names", []), analysis.get("levels", []), strict=False):
        file = f"confusion_matrix_{name}.png"
        drawn[file] = plot_confusion(level, plots / file, most=MAX_ABOVE)
        drawn[f"reliability_{name}.png"] = plot_reliability(level, plots / f"reliability_{name}.png")
    images = report.images(drawn)
    sections = {"Tree": tree_section(analysis, images)} if "tree" in analysis else {}
    return report.write_report(output_dir, ERROR_ADVICE, sections | class_sections(analysis, images))


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
