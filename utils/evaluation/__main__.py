"""Recompute the results, tables, plots, report and card of a finished run, without a model or a GPU.

    python -m utils.evaluation --output_dir outputs/quickstart-qa

reads `task.json` and the outputs in `_private/`. The numbers equal those of the run to the last digit. Use it after a
change to a metric, an interval, the report or the card.
"""

from dataclasses import dataclass, field
from pathlib import Path

from utils.arguments import UserError, parse_recipe, user_errors
from utils.evaluation import classification, hierarchical, qa, summarization
from utils.evaluation.outputs import load_outputs, write_results
from utils.json_files import read_json
from utils.reporting import class_report, report, summary_report
from utils.reporting.card import write_card
from utils.reporting.console import closing

TASKS = {
    "qa": (qa.evaluate, report.write_report),
    "classification": (classification.evaluate, class_report.write_report),
    "hierarchical": (hierarchical.evaluate, class_report.write_report),
    "summarization": (summarization.evaluate, summary_report.write_report),
}


@dataclass
class EvaluationArguments:
    """Which run to evaluate."""

    output_dir: str = field(metadata={"help": "Folder of a finished run."})


def main(args: EvaluationArguments) -> None:
    """Evaluate the run in `output_dir` again and print how good it is."""
    output_dir = Path(args.output_dir)
    task = read_json(output_dir / "task.json")
    if task.get("task") not in TASKS:
        raise UserError(f"`output_dir` {output_dir} has no task.json: give the folder of a finished run.")
    evaluate, write_report = TASKS[task["task"]]
    saved = load_outputs(output_dir)
    metrics, files = evaluate(saved["rows"], saved["outputs"], task)
    results = saved["measured"] | metrics
    write_results(output_dir, task, results, files)
    if files:  # a run with `evaluate_test: false` has no report
        print(closing(write_card(output_dir, saved["repo_id"]), write_report(output_dir)))


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((EvaluationArguments,), description=__doc__)[:1])
