"""A small script for tests of `sweep.py`: logistic regression by hand, with checkpoints, in a second instead of ten.

It has what a sweep asks of a script: `ARGUMENTS`, `all_results.json` with `eval_*`, checkpoints that it goes on from,
and `evaluate_test`. It reads its command by itself, since importing transformers would take longer than all the rest.
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml


@dataclass
class Arguments:
    learning_rate: float = 0.1
    batch_size: int = 8
    seed: int = 42
    split_seed: int = 42
    max_steps: int = 6
    step_seconds: float = 0.0
    fail: str = "no"
    evaluate_test: bool = True
    use_cpu: bool = False
    output_dir: str = field(default="outputs")


ARGUMENTS = (Arguments,)


def loss(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, -y * (x @ weights))))


def write_json(path: Path, value: Any) -> None:
    """In one step: a kill leaves no half file."""
    path.with_suffix(".tmp").write_text(json.dumps(value))
    path.with_suffix(".tmp").replace(path)


def read_command(argv: list[str]) -> Arguments:
    """`[RECIPE.yaml] --key value ...`, in which values read as YAML."""
    recipe = yaml.safe_load(Path(argv.pop(0)).read_text()) if not argv[0].startswith("--") else {}
    flags = {key[2:]: yaml.safe_load(value) for key, value in zip(argv[::2], argv[1::2], strict=True)}
    return Arguments(**recipe | flags)


def main(args: Arguments) -> None:
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "starts").open("a").write(f"{os.getpid()}\n")
    if args.fail == "user":
        print("error: `learning_rate` is not to its liking: give another.", file=sys.stderr)
        sys.exit(2)
    if args.fail == "defect":
        raise KeyError("Patient 7 has fever")
    if args.fail == "killed":
        os.kill(os.getpid(), 9)
    rng = np.random.default_rng(args.split_seed)
    x = rng.normal(size=(300, 5))
    y = np.where(x @ rng.normal(size=5) + rng.normal(size=300) > 0, 1, -1)
    weights, history, done = np.zeros(5), [], 0
    for path in sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name[11:])):
        state = json.loads(path.read_text())
        weights, history, done = np.array(state["weights"]), state["log_history"], state["step"]
    for step in range(done + 1, args.max_steps + 1):
        batch = np.random.default_rng([args.seed, step]).choice(100, args.batch_size)
        margins = y[batch] * (x[batch] @ weights)
        gradient = -((y[batch] / (1 + np.exp(margins))) @ x[batch]) / args.batch_size
        weights = weights - args.learning_rate * gradient
        time.sleep(args.step_seconds)
        history.append({"step": step, "eval_loss": loss(weights, x[100:200], y[100:200])})
        (folder / f"checkpoint-{step}").mkdir(exist_ok=True)
        state = {"weights": weights.tolist(), "log_history": history, "step": step}
        write_json(folder / f"checkpoint-{step}" / "trainer_state.json", state)
    write_json(folder / "trainer_state.json", {"log_history": history})
    results = {"eval_loss": loss(weights, x[100:200], y[100:200]), "eval_accuracy": 0.5, "train_peak_memory_gb": 0.1}
    results |= {"validation_sha256": str(args.split_seed), "test_sha256": str(args.split_seed)}
    if args.fail == "nan":
        results["eval_loss"] = float("nan")
    if args.evaluate_test:
        results["test_loss"] = loss(weights, x[200:], y[200:])
    write_json(folder / "all_results.json", results)


if __name__ == "__main__":
    main(read_command(sys.argv[1:]))
