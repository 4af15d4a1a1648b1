"""SIGKILL at any moment, then the same command again: the same weights bit for bit, and the same results."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, read_jsonl, write_rows, write_yaml

from tests.faults.conftest import KILLED, SCRIPTS, different, outcome
from utils.json_files import read_json
from utils.run import SAVING, newest_checkpoint

KILLS = 22  # of each script in the long part


def stage(folder: Path) -> str:
    """Where a run was, as its folder shows."""
    checkpoints = list(folder.glob("checkpoint-*"))
    if any((path / SAVING).exists() or not list(path.iterdir()) for path in checkpoints):
        return "in a checkpoint"
    marks = {"README.md": "at the end, or in the push", "all_results.json": "in the report"}
    marks |= {"_private/outputs.json": "in the results", "train_results.json": "in the evaluation"}
    reached = (where for name, where in marks.items() if (folder / name).exists())
    return next(reached, "between steps" if checkpoints else "before the first checkpoint")


def kill_and_repeat(forks, argv, script, folder, **moment) -> str | None:
    """Kill a run, give its command again, and return where it was killed; None if it had ended before."""
    killed = forks.run(script, argv, **moment).code == -signal.SIGKILL
    where = stage(folder) if killed else None
    newest = newest_checkpoint(folder, needs_best=True) if folder.exists() else None
    again = forks.run(script, argv)
    assert again.code == 0, (moment, again.output[-3000:])
    assert newest is None or f"resuming from {newest}" in again.output
    return where


def test_a_run_killed_in_its_middle_goes_on_to_the_same_end(forks, command, whole, tmp_path):
    expected, folder = whole(KILLED), tmp_path / "run"
    assert kill_and_repeat(forks, command(KILLED, folder), KILLED, folder, event=expected.events // 2)
    assert different(outcome(expected.folder), outcome(folder)) == []


@pytest.mark.faults
def test_a_run_may_be_killed_at_any_moment(hub, forks, command, whole, tmp_path, table):
    rng, stages = random.Random(0), {script: Counter[str]() for script in SCRIPTS}
    for number, script in ((number, script) for number in range(KILLS) for script in SCRIPTS):
        expected, folder = whole(script), tmp_path / script / str(number) / "run"
        repo = f"tester/{script[4:-3]}-{number}"
        argv = command(script, folder, push_to_hub=True, hub_model_id=repo)
        event, seconds = rng.randint(1, expected.events), rng.uniform(0, expected.seconds)
        at = {"event": event} if number % 2 else {"seconds": seconds}
        stages[script][kill_and_repeat(forks, argv, script, folder, **at) or "had ended"] += 1
        assert different(outcome(expected.folder), outcome(folder)) == [], at
        pushed = hub.repos[repo].files["adapter_model.safetensors"]
        assert pushed == (folder / "adapter_model.safetensors").read_bytes()
        shutil.rmtree(folder)
        table.setdefault("kills", {})[script] = {"recovered": number + 1, "of": number + 1, "where": stages[script]}


@pytest.mark.faults
def test_predict_may_be_killed_at_any_moment(forks, danger_reader, data, tmp_path, table):
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": n, "note": f"heart murmur number {n}"} for n in range(200)])

    def argv(name, *more):
        files = ["--input_file", str(rows), "--output_file", str(tmp_path / name), *more]
        return ["--model", danger_reader, "--batch_size", "4", *files]

    whole = forks.run("predict.py", argv("whole.jsonl"))
    assert whole.code == 0, whole.output
    rng, kills = random.Random(1), 0
    for number in range(7):
        name = f"{number}.jsonl"
        kills += forks.run("predict.py", argv(name), event=rng.randint(1, whole.events)).code == -signal.SIGKILL
        again = forks.run("predict.py", argv(name, "--resume", "true"))
        assert again.code == 0, again.output
        assert read_jsonl(tmp_path / name) == read_jsonl(tmp_path / "whole.jsonl")
    table.setdefault("kills", {})["predict.py"] = {"recovered": 7, "of": 7, "where": {"while it writes": kills}}


@pytest.mark.faults
def test_a_sweep_may_be_killed_at_any_moment(command, tmp_path, table):
    words = command("run_classification.py", tmp_path)
    given = {key: value for key, value in zip(words, words[1:], strict=False) if key.startswith("--")}
    recipe = "".join(f"{key[2:]}: {value}\n" for key, value in given.items() if key != "--output_dir")
    (tmp_path / "recipe.yaml").write_text(recipe)
    sweep = {
        "script": "run_classification.py", "recipe": f"{tmp_path}/recipe.yaml", "metric": "eval_macro_f1",
        "direction": "maximize", "seeds": [1, 2], "configurations": {"first": {}, "second": {"learning_rate": 0.01}},
    }  # fmt: skip
    write_yaml(tmp_path / "sweep.yaml", sweep)

    def start(folder):
        argv = [sys.executable, "sweep.py", str(tmp_path / "sweep.yaml"), "--output_dir", str(folder)]
        return subprocess.Popen(argv, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    begin = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    duration, rng, kills = time.monotonic() - begin, random.Random(2), 0
    for number in range(5):
        process = start(tmp_path / str(number))
        time.sleep(rng.uniform(0, duration))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        assert start(tmp_path / str(number)).wait() == 0
        one, other = (
            read_json(folder / "all_results.json") for folder in (tmp_path / "whole", tmp_path / str(number))
        )
        for key in ("chosen", "seeds"):
            assert one[key] == other[key]
        for a, b in zip(one["configurations"].values(), other["configurations"].values(), strict=True):
            assert a.get("values") == b.get("values") and a.get("mean") == b.get("mean")
        assert one["test"]["test_macro_f1"] == other["test"]["test_macro_f1"]
    table.setdefault("kills", {})["sweep.py"] = {"recovered": 5, "of": 5, "where": {"while it runs": kills}}
