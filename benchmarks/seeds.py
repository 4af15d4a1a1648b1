"""How much do the numbers of a quickstart change with the seed, and how much with the test rows?

    python -m benchmarks.seeds --tasks classification summarization

Trains the quickstarts for classification and summarization with three seeds on one split, that of seed 42: a seed
changes the new head and the order of the rows. The uncertainty of a score has two parts. Rows: another sample of test
rows would score differently, which the interval of one run measures. Training: another seed would, which the standard
deviation over seeds measures. Finished runs are not repeated. Writes results/seeds.json.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.runs import run_once
from utils.json_files import read_json, write_json

OUTPUTS, RESULTS = Path("outputs/seeds"), Path("benchmarks/results/seeds.json")
SPLIT = 42  # of the quickstarts
TASKS: dict[str, tuple[Sequence[int], Sequence[str]]] = {
    "classification": ((42, 43, 44), ("accuracy", "macro_f1")),
    "summarization": ((42, 43, 44), ("rouge1", "omission", "hallucination")),
}
SYSTEMS = {  # as in the file of a run
    "classification": {"fine-tuned": "test", "linear SVM": "baseline_tfidf_svm_test"},
    "summarization": {"fine-tuned": "test", "nearest source": "baseline_nearest_source_test"},
}


def run(task: str, seed: int) -> dict[str, Any]:
    """Train once, unless it is done, and return the results. The first seed is that of the quickstart itself."""
    output_dir = Path(f"outputs/quickstart-{task}") if seed == SPLIT else OUTPUTS / f"{task}-{seed}"
    keys = {"seed": seed, "split_seed": SPLIT}
    return run_once([f"run_{task}.py", f"recipes/quickstart/{task}.yaml"], output_dir, keys)


def over_seeds(runs: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    """Return mean, standard deviation and Student's t interval over seeds, and both parts of the uncertainty: the
    half widths of the 95 % intervals of training and of rows (the mean over the runs), and the share of the variance
    that is training's."""
    values = [found[key] for found in runs]
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, len(values) - 1) * spread / len(values) ** 0.5)
    found: dict[str, Any] = {"values": values, "mean": mean, "sd": spread, "ci95": [mean - half, mean + half]}
    intervals = [run[f"{key}_ci95"] for run in runs if run.get(f"{key}_ci95")]
    if intervals:
        rows = float(np.mean([(high - low) / 2 for low, high in intervals])) / 1.96
        found |= {"rows_sd": rows, "training_share": spread**2 / (spread**2 + rows**2)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    args = parser.parse_args()
    results: dict[str, Any] = read_json(RESULTS)
    results |= {"command": "python -m benchmarks.seeds", "split_seed": SPLIT}
    for task in args.tasks:
        seeds, metrics = TASKS[task]
        runs = [run(task, seed) for seed in seeds]
        table: dict[str, Any] = {"seeds": seeds, "commits": sorted({str(found["commit"]) for found in runs})}
        for metric in metrics:
            table[metric] = {name: over_seeds(runs, f"{prefix}_{metric}") for name, prefix in SYSTEMS[task].items()}
            ours, *others = table[metric].values()
            for name, other in zip([*table[metric]][1:], others, strict=True):
                pairs = [{"delta": a - b} for a, b in zip(ours["values"], other["values"], strict=True)]
                table[metric][f"fine-tuned minus {name}"] = over_seeds(pairs, "delta")
        results[task] = table
        write_json(RESULTS, results)
        print(task, {metric: table[metric]["fine-tuned"]["mean"] for metric in metrics})


if __name__ == "__main__":
    main()
