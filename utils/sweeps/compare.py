"""Compare finished runs of one task on their common test rows."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from utils.arguments import UserError
from utils.data.files import read_rows
from utils.data.splits import MIN_CLUSTERS
from utils.factuality import factuality_statistics
from utils.hierarchy import LabelTree
from utils.json_files import read_json, write_json
from utils.metrics.intervals import count_clusters, evaluate_statistics, mcnemar, paired_difference
from utils.metrics.languages import describe_texts, is_english
from utils.metrics.multilabel import label_sets, multi_label_statistics
from utils.metrics.statistics import accuracy_statistics, classification_statistics, text_statistics
from utils.metrics.summaries import summary_statistics
from utils.overlap import choose_tokenizers
from utils.reporting.metric_names import METRICS, label
from utils.reporting.tables import paragraphs, table, with_interval
from utils.sweeps.plots import plot_differences
from utils.sweeps.statistics import holm

PREDICTIONS = Path("_private") / "predictions_test.jsonl"
SHOWN = {
    "classification": ("micro_f1", "accuracy", "macro_f1", "weighted_f1"),
    "hierarchical": ("path_accuracy", "parent_macro_f1", "level_1_macro_f1", "level_2_macro_f1", "child_macro_f1"),
    "qa": ("rouge1", "rouge2", "rougeL", "bleu"),
    "summarization": ("rouge1", "rouge2", "rougeL", "chrf", "omission", "hallucination", "any_hallucination"),
}
MATCHED = ("accuracy", "path_accuracy")  # right or wrong per row, so an exact test applies


def compare_runs(folders: list[str], output_dir: Path) -> str:
    """Compare each run with the first and write `comparison.md`, `comparison.json` and `comparison.png`.

    Accuracies use the exact test of `mcnemar`, other metrics the paired difference over clusters of rows. Holm's
    correction covers the other runs, per metric. Rows that share a cluster in any of the runs count as one; those of
    a run of an earlier version, which did not store its clusters, as independent.

    Returns:
        the tables of `comparison.md`.

    Raises:
        UserError: a folder is not a finished run, or the runs differ in task or test rows.
    """
    if len(folders) < 2:
        raise UserError(f"`compare` names {len(folders)} folder: give two or more.")
    names = _short_names(folders)
    tasks = [_read_task(Path(folder)) for folder in folders]
    if len(kinds := {task.get("problem_type", task["task"]) for task in tasks}) > 1:
        raise UserError(
            f"`compare` names runs of different tasks ({', '.join(sorted(kinds))}): give runs of one task."
        )
    if len({task.get("evaluation", {}).get("use_stemmer", False) for task in tasks}) > 1:
        raise UserError("`compare` names runs with and without `use_stemmer`: their ROUGE is not comparable.")
    rows = _aligned([_read_predictions(Path(folder)) for folder in folders], folders)
    statistics = [row_statistics(own, tasks[0]) for own in rows]
    metrics = [name for name in SHOWN[tasks[0]["task"]] if name in statistics[0]]
    clusters = _joined_clusters(rows)
    results: dict[str, Any] = {"task": tasks[0]["task"], "test_rows": len(rows[0]), "runs": folders}
    results["test_clusters"] = count_clusters(clusters)
    for name, own in zip(names, statistics, strict=True):
        results |= evaluate_statistics({m: own[m] for m in metrics}, clusters, name)
    for name, own in zip(names[1:], statistics[1:], strict=True):
        first = {m: statistics[0][m] for m in metrics}
        results |= paired_difference({m: own[m] for m in metrics}, first, clusters, f"delta_{name}")
        for metric in MATCHED:
            if metric in metrics:
                right = (own[metric][:, 0] > 0, first[metric][:, 0] > 0)
                results[f"delta_{name}_{metric}_p"] = mcnemar(*right, clusters)
    for metric in metrics:
        keys = [f"delta_{name}_{metric}_p" for name in names[1:]]
        tested = [key for key in keys if results[key] is not None]
        corrected = dict(zip(tested, holm([results[key] for key in tested]), strict=True))
        results |= {f"{key}_holm": corrected.get(key) for key in keys}

    output_dir.mkdir(parents=True, exist_ok=True)
    plot_differences(results, names, metrics, output_dir / "comparison.png")
    write_json(output_dir / "comparison.json", results)
    shown = _tables(results, names, metrics)
    about = (
        f"{len(rows[0]):,} test rows in {results['test_clusters']:,} clusters, {tasks[0]['task']}. Brackets show 95 % "
        f"intervals over clusters, from {MIN_CLUSTERS} on; with fewer, differences are too few to tell. p comes from "
        "an exact test for accuracies and from the interval's otherwise, with Holm's correction over the runs."
    )
    text = paragraphs("# Comparison of runs", about, shown, "![differences](comparison.png)")
    (output_dir / "comparison.md").write_text(text + "\n", encoding="utf-8")
    return shown


def row_statistics(rows: list[dict[str, Any]], task: dict[str, Any]) -> dict[str, np.ndarray]:
    """Compute the per-row statistics of a run, as its evaluation does."""
    predictions, references = [row["prediction"] for row in rows], [row["reference"] for row in rows]
    if "problem_type" in task:
        return multi_label_statistics(label_sets(predictions, task["labels"]), label_sets(references, task["labels"]))
    if task["task"] == "classification":
        return classification_statistics(predictions, references, task["labels"])
    if task["task"] == "hierarchical":
        tree = LabelTree.from_dict(task["tree"])
        right = [p == r for p, r in zip(predictions, references, strict=True)]
        statistics = accuracy_statistics(right, "path_accuracy")
        for level, name in enumerate(tree.level_names):
            # a name can occur under several parents, so the path is the class
            own, true = ([tuple(path[: level + 1]) for path in paths] for paths in (predictions, references))
            found = classification_statistics(own, true, sorted({*own, *true}))
            statistics[f"{name}_macro_f1"] = found["macro_f1"]
        return statistics
    if task["task"] == "qa":
        return text_statistics(predictions, references)
    sources = [row["source"] for row in rows]
    tokenizers = choose_tokenizers(references)
    about = describe_texts(references, tokenizers, task.get("data", {}).get("language"), sources)
    english = is_english(about["language"], tokenizers.rouge)
    stemmer = english and task.get("evaluation", {}).get("use_stemmer", False)
    statistics = summary_statistics(predictions, references, sources, stemmer, tokenizers)
    if english:
        statistics |= factuality_statistics(predictions, references, sources)
    return statistics


def _read_task(folder: Path) -> dict[str, Any]:
    task = read_json(folder / "task.json")
    if task.get("task") not in SHOWN or not (folder / PREDICTIONS).is_file():
        raise UserError(
            f"`compare` names {folder}, which lacks task.json or {PREDICTIONS}: give folders of finished runs."
        )
    return task


def _read_predictions(folder: Path) -> dict[str, dict[str, Any]]:
    return {str(row["id"]): row for _, row in read_rows(folder / PREDICTIONS)}


def _aligned(runs: list[dict[str, dict[str, Any]]], folders: list[str]) -> list[list[dict[str, Any]]]:
    """Return the rows of each run in the order of the first; refuse different ids or references."""
    for rows, folder in zip(runs[1:], folders[1:], strict=True):
        others = len(rows.keys() ^ runs[0].keys())
        others += sum(rows[i]["reference"] != runs[0][i]["reference"] for i in rows.keys() & runs[0].keys())
        if others:
            raise UserError(
                f"`compare` names {folder}, where {others:,} test rows differ from {folders[0]}: give runs with the "
                "same test rows (same data, `split_seed` and `max_predict_samples`)."
            )
    return [[rows[i] for i in runs[0]] for rows in runs]


def _joined_clusters(runs: list[list[dict[str, Any]]]) -> np.ndarray:
    """Return the cluster of each row, [rows]: those of all runs, joined where they share rows."""
    pairs = [
        (i, f"{run} {row['cluster']}")
        for run, rows in enumerate(runs)
        for i, row in enumerate(rows)
        if "cluster" in row
    ]
    n = len(runs[0])
    if not pairs:
        return np.arange(n)
    of_rows, names = zip(*pairs, strict=True)
    index = np.unique(names, return_inverse=True)[1]
    places = (np.ones(len(pairs)), (np.array(of_rows), n + index))
    graph = csr_array(places, shape=(n + index.max() + 1,) * 2)
    return connected_components(graph, directed=False)[1][:n]


def _short_names(folders: list[str]) -> list[str]:
    """Return the last part of each path, or the full paths if those are not unique."""
    if len(set(folders)) < len(folders):
        raise UserError(f"`compare` names a folder twice ({', '.join(folders)}): give each folder once.")
    last = [Path(folder).resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else folders


def _p(p: float | None, clusters: int) -> str:
    if p is None:
        return " (too few to tell)" if clusters < MIN_CLUSTERS else ""
    return " p < 0.001" if p < 0.001 else f" p {p:.3f}"


def _tables(results: dict[str, Any], names: list[str], metrics: list[str]) -> str:
    values = [[label(m), *(with_interval(results, f"{name}_{m}") for name in names)] for m in metrics]
    differences = [
        [
            label(metric),
            METRICS.get(metric, ("", "-"))[1],
            *(
                with_interval(results, f"delta_{name}_{metric}")
                + _p(results[f"delta_{name}_{metric}_p_holm"], results["test_clusters"])
                for name in names[1:]
            ),
        ]
        for metric in metrics
    ]
    header = ["minus " + names[0], "better", *names[1:]]
    return paragraphs(table(["metric", *names], values), table(header, differences))
