"""Does a linear bag-of-words model beside the encoder (`ensemble: linear`) help, and with how many training rows?

    python -m benchmarks.ensemble

MiniLM is trained with the quickstarts' recipes on a few rows of three data sets: definitions of the Human Phenotype
Ontology, medical abstracts (Medical-Abstracts-TC-Corpus), of which the encoder reads 128 tokens and the linear model
all words, and titles of ICD-10-CM codes, whose metrics are those of their blocks. The seed changes the rows that are
drawn, their split and the training. Each run compares the ensemble with its encoder alone and with the linear model
alone on the same test rows. The table has means over the seeds of the paired differences, with Student's t intervals.
Finished runs are not repeated. Writes results/ensemble.json.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.runs import run_once
from utils.json_files import write_json

OUTPUTS = Path("outputs/ensemble")
EPOCHS = {100: 15, 300: 8, 1000: 4, 3000: 4}  # training rows -> epochs
SIZES = (100, 300, 1000)
BLOCK_SIZES = (1000, 3000)  # of 285 blocks, fewer rows show each block less than four times
SEEDS = (0, 1, 2, 3, 4)
METRICS = ("accuracy", "macro_f1")
ALONE = "baseline_encoder_alone_test"
KEYS = {
    "save_strategy": "no", "report_to": "none", "max_predict_samples": 500, "logging_steps": 500, "ensemble": "linear",
    "max_risk": 0.1,
}  # fmt: skip


def run(data: str, task: str, own: dict[str, Any], rows: int, seed: int) -> dict[str, Any]:
    """Train once, unless it is done, and return the results."""
    output_dir = OUTPUTS / f"{data}-{rows}-{seed}"
    keys = KEYS | own | {"num_train_epochs": EPOCHS[rows], "seed": seed, "max_train_samples": rows}
    return run_once([f"run_{task}.py", f"recipes/quickstart/{task}.yaml"], output_dir, keys)


def mean_with_interval(values: list[float]) -> dict[str, Any]:
    """Return the mean over seeds, its 95 % interval by Student's t, and the standard deviation."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    mean = round(float(np.mean(values)), 6) + 0.0  # differences of equal values are 0
    return {"mean": mean, "ci95": [mean - half, mean + half], "sd": float(np.std(values, ddof=1))}


def summarize(found: list[dict[str, Any]], task: str) -> dict[str, Any]:
    """Return the metrics of each system over the seeds, and the differences of the ensemble from its parts."""
    level = "child_" if task == "hierarchical" else ""
    systems = {"ensemble": "test", "encoder_alone": ALONE, "linear_alone": "baseline_tfidf_svm_test"}
    table: dict[str, Any] = {"seeds": len(found)}
    for metric in METRICS:
        keys = {name: f"{prefix}_{level}{metric}" for name, prefix in systems.items()}
        values = {name: [results[key] for results in found] for name, key in keys.items()}
        table[metric] = {name: mean_with_interval(own) for name, own in values.items()}
        for other in ("encoder_alone", "linear_alone"):
            pairs = zip(values["ensemble"], values[other], strict=True)
            table[metric][f"ensemble_minus_{other}"] = mean_with_interval([a - b for a, b in pairs])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--medical_abstracts_file", default="../shared/data/medical_abstracts/medical_abstracts.jsonl")
    args = parser.parse_args()
    abstracts = {"train_file": args.medical_abstracts_file, "max_length": 128}
    data: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
        "medical_abstracts": ("classification", SIZES, abstracts),
        "hpo": ("classification", SIZES, {}),
        "icd_blocks": ("hierarchical", BLOCK_SIZES, {"max_eval_samples": 1000}),
    }
    results: dict[str, Any] = {"command": "python -m benchmarks.ensemble"}
    for name, (task, sizes, own) in data.items():
        for rows in sizes:
            results[f"{name}_{rows}"] = summarize([run(name, task, own, rows, seed) for seed in SEEDS], task)
            write_json(Path("benchmarks/results/ensemble.json"), results)
            print(name, rows, results[f"{name}_{rows}"]["macro_f1"]["ensemble_minus_encoder_alone"])


if __name__ == "__main__":
    main()
