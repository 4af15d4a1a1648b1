"""How much slower does training become when another process keeps one core busy?

    python -m benchmarks.shared_machine

Trains the quickstart for question answering for 3 steps, in turn: alone and beside one busy process; with OpenMP
threads that sleep soon (`GOMP_SPINCOUNT=1000`, which the scripts set) and with threads that spin (300,000, the default
of GNU OpenMP with as many threads as cores). Writes results/shared_machine.json: medians of the seconds per step.
"""

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import torch

from utils.evaluation.identity import machine
from utils.json_files import read_json, write_json

OUTPUTS = Path("outputs/shared_machine")
STEPS, ROUNDS = 3, 3
SPINS = {"scripts": "1000", "default": "300000"}
KEYS = ["--max_steps", str(STEPS), "--no_evaluate_test", "--save_strategy", "no", "--report_to", "none"]
KEYS += ["--max_eval_samples", "4", "--retrieve_examples", "0", "--max_train_samples", "2000"]


def seconds_per_step(spins: str, busy: bool, output_dir: Path) -> float:
    """Train `STEPS` steps and return the seconds per step."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        command = [
            sys.executable,
            "run_qa_sft.py",
            "recipes/quickstart/qa.yaml",
            *KEYS,
            "--output_dir",
            str(output_dir),
        ]
        subprocess.run(command, env=os.environ | {"GOMP_SPINCOUNT": spins}, check=True, stderr=subprocess.DEVNULL)
    finally:
        if other:
            other.kill()
    return read_json(output_dir / "all_results.json")["train_runtime"] / STEPS


def main() -> None:
    found: dict[str, list[float]] = defaultdict(list)
    for i in range(ROUNDS):
        for name, spins in SPINS.items():
            for busy in (False, True):
                key = f"{name}_{'busy' if busy else 'alone'}"
                found[key].append(seconds_per_step(spins, busy, OUTPUTS / f"{key}-{i}"))
                print(key, f"{found[key][-1]:.2f} s a step", flush=True)
    medians = {key: statistics.median(values) for key, values in found.items()}
    results = {"command": "python -m benchmarks.shared_machine", "machine": machine(torch.device("cpu"))}
    results |= {"steps": STEPS, "rounds": ROUNDS, "seconds_per_step": medians, "all": dict(found)}
    results |= {f"{name}_busy_over_alone": medians[f"{name}_busy"] / medians[f"{name}_alone"] for name in SPINS}
    write_json(Path("benchmarks/results/shared_machine.json"), results)


if __name__ == "__main__":
    main()
