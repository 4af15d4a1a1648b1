"""The report of a classifier: classes, confusions, calibration, abstention and, if there is one, the tree."""

from pathlib import Path
from typing import Any

from utils.evaluation.calibration import least_rows
from utils.evaluation.class_analysis import ERROR_ADVICE
from utils.json_files import read_json
from utils.reporting import report
from utils.reporting.label_report import write_label_report
from utils.reporting.tables import format_number, paragraphs, table, with_interval, wrong_rows

MAX_ABOVE = 40  # classes in the confusion matrix of a level above the leaves: the most that fit with their counts
MAX_PARENTS = 30  # rows of a table of parent classes


def write_report(output_dir: Path) -> Path:
    """Write `report.md`, `baseline_comparison.csv` and `plots/*.png`, and return the path of `report.md`.

    Args:
        output_dir: as for `utils.reporting.report.write_report`, with `analysis.json`.
    """
    from utils.reporting import class_plots  # here: a run imports matplotlib at its end

    output_dir = Path(output_dir)
    analysis, plots = read_json(output_dir / "analysis.json"), report.plots_folder(output_dir)
    if "problem_type" in analysis:
        return write_label_report(output_dir, weakest_classes(analysis))
    drawn = {name: plot(analysis, plots / name) for name, plot in class_plots.PLOTS.items()}
    if len(analysis["classes"]) > class_plots.MOST:
        path = plots / "confusion_matrix_all.png"
        drawn[path.name] = class_plots.plot_confusion(analysis, path, most=None)
    for name, level in zip(analysis.get("level_names", []), analysis.get("levels", []), strict=False):
        file = f"confusion_matrix_{name}.png"
        drawn[file] = class_plots.plot_confusion(level, plots / file, most=MAX_ABOVE)
        path = plots / f"reliability_{name}.png"
        drawn[path.name] = class_plots.plot_reliability(level, path)
    images = report.images(drawn)
    sections = {"Tree": tree_section(analysis, images)} if "tree" in analysis else {}
    sections |= class_sections(analysis, images)
    return report.write_report(output_dir, ERROR_ADVICE, sections, notes=weakest_classes(analysis))


def weakest_classes(analysis: dict[str, Any]) -> list[str]:
    """Name the three classes with the lowest F1 and say how many training and test rows they have."""
    scored = [row for row in analysis["classes"] if row["f1"] is not None]
    worst = sorted(scored, key=lambda row: (row["f1"], -row["support"]))[:3]
    named = [
        f"{row['label']} (F1 {row['f1']:.3f}; training rows {row['train_rows']:,}, test rows {row['support']:,})"
        for row in worst
    ]
    return [f"**Weakest classes:** {'; '.join(named)}."] if worst else []


def class_sections(analysis: dict[str, Any], images: dict[str, str]) -> dict[str, str]:
    """Return the sections of a classifier's report, heading -> Markdown.

    Args:
        analysis: the content of `analysis.json`.
        images: file name of each plot that was drawn -> its Markdown.
    """
    scored = [row for row in analysis["classes"] if row["f1"] is not None]
    worst = sorted(scored, key=lambda row: (row["f1"], -row["support"]))[:10]
    all_classes = f"The {len(worst)} classes with the lowest F1; `per_class.csv` has all {len(analysis['classes'])}."
    numbers = ("train_rows", "support", "precision", "recall")
    classes = [[row["label"], *(format_number(row[n]) for n in numbers), with_interval(row, "f1")] for row in worst]
    pairs = [
        [row["true"], row["predicted"], row["rows"], f"{row['share_of_true']:.1%}", format_number(row["confidence"])]
        for row in analysis["confused_pairs"][:10]
    ]
    pairs_header = ["true", "predicted", "rows", "share of the true class", "mean confidence"]
    temperature, length, training = analysis.get("temperature"), analysis["length"], analysis["training"]
    correlations = (
        f"Spearman correlation between the length of a text and an error: {format_number(length['spearman'], '+')}. "
        "Correlation between the training rows of a class and its error rate: Spearman "
        f"{format_number(training['spearman'], '+')}, Pearson {format_number(training['pearson'], '+')}."
    )
    return {
        "Classes": paragraphs(
            table(["class", "training rows", "test rows", "precision", "recall", "F1"], classes),
            all_classes if len(worst) < len(analysis["classes"]) else None,
        ),
        "Most confused": paragraphs(
            table(pairs_header, pairs) if pairs else "The model made no errors on the test rows.",
            images.get("confusion_matrix.png"),
            images.get("confusion_matrix_all.png"),
        ),
        "Calibration and abstention": paragraphs(
            f"Logits are divided by the temperature {format_number(temperature)}." if temperature else None,
            abstention_sentence(analysis, is_root_level="tree" not in analysis),
            images.get("reliability.png"),
            images.get("risk_coverage.png"),
        ),
        "Length and training rows": paragraphs(
            correlations, images.get("error_by_length.png"), images.get("error_by_training_rows.png")
        ),
    }


def abstention_sentence(analysis: dict[str, Any], is_root_level: bool) -> str:
    """Describe the abstention threshold with its coverage and risk; empty if no threshold was fitted."""
    chosen = analysis.get("abstention") or {}
    if not chosen:
        return ""
    least = least_rows(chosen["max_risk"])
    if chosen["threshold"] is None and chosen.get("rows", least) < least:
        return (
            f"There is no threshold of abstention: `max_risk: {chosen['max_risk']}` needs at least {least:,} "
            f"validation rows that are no part of the fit, one from each cluster, and the run had {chosen['rows']:,}."
        )
    if chosen["threshold"] is None:
        return f"No confidence threshold keeps `max_risk: {chosen['max_risk']}`: leave these decisions to a person."
    wrong = "-" if chosen["risk"] is None else f"{chosen['risk']:.1%}"
    others = "go to a person" if is_root_level else "stop at a higher level or go to a person"
    return (
        f"With `max_risk: {chosen['max_risk']}` the model answers when its confidence is "
        f"{format_number(chosen['threshold'])} or more. On the test rows its coverage is {chosen['coverage']:.1%} and "
        f"its selective risk {wrong}. The other rows {others}. {guarantee(chosen)}"
    ).strip()


def guarantee(chosen: dict[str, Any]) -> str:
    """Say what `max_risk` promises about new rows; empty for a run of an earlier version."""
    if "rows" not in chosen:
        return ""
    rows = f"The threshold comes from {chosen['rows']:,} validation rows, one from each of their clusters,"
    if chosen["best_checkpoint"]:
        return (
            f"{rows} which also chose the checkpoint (`load_best_model_at_end`), and look better than new rows: it "
            f"is no guarantee that at most {chosen['max_risk']:.1%} of the answers will be wrong."
        )
    return (
        f"{rows} which fitted nothing else: with a probability of 95%, at most {chosen['max_risk']:.1%} of the "
        "answers to new texts from the same source are wrong."
    )


def tree_section(analysis: dict[str, Any], images: dict[str, str]) -> str:
    """Describe the levels above the leaves: the classes with the lowest F1, their worst child, and the abstention.

    Args:
        analysis, images: as for `class_sections`.
    """
    levels = [level["classes"] for level in (*analysis["levels"], analysis)]
    names, sections = analysis["level_names"], [images.get("tree.png")]
    for level, parents in enumerate(analysis["tree"]["parents"]):
        children: dict[int, list[dict[str, Any]]] = {parent: [] for parent in range(len(levels[level]))}
        for child, parent in zip(levels[level + 1], parents, strict=True):
            children[parent].append(child)
        scores = [(row["f1"] is None, row["f1"], -row["support"]) for row in levels[level]]
        rows = []
        for parent in sorted(children, key=scores.__getitem__)[:MAX_PARENTS]:
            row, worst = levels[level][parent], max(children[parent], key=wrong_rows)
            wrong = "-"  # also for a parent that has no finer classes
            if len(children[parent]) > 1 and wrong_rows(worst):
                wrong = f"{worst['label']} ({wrong_rows(worst):,} of {worst['support']:,})"
            cells = (format_number(row[name]) for name in ("support", "recall"))
            rows.append([row["label"], *cells, with_interval(row, "f1"), wrong])
        left_out = len(children) - len(rows)
        sections += [
            table([names[level].replace("_", " "), "test rows", "recall", "F1", "child with the most errors"], rows),
            f"The {len(rows)} of {len(children):,} classes with the lowest F1." if left_out else None,
            images.get(f"confusion_matrix_{names[level]}.png"),
            abstention_sentence(analysis["levels"][level], is_root_level=level == 0),
            images.get(f"reliability_{names[level]}.png"),
        ]
    return paragraphs(*sections)
