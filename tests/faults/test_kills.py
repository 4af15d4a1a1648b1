"""SIGKILL at any moment, then the same command again: the same weights bit for bit, and the same results."""

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, read_jsonl, write_rows, write_yaml

from tests.faults.conftest import KILLED, SCRIPTS, different, outcome
from utils.json_files import read_json
from utils.run import SAVING, newest_checkpoint


def stage(folder: Path) -> str:
    """Where a run was, as its folder shows."""
    if not (folder / "recipe.yaml").exists():
        return "while it loads"
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


# ----- The long part: 100 kills. Those that are done are in `DONE`, so that the command goes on if it is killed itself

KILLS = {
    "run_qa_sft.py": 20, "run_classification.py": 20, "run_hierarchical.py": 16, "run_summarization.py": 16,
    "predict.py": 10, "export.py": 10, "sweep.py": 8,
}  # fmt: skip
DONE = ROOT / "outputs" / "faults" / "kills.jsonl"


def kills_of(script: str) -> list[str]:
    """Return where the kills of a script that are done were."""
    return [line["where"] for line in read_jsonl(DONE) if line["script"] == script] if DONE.exists() else []


def moments(script: str, events: int, loading: float) -> Iterator[dict[str, float]]:
    """Yield random moments for the kills that are left: a fifth while a script loads, the others at an event or up to
    a second after it."""
    while (number := len(kills_of(script))) < KILLS[script]:
        rng = random.Random(f"{script} {number} {time.time()}")
        if number % 5 == 0:
            yield {"seconds": rng.uniform(0.01, loading)}
        else:
            yield {"event": rng.randint(1, events), "after": number % 2 * rng.uniform(0, 1)}


def note(script: str, where: str) -> None:
    DONE.parent.mkdir(parents=True, exist_ok=True)
    with DONE.open("a") as stream:
        stream.write(json.dumps({"script": script, "where": where}) + "\n")


@pytest.mark.faults
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_may_be_killed_at_any_moment(script, hub, forks, command, whole, tmp_path):
    expected = whole(script)
    for number, moment in enumerate(moments(script, expected.events, expected.seconds / 4)):
        folder, repo = tmp_path / str(number) / "run", f"tester/{script[4:-3]}-{number}"
        argv = command(script, folder, push_to_hub=True, hub_model_id=repo)
        where = kill_and_repeat(forks, argv, script, folder, **moment)
        assert different(outcome(expected.folder), outcome(folder)) == [], moment
        pushed = hub.repos[repo].files["adapter_model.safetensors"]
        assert pushed == (folder / "adapter_model.safetensors").read_bytes()
        shutil.rmtree(folder.parent)
        if where:
            note(script, where)


@pytest.mark.faults
def test_predict_may_be_killed_at_any_moment(forks, whole, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": n, "note": f"heart murmur number {n}"} for n in range(200)])
    model = str(whole(KILLED).folder)

    def argv(folder, *more):
        files = ["--input_file", str(rows), "--output_file", str(folder / "out.jsonl"), *more]
        return ["--model", model, "--batch_size", "4", *files]

    (tmp_path / "whole").mkdir()
    start, first = time.monotonic(), forks.run("predict.py", argv(tmp_path / "whole"))
    assert first.code == 0, first.output
    for number, moment in enumerate(moments("predict.py", first.events, (time.monotonic() - start) / 2)):
        (folder := tmp_path / str(number)).mkdir()
        killed = forks.run("predict.py", argv(folder), **moment).code == -signal.SIGKILL
        there = (folder / "out.jsonl").exists()
        again = forks.run("predict.py", argv(folder, "--resume", "true"))
        assert again.code == 0, again.output
        assert read_jsonl(folder / "out.jsonl") == read_jsonl(tmp_path / "whole" / "out.jsonl")
        assert [path.name for path in folder.iterdir()] == ["out.jsonl"]
        if killed:
            note("predict.py", "while it writes" if there else "before the first batch")


@pytest.mark.faults
def test_an_export_may_be_killed_at_any_moment(forks, whole, tmp_path):
    model = str(whole("run_qa_sft.py").folder)

    def argv(folder):
        return ["--model", model, "--output_dir", str(folder / "export"), "--max_predict_samples", "4"]

    def files(folder):
        found = {path.name: path.read_bytes() for path in (folder / "export").iterdir()}
        return {name: content for name, content in found.items() if name.endswith((".safetensors", "task.json"))}

    start, first = time.monotonic(), forks.run("export.py", argv(tmp_path / "whole"))
    assert first.code == 0, first.output
    for number, moment in enumerate(moments("export.py", first.events, (time.monotonic() - start) / 2)):
        folder = tmp_path / str(number)
        killed = forks.run("export.py", argv(folder), **moment).code == -signal.SIGKILL
        begun, ended = (folder / ".export.partial").exists(), (folder / "export").exists()
        if not ended:  # what has its name is whole
            again = forks.run("export.py", argv(folder))
            assert again.code == 0, again.output
        assert files(folder) == files(tmp_path / "whole") and [p.name for p in folder.iterdir()] == ["export"]
        shutil.rmtree(folder)
        if killed:
            note("export.py", "at the end" if ended else "while it writes or checks" if begun else "before it writes")


@pytest.mark.faults
def test_a_sweep_may_be_killed_at_any_moment(forks, tmp_path):
    sweep = {
        "script": str(ROOT / "tests" / "sweep_script.py"), "metric": "eval_loss", "direction": "minimize",
        "recipe": str(write_yaml(tmp_path / "recipe.yaml", {"step_seconds": 0.1})), "seeds": [1, 2],
        "configurations": {"first": {}, "second": {"learning_rate": 1.0}},
    }  # fmt: skip
    file = str(write_yaml(tmp_path / "sweep.yaml", sweep))

    def argv(folder):
        return [file, "--output_dir", str(folder / "sweep")]

    def found(folder):
        results = read_json(folder / "sweep" / "all_results.json")
        of_each = [[one[key] for key in ("configuration", "mean", "sd")] for one in results["configurations"]]
        return results["chosen"], results["seeds"], of_each, results["test"]

    start, first = time.monotonic(), forks.run("sweep.py", argv(tmp_path / "whole"))
    assert first.code == 0, first.output
    expected = found(tmp_path / "whole")
    for number, moment in enumerate(moments("sweep.py", first.events, (time.monotonic() - start) / 4)):
        folder = tmp_path / str(number)
        killed = forks.run("sweep.py", argv(folder), **moment).code == -signal.SIGKILL
        rows = len(list(folder.rglob("row.json")))
        again = forks.run("sweep.py", argv(folder))
        assert again.code == 0, again.output
        assert found(folder) == expected
        if killed:
            note("sweep.py", f"with {rows} of 4 runs done")


@pytest.mark.faults
def test_all_kills_are_recovered(table):
    table["kills"] = {
        script: {"recovered": len(kills_of(script)), "of": number, "where": dict(Counter(kills_of(script)))}
        for script, number in KILLS.items()
    }
    assert sum(line["recovered"] for line in table["kills"].values()) == sum(KILLS.values()) == 100
    DONE.unlink()
