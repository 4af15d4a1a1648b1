"""What a run prints at its end: how good the model is, where to read on, and the next command."""

import shlex
from pathlib import Path

from utils.json_files import read_json
from utils.reporting.card import TASKS
from utils.reporting.headline import headline_rows, summary
from utils.reporting.tables import paragraphs


def closing(card: Path, report: Path) -> str:
    """Return the headline sentence, the table of the headline metrics, the paths of card and report, and a command.

    Args:
        card, report: files in the folder of a finished run.
    """
    output_dir = report.parent
    results, task = read_json(output_dir / "all_results.json"), read_json(output_dir / "task.json")
    header, rows = headline_rows(results)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [header, *rows]]
    example = TASKS[task["task"]][1]
    paths = f"report: {report.with_suffix('.html')}\nmodel card: {card}"
    command = f"try it: python predict.py --model {shlex.quote(str(output_dir))} --text {shlex.quote(example)}"
    return paragraphs(summary(results), "\n".join(lines), f"{paths}\n{command}")
