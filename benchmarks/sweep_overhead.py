"""Overhead of `sweep.py` in seconds per run, measured with runs that finish immediately.

    python -m benchmarks.sweep_overhead

The overhead is the total time minus that of the processes: waiting for a process to end,
reading and writing its row. Writes results/sweep_overhead.json.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import joblib
from tqdm import tqdm

from utils.json_files import write_json
from utils.sweeps.plan import Run
from utils.sweeps.running import execute

RUNS = 20
WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{\"eval_loss\": 1}')"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for seed in range(RUNS):
            own = Path(folder, f"run-seed{seed}")
            runs.append(Run("run", {}, seed, own, [sys.executable, "-c", WRITE, str(own / "all_results.json")]))
        start = time.perf_counter()
        with tqdm(total=RUNS, disable=True) as bar:
            rows = execute(runs, "eval_loss", jobs=1, processes=1, bar=bar, keep_seed=0)
        seconds = time.perf_counter() - start
    in_runs = 60 * sum(row["cost"]["minutes"] for row in rows)
    results = {
        "runs": RUNS,
        "seconds": seconds,
        "seconds_of_processes": in_runs,
        "overhead_seconds_per_run": (seconds - in_runs) / RUNS,
        "processors": joblib.cpu_count(),
        "command": "python -m benchmarks.sweep_overhead",
    }
    write_json(Path("benchmarks/results/sweep_overhead.json"), results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
