"""`report.md` and the plots that every task has, made from the files in `output_dir` alone."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.evaluation.error_analysis import ERROR_ADVICE
from utils.json_files import read_json, write_text
from utils.reporting.headline import NOT_FOR, headline_table, look_at, opening, summary
from utils.reporting.html_report import to_html
from utils.reporting.metric_names import baselines_line, leaks_line, metric_names, notes_line, system_names
from utils.reporting.tables import (
    confidence_table,
    data_tables,
    differences_table,
    errors_table,
    paragraphs,
    results_table,
    training_lines,
)

FILES = {
    "README.md": "the model card", "report.md": "this report",
    "report.html": "the same with its plots in one file, to send to someone",
    "all_results.json": "every number, unrounded",
    "baseline_comparison.csv": "the test metrics of each system, unrounded",
    "analysis.json": "the numbers behind the tables and plots of this task, unrounded",
    "per_class.csv": "precision, recall and F1 of each class",
    "classification_report.txt": "the same as text, from scikit-learn",
    "recipe.yaml": "the recipe that repeats the run", "task.json": "what `predict.py` and `app.py` need",
    "adapter_model.safetensors": "the weights of the adapter", "adapter_config.json": "the adapter's configuration",
    "model.safetensors": "the weights of the model", "linear.safetensors": "the linear model of the `ensemble`",
    "_private": "predictions and errors with their texts; never published",
}  # fmt: skip


def write_report(
    output_dir: Path,
    advice: dict[str, str] = ERROR_ADVICE,
    task_sections: dict[str, str] | None = None,
    error_image: str | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the report, its table and the common plots, and return the path of `report.md`.

    The files: `report.md`, `report.html`, `baseline_comparison.csv` and `plots/`.

    Args:
        output_dir: folder with `all_results.json`, `task.json` and, for the loss curve, `trainer_state.json`.
        advice: error pattern (its key without `errors_`) -> what to do about it.
        task_sections: heading -> Markdown of the sections that only this task has.
        error_image: Markdown of a plot of the error patterns.
        notes: what else of this task a reader should look at.
    """
    from utils.reporting.plots import plot_loss, plot_metrics  # here: a run imports matplotlib at its end

    output_dir = Path(output_dir)
    results, task = read_json(output_dir / "all_results.json"), read_json(output_dir / "task.json")
    history = read_json(output_dir / "trainer_state.json").get("log_history", [])
    plots = plots_folder(output_dir)
    shown = images(
        {
            "baseline_comparison.png": plot_metrics(results, plots / "baseline_comparison.png"),
            "loss.png": plot_loss(history, plots / "loss.png"),
        }
    )
    write_comparison(results, output_dir / "baseline_comparison.csv")
    made = ("report.md", "report.html")  # after this list
    present = [(name, about) for name, about in FILES.items() if name in made or (output_dir / name).exists()]
    sections = {
        "Results": paragraphs(headline_table(results), baselines_line(results), shown.get("baseline_comparison.png")),
        "What to look at": look_at(results, advice, notes),
        **(task_sections or {}),
        "Confidence": confidence_table(results, task),
        "Error patterns": paragraphs(errors_table(results, advice), error_image),
        "Data": data_tables(results),
        "Training": paragraphs(training_lines(task, results), shown.get("loss.png")),
        "All metrics": paragraphs(results_table(results), notes_line(results)),
        "All differences": differences_table(results),
        "Reproduce": task.get("command") and f"```bash\n{task['command']}\n```",
        "Files": "\n".join(f"- `{name}`: {about}" for name, about in present),
    }
    body = "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items() if text)
    path = output_dir / "report.md"
    is_adapter = (output_dir / "adapter_config.json").exists()
    first = f"{opening(results, task, is_adapter)} {summary(results)}"
    text = f"# Report: {task.get('task', 'run')}\n\n{paragraphs(leaks_line(results), first, NOT_FOR)}\n{body}"
    write_text(path, text)
    write_text(path.with_suffix(".html"), to_html(text, output_dir))
    return path


def plots_folder(output_dir: Path) -> Path:
    """Create the folder for the plots and return it."""
    plots = output_dir / "plots"
    plots.mkdir(exist_ok=True)
    return plots


def images(drawn: dict[str, bool]) -> dict[str, str]:
    """Map the file name of each plot that was drawn to its Markdown."""
    shown = [name for name, done in drawn.items() if done]
    return {name: f"![{name.removesuffix('.png').replace('_', ' ')}](plots/{name})" for name in shown}


def write_comparison(results: dict[str, Any], path: Path) -> None:
    """Write the test metrics to a CSV file: one row per system, with the value and interval limits of each metric."""
    names = system_names(results)
    metrics = metric_names(results, list(names))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["system", *(metric + limit for metric in metrics for limit in ("", "_low", "_high"))])
        for prefix, name in names.items():
            keys = [prefix + metric for metric in metrics]
            cells = [[results.get(key), *(results.get(f"{key}_ci95") or ("", ""))] for key in keys]
            writer.writerow([name, *sum(cells, [])])
