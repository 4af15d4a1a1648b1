"""The report, plots and card of a summarizer, from the numbers of a small run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import metadata_load
from matplotlib.image import imread

from utils.evaluation.summary_analysis import ERROR_ADVICE, analyse_summaries, summary_error_patterns
from utils.factuality import factuality_statistics, find_hallucinations, find_omissions
from utils.json_files import read_json, write_json
from utils.metrics.intervals import evaluate_statistics, paired_difference
from utils.metrics.summaries import bert_statistics, summary_baselines, summary_statistics
from utils.reporting import summary_report
from utils.reporting.card import write_card
from utils.reporting.report import write_report

PLOTS = ("factuality", "errors", "quality_by_length", "length_and_novelty")
DRUGS = ("aspirin", "metformin", "ibuprofen")


@pytest.fixture(scope="module")
def summarizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run whose every third summary hallucinates a drug, and every second leaves one out."""
    folder = tmp_path_factory.mktemp("summarizer")
    drugs = [DRUGS[i % 3] for i in range(24)]
    filler = ["It is on and off, as I said. " * i for i in range(24)]
    sources = [f"Patient: I have a fever for {i + 2} days. {filler[i]}I take {drug}." for i, drug in enumerate(drugs)]
    references = [f"Fever for {i + 2} days. Takes {drug}." for i, drug in enumerate(drugs)]
    predictions = [
        f"Fever for {i + 2} days." + f" Takes {drug}." * (i % 2) + " Takes warfarin." * (i % 3 == 0)
        for i, drug in enumerate(drugs)
    ]
    texts = {"test": predictions, "base_test": sources[::-1]}
    texts |= {f"baseline_{name}_test": found for name, found in summary_baselines(sources, references).items()}
    weights = np.arange(24)
    statistics = {
        name: summary_statistics(found, references, sources) | factuality_statistics(found, references, sources)
        for name, found in texts.items()
    }
    statistics["test"] |= bert_statistics(np.full((24, 3), 0.75))
    results: dict[str, Any] = {"test_rows": 24, "data_test_cut_sources": 6, "bertscore_model": "lab/encoder layer 5"}
    for name, own in statistics.items():
        results |= evaluate_statistics(own, weights, name)
    results |= paired_difference(
        {name: statistics["test"][name] for name in statistics["base_test"]},
        statistics["base_test"], weights, "delta_base_test",
    )  # fmt: skip
    cut = [i >= 18 for i in range(24)]
    findings = (
        [find_hallucinations(source, text) for source, text in zip(sources, predictions, strict=True)],
        [find_omissions(reference, text) for reference, text in zip(references, predictions, strict=True)],
        statistics["test"],
    )
    patterns = summary_error_patterns(predictions, references, sources, [True] * 24, cut, *findings)
    results |= {f"errors_{name}": len(rows) for name, rows in patterns.items()}
    analysis = analyse_summaries(predictions, references, sources, cut, *findings, weights)
    write_json(folder / "all_results.json", results)
    write_json(folder / "analysis.json", analysis)
    task = {"task": "summarization", "base_model": "lab/base", "columns": {"text": "text", "summary": "summary"}}
    task |= {
        "text_template": "{text}",
        "stop": "</s>",
        "dtype": "float32",
        "generation": {"max_new_tokens": 9},
        "max_source_length": 64,
    }
    write_json(folder / "task.json", task)
    return folder


@pytest.fixture(scope="module")
def report(summarizer: Path) -> str:
    return summary_report.write_report(summarizer).read_text()


def section(text: str, name: str) -> str:
    return text.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_the_report_counts_what_was_hallucinated_and_left_out_by_kind(report):
    assert [line for line in section(report, "Factuality").splitlines() if line.startswith("| drug")] == [
        "| drug | 8 | 8 | 12 | 12 |"  # rows 0, 3, 6, ...; rows 0, 2, 4, ...
    ]
    errors = section(report, "Error patterns")
    assert f"| omission | 12 | 50.0% | {ERROR_ADVICE['omission']} |" in errors
    assert f"| hallucination | 8 | 33.3% | {ERROR_ADVICE['hallucination']} |" in errors
    assert f"| cut source | 6 | 25.0% | {ERROR_ADVICE['cut_source']} |" in errors
    assert "| test cut sources | 6 (25.0%) |" in section(report, "Data")
    assert "0.333 [0.1" in section(report, "All metrics").split("| summaries with a hallucination | lower | ")[1][:11]
    assert "a share of 0.333 [0.1" in report.split("\n## ")[0]


def test_lengths_and_novelty_stand_beside_those_of_the_references(summarizer, report):
    text = section(report, "Length and compression")
    analysis, results = read_json(summarizer / "analysis.json"), read_json(summarizer / "all_results.json")
    low, high = results["test_novel_1gram_ci95"]
    shown = f"{results['test_novel_1gram']:.3f} [{low:.3f}, {high:.3f}]"
    assert f"| novel words | {analysis['references']['novel_1gram']:.3f} | {shown} |" in text
    assert "ROUGE-L " in text and "omission " in text and "hallucination " in text


def test_metrics_without_a_better_direction_have_no_difference_and_bertscore_has_its_name(report):
    rows = [line.split(" | ")[0] for line in section(report, "All differences").splitlines()]
    assert "| ROUGE-L" in rows and "| hallucinated drugs per summary" in rows
    assert not any(name in row for row in rows for name in ("novel", "compression", "length ratio"))
    assert "BERTScore uses lab/encoder layer 5" in section(report, "All metrics")
    assert "copy: the whole source." in report


def test_plots_are_drawn_for_summaries_alone_and_show_something(summarizer, report, tmp_path):
    for name in PLOTS:
        assert f"](plots/{name}.png)" in report
        pixels = imread(summarizer / "plots" / f"{name}.png")
        assert 400 < pixels.shape[0] < 3000 and 800 < pixels.shape[1] < 2000 and pixels.std() > 0.05
    write_json(tmp_path / "all_results.json", read_json(summarizer / "all_results.json"))
    text = write_report(tmp_path).read_text()
    assert not any(name in text for name in PLOTS) and "## Factuality" not in text


@pytest.mark.parametrize("dropped", ["_ci95|errors_", "invent|omission|test_rows", "novel"])
def test_numbers_may_be_missing_or_undefined(summarizer, tmp_path, dropped):
    results, analysis = read_json(summarizer / "all_results.json"), read_json(summarizer / "analysis.json")
    write_json(tmp_path / "all_results.json", {k: v for k, v in results.items() if not re.search(dropped, k)})
    for row in analysis["source_length"]["bins"][:1]:
        row |= {"rougeL": None, "rougeL_ci95": None}
    analysis["source_length"]["spearman"]["rougeL"] = analysis["references"]["novel_4gram"] = None
    analysis["findings"] = {}
    write_json(tmp_path / "analysis.json", analysis)
    text = summary_report.write_report(tmp_path).read_text()
    assert "No hallucinations" in text and "| novel 4-grams | - |" in text
    assert "![errors]" not in text if "errors_" in dropped else "![errors]" in text


def test_the_card_names_the_limits_of_the_numbers_and_the_model_of_bertscore(summarizer):
    card = write_card(summarizer, None)
    text = card.read_text()
    assert "**Not a medical device.**" in text and "ROUGE does not notice an invented dose" in text
    assert "summarizes medical texts" in text
    metadata = metadata_load(card)
    assert metadata["pipeline_tag"] == "summarization" and {"rouge", "bertscore", "chrf"} <= set(metadata["metrics"])
    names = {metric["name"]: metric for metric in metadata["model-index"][0]["results"][0]["metrics"]}
    assert names["BERTScore F1 (lab/encoder layer 5)"]["value"] == 0.75
    assert "hallucination" in names and not any("novel" in name or "per summary" in name for name in names)
