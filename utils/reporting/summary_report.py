"""The report of a summarizer: hallucinations, omissions, and how quality depends on length."""

from pathlib import Path
from typing import Any

from utils.evaluation.summary_analysis import ERROR_ADVICE
from utils.json_files import read_json
from utils.reporting import report
from utils.reporting.metric_names import label
from utils.reporting.tables import format_number, paragraphs, table, with_interval

NOT_SEARCHED = """Hallucinations and omissions were not searched: the rules and word lists are English, and the \
texts are not. Have a clinician compare the summaries with their sources."""


def write_report(output_dir: Path) -> Path:
    """Write `report.md`, `baseline_comparison.csv` and `plots/*.png`, and return the path of `report.md`.

    Args:
        output_dir: as for `utils.reporting.report.write_report`, with `analysis.json`.
    """
    from utils.reporting.summary_plots import PLOTS  # here: a run imports matplotlib at its end

    output_dir = Path(output_dir)
    results, analysis = read_json(output_dir / "all_results.json"), read_json(output_dir / "analysis.json")
    plots = report.plots_folder(output_dir)
    images = report.images({name: plot(results, analysis, plots / name) for name, plot in PLOTS.items()})
    sections = summary_sections(results, analysis, images)
    return report.write_report(output_dir, ERROR_ADVICE, sections, images.get("errors.png"))


def summary_sections(results: dict[str, Any], analysis: dict[str, Any], images: dict[str, str]) -> dict[str, str]:
    """Return the sections of a summarizer's report, heading -> Markdown.

    Args:
        results: the content of `all_results.json`.
        analysis: the content of `analysis.json`.
        images: file name of each plot that was drawn -> its Markdown.
    """
    columns = ("hallucinations", "rows_with_hallucinations", "omissions", "rows_with_omissions")
    counted: dict[str, dict[str, int]] | None = analysis["findings"]  # None: not searched
    findings = [[kind, *(f"{counts[c]:,}" for c in columns)] for kind, counts in (counted or {}).items()]
    header = ["kind", "hallucinations", "summaries with a hallucination", "omissions", "summaries with an omission"]
    lengths = [
        [label(name), format_number(value), with_interval(results, f"test_{name}")]
        for name, value in analysis["references"].items()
    ]
    correlations = [f"{label(k)} {format_number(v, '+')}" for k, v in analysis["source_length"]["spearman"].items()]
    return {
        "Factuality": NOT_SEARCHED
        if counted is None
        else paragraphs(
            table(header, findings) if findings else "No hallucinations and no omissions were found.",
            "Counts in the summaries of the fine-tuned model. A hallucination is a statement that the source does not "
            "support; an omission is a statement of the reference that the summary lacks. Rules and word lists find "
            "both, so have a clinician review them: `_private/predictions_test.jsonl` holds each with its position.",
            images.get("factuality.png"),
        ),
        "Length and compression": paragraphs(
            table(["on all test rows", "references", "fine-tuned"], lengths),
            f"Spearman correlation with the number of words in the source: {', '.join(correlations)}.",
            images.get("quality_by_length.png"),
            images.get("length_and_novelty.png"),
        ),
    }
