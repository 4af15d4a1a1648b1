"""The report of a classifier of texts with several labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.evaluation.label_analysis import ERROR_ADVICE
from utils.json_files import read_json
from utils.reporting import report
from utils.reporting.tables import format_number, paragraphs, table, with_interval

ABOUT = (
    "A text gets each label whose probability is at least the label's threshold. The probability is sigmoid(scale * "
    "logit + bias), with a scale and a bias for each label. These and the thresholds, which give the highest F1, come "
    "from the validation rows. The calibration error of a label is the gap between its share and its mean probability "
    "in 15 bins of equal width."
)


def write_label_report(output_dir: Path, notes: Sequence[str] = ()) -> Path:
    """Write `report.md`, `baseline_comparison.csv` and `plots/*.png`, and return the path of `report.md`.

    Args:
        output_dir: as for `utils.reporting.report.write_report`, with `analysis.json`.
        notes: what else a reader should look at.
    """
    analysis = read_json(Path(output_dir) / "analysis.json")
    return report.write_report(
        Path(output_dir), ERROR_ADVICE, {"Labels": label_section(analysis["classes"])}, notes=notes
    )


def label_section(labels: list[dict[str, Any]]) -> str:
    """Return the table of all labels, the frequent ones first, and how their numbers are made."""
    header = ["label", "training rows", "test rows", "threshold", "precision", "recall", "F1", "calibration error"]
    rows = []
    for row in sorted(labels, key=lambda own: -own["train_rows"]):
        before, after = ("train_rows", "support", "threshold", "precision", "recall"), with_interval(row, "f1")
        rows.append([row["label"], *(format_number(row[n]) for n in before), after, format_number(row["ece"])])
    return paragraphs(table(header, rows), ABOUT)
