"""The results of a run as people read them: `report.md` and `plots/`, made from the files in `output_dir` alone."""

from pathlib import Path

from utils.plots import plot_loss, plot_metrics
from utils.tables import (
    baselines_line,
    data_tables,
    differences_table,
    errors_table,
    paragraphs,
    read_json,
    results_table,
    summary,
    training_lines,
)

FILES = {
    "README.md": "the model card", "report.md": "this report", "all_results.json": "every number, unrounded",
    "recipe.yaml": "the recipe that repeats the run", "task.json": "what `predict.py` and `app.py` need",
    "adapter_model.safetensors": "the adapter's weights", "adapter_config.json": "the adapter's configuration",
    "model.safetensors": "the model's weights", "_private": "predictions and errors as text; never published",
}  # fmt: skip


def write_report(output_dir: Path, advice: dict[str, str]) -> Path:
    """Write `report.md` and `plots/*.png` from the files in `output_dir`.

    Args:
        output_dir: folder with `all_results.json`, `task.json` and, for the loss curve, `trainer_state.json`.
        advice: error pattern (the part of its key after `errors_`) -> what to do about it.

    Returns:
        the path of `report.md`.
    """
    output_dir = Path(output_dir)
    results, task = read_json(output_dir / "all_results.json"), read_json(output_dir / "task.json")
    plots = output_dir / "plots"
    plots.mkdir(exist_ok=True)
    history = read_json(output_dir / "trainer_state.json").get("log_history", [])
    drawn = {"metrics.png": plot_metrics(results, plots / "metrics.png")}
    drawn["loss.png"] = plot_loss(history, plots / "loss.png")
    images = {name: f"![{name.removesuffix('.png')}](plots/{name})" for name, done in drawn.items() if done}

    present = [(name, about) for name, about in FILES.items() if name == "report.md" or (output_dir / name).exists()]
    sections = {
        "Results": paragraphs(results_table(results), baselines_line(results), images.get("metrics.png")),
        "Differences": differences_table(results),
        "Error patterns": errors_table(results, advice),
        "Data": data_tables(results),
        "Training": paragraphs(training_lines(task, results), images.get("loss.png")),
        "Run it again": task.get("command") and f"```bash\n{task['command']}\n```",
        "Files": "\n".join(f"- `{name}`: {about}" for name, about in present),
    }
    body = "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items() if text)
    path = output_dir / "report.md"
    path.write_text(f"# Report: {task.get('task', 'run')}\n\n{summary(results)}\n{body}", encoding="utf-8")
    return path
