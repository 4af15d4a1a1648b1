"""Runs of a sweep as real processes: rows, reasons, several at once, pruning, and kills at any moment."""

import csv
import fcntl
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_here, write_yaml
from tqdm import tqdm

from sweep import main
from utils.arguments import UserError
from utils.json_files import read_json, write_json
from utils.sweeps.arguments import SweepArguments
from utils.sweeps.plan import Run, as_flags
from utils.sweeps.report import COSTS, check_same_rows
from utils.sweeps.running import execute, read_history, slot_environments

SCRIPT = str(ROOT / "tests" / "sweep_script.py")
QUICK = {"PYTHONPATH": str(ROOT / "tests" / "sweeps" / "quick_launcher")}  # what starts the runs of toy sweeps


def toy_run(folder: Path, seed: int = 1, **values) -> Run:
    command = [sys.executable, SCRIPT, *as_flags(values | {"seed": seed, "output_dir": folder})]
    return Run(folder.name, values, seed, folder, command)


def do(runs: list[Run], jobs: int = 1, metric: str = "eval_loss", keep_seed: int | None = 1, bad_step=None) -> list:
    with tqdm(total=len(runs), disable=True) as bar:
        return execute(runs, metric, jobs, 1, bar, keep_seed, bad_step)


def starts(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "starts").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# ----- Rows


def test_a_run_becomes_a_row_and_is_not_done_twice(tmp_path):
    runs = [toy_run(tmp_path / "a", learning_rate=0.1), toy_run(tmp_path / "b", seed=2, learning_rate=0.2)]
    rows = do(runs)
    assert [(row["configuration"], row["seed"], row["status"]) for row in rows] == [
        ("a", 1, "finished"), ("b", 2, "finished"),
    ]  # fmt: skip
    results = read_json(tmp_path / "b" / "all_results.json")
    assert rows[1]["evals"] == {key: results[key] for key in ("eval_loss", "eval_accuracy")}
    assert rows[1]["history"]["6"] == results["eval_loss"] and rows[1]["values"] == {"learning_rate": 0.2}
    assert rows[1]["cost"]["minutes"] > 0 and rows[1]["cost"]["peak_memory_gb"] == 0.1
    assert do(runs) == rows and len(starts(tmp_path / "a")) == 1
    # the checkpoints of a seed that is not tested have gone, those of the first are there
    assert len(list((tmp_path / "a").glob("checkpoint-*"))) == 6 and not list((tmp_path / "b").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("user", "`learning_rate` is not to its liking: give another."),
        ("defect", "KeyError"),
        ("killed", "ended by SIGKILL"),
        ("nan", "eval_loss is not a number"),
    ],
)
def test_a_run_that_fails_is_a_row_with_its_reason_and_the_next_one_runs(tmp_path, fail, reason):
    rows = do([toy_run(tmp_path / "bad", fail=fail), toy_run(tmp_path / "good")], jobs=2)
    assert [row["status"] for row in rows] == ["failed", "finished"]
    assert rows[0]["reason"] == reason and rows[0]["evals"] == {}


def test_a_process_that_dies_behind_its_launcher_is_a_row_too(tmp_path):
    run = toy_run(tmp_path / "run", fail="killed")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    (row,) = do([run._replace(command=[*launch, *run.command[1:]])])
    assert (row["status"], row["reason"]) == ("failed", "ended by SIGKILL")


def test_a_metric_that_the_runs_do_not_write_ends_the_sweep_and_names_those_they_do(tmp_path):
    with pytest.raises(UserError, match="`metric` is eval_rouge1.*eval_accuracy, eval_loss"):
        do([toy_run(tmp_path / "run"), toy_run(tmp_path / "never", seed=2)], metric="eval_rouge1")
    assert not (tmp_path / "never").exists()


def test_several_runs_at_once_share_the_cores_and_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT")  # of these tests
    runs = [toy_run(tmp_path / f"r{seed}", seed=seed, step_seconds=0.2) for seed in (1, 2, 3)]
    rows = do(runs, jobs=3)
    assert [row["seed"] for row in rows] == [1, 2, 3]
    begun = [(tmp_path / f"r{seed}" / "starts").stat().st_mtime for seed in (1, 2, 3)]
    finished = [(tmp_path / f"r{seed}" / "all_results.json").stat().st_mtime for seed in (1, 2, 3)]
    assert max(begun) < min(finished)
    environments = slot_environments(jobs=2, processes=1)
    assert len(environments) == 2 and int(environments[0]["LOKY_MAX_CPU_COUNT"]) == max(1, os.cpu_count() // 2)
    assert "LOKY_MAX_CPU_COUNT" not in slot_environments(jobs=1, processes=1)[0]


def test_each_of_several_runs_at_once_has_gpus_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [env["CUDA_VISIBLE_DEVICES"] for env in slot_environments(1, 1)] == ["0"]  # as many as several have
    assert [env["CUDA_VISIBLE_DEVICES"] for env in slot_environments(2, 2)] == ["0,1", "2,3"]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in slot_environments(5, 1)] == ["0", "1", "2", "3", "0"]
    with pytest.raises(UserError, match="`jobs` is 3 with 2 processes each.* 4 GPUs"):
        slot_environments(3, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,1,2")
    assert [env["CUDA_VISIBLE_DEVICES"] for env in slot_environments(2, 1)] == ["5", "7"]


def test_runs_on_other_rows_are_not_compared():
    rows = [
        {"configuration": name, "rows": {"validation_sha256": digest}}
        for name, digest in (("a", "1"), ("b", "2"), ("c", "2"))
    ]
    check_same_rows(rows[1:])
    with pytest.raises(UserError, match="configurations `a` and `b` have different"):
        check_same_rows([{"configuration": "failed", "rows": {}}, *rows])


# ----- Pruning


def test_a_run_is_pruned_at_the_step_that_was_bad_even_if_it_had_ended(tmp_path, monkeypatch):
    def bad_step(run: Run, history: dict[int, float]) -> int | None:
        return 3 if 3 in history else None

    monkeypatch.setattr("utils.sweeps.running.LOOK_SECONDS", 0.5)
    slow, fast = toy_run(tmp_path / "slow", step_seconds=0.5, max_steps=60), toy_run(tmp_path / "fast")
    rows = do([slow, fast], jobs=2, bad_step=bad_step)
    assert [row["status"] for row in rows] == ["pruned", "pruned"]
    assert [row["reason"] for row in rows] == ["pruned at step 3"] * 2
    assert list(rows[0]["history"]) == list(rows[1]["history"]) == ["1", "2", "3"]
    assert rows[0]["history"] == rows[1]["history"] and rows[0]["evals"] == {}
    assert not (tmp_path / "slow" / "all_results.json").exists()
    assert not alive(starts(tmp_path / "slow")[0])


def test_the_history_is_that_of_the_newest_whole_checkpoint(tmp_path):
    do([toy_run(tmp_path / "run", max_steps=12)])
    (tmp_path / "run" / "trainer_state.json").unlink()
    whole = read_history(tmp_path / "run", "eval_loss")
    assert list(whole) == list(range(1, 13))
    (tmp_path / "run" / "checkpoint-12" / "trainer_state.json").write_text('{"log_hist')
    assert list(read_history(tmp_path / "run", "eval_loss")) == list(range(1, 12))
    assert read_history(tmp_path / "run", "eval_rouge1") == {} == read_history(tmp_path / "none", "eval_loss")


# ----- Kills


def toy_sweep(folder: Path, **values) -> Path:
    recipe = write_yaml(folder.parent / "recipe.yaml", {"max_steps": 8, "step_seconds": 0.1})
    sweep = {
        "script": SCRIPT, "recipe": str(recipe), "metric": "eval_loss", "direction": "minimize", "seeds": [1, 2],
        "configurations": {"slow": {}, "fast": {"learning_rate": "5e-1"}}, "output_dir": str(folder),
        "config_file": str(ROOT / "recipes" / "accelerate" / "cpu.yaml"),
    }  # fmt: skip
    return write_yaml(folder.parent / f"{folder.name}.yaml", sweep | values)


def finish(path: Path, *flags: str, code: int = 0) -> str:
    """Do a sweep in this process, which saves the seconds that imports take, and return what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", QUICK["PYTHONPATH"])
        done = run_here(lambda args, given: main(args), (SweepArguments,), [str(path), *flags])
    assert done.code == code, done.stderr[-3000:]
    return done.stdout + done.stderr


def table(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table without its cost."""
    rows = list(csv.DictReader((folder / name).open()))
    return [{key: value for key, value in row.items() if key not in COSTS} for row in rows]


TABLES = ("hyperparameter_results.csv", "hyperparameter_summary.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A sweep that nobody has disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    finish(toy_sweep(folder))
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_that_is_killed_and_started_again_ends_in_the_same_table(launcher, whole, tmp_path, number):
    path, folder = toy_sweep(tmp_path / "sweep"), tmp_path / "sweep"
    middle = folder / "runs" / "slow-seed2"
    done = launcher.run("sweep.py", [str(path)], exists=middle / "checkpoint-3", number=number, env=QUICK)
    orphan = starts(middle)[0]
    if number == signal.SIGTERM:  # it ends its runs and says so
        assert done.code == 130 and "run the same command to resume" in done.output and not alive(orphan)
    assert not (middle / "row.json").exists()
    finish(path)
    assert not alive(orphan) and len(starts(middle)) == 2 and len(starts(folder / "runs" / "slow-seed1")) == 1
    for name in TABLES:
        assert table(folder, name) == table(whole, name)
    assert read_json(folder / "best" / "all_results.json") == read_json(whole / "best" / "all_results.json")
    assert read_json(middle / "row.json")["cost"]["minutes"] > 0


def test_a_sweep_that_has_ended_ends_again_at_once_in_the_same_table(whole):
    before = [(whole / name).read_bytes() for name in TABLES]
    runs = {path: path.read_text() for path in whole.glob("*/starts")} | {
        path: path.read_text() for path in whole.glob("runs/*/starts")
    }
    finish(whole.parent / "sweep.yaml")
    assert [(whole / name).read_bytes() for name in TABLES] == before
    assert all(path.read_text() == text for path, text in runs.items()) and len(runs) == 5


def test_the_test_rows_are_touched_once_and_by_the_winner(whole):
    tested = [path for path in whole.rglob("all_results.json") if "test_loss" in read_json(path)]
    assert tested == [whole / "best" / "all_results.json"]
    found = read_json(whole / "all_results.json")
    rows = table(whole, "hyperparameter_results.csv")
    means = {c: sum(float(r["eval_loss"]) for r in rows if r["configuration"] == c) / 2 for c in ("slow", "fast")}
    assert found["chosen"] == min(means, key=means.get) == "fast"
    text = (whole / "report.md").read_text()
    assert "over the seeds 1, 2" in text and "paired over 2 seeds" in text
    assert found["test"]["seed"] == 1 and found["test"]["test_loss"] == read_json(tested[0])["test_loss"]
    kept = {path.parent.parent.name for path in whole.rglob("checkpoint-*/trainer_state.json")}
    assert kept == {"best"}


def test_two_sweeps_in_one_folder_at_once_are_refused(tmp_path):
    path = toy_sweep(tmp_path / "sweep")
    (tmp_path / "sweep").mkdir()
    with (tmp_path / "sweep" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "is in use by another sweep" in finish(path, code=2)
    assert not (tmp_path / "sweep" / "runs").exists()


def test_a_second_winner_is_not_tested_unasked(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "sweep")
    path = toy_sweep(tmp_path / "sweep")
    for name in ("slow-seed1", "slow-seed2"):  # as if a failed run had become the best one
        file = tmp_path / "sweep" / "runs" / name / "row.json"
        row = read_json(file)
        write_json(file, row | {"evals": row["evals"] | {"eval_loss": 0.001}})
    (tmp_path / "sweep" / "sweep.json").unlink()
    said = finish(path, code=2)
    assert "earlier winner `fast`" in said and "now `slow` is best" in said


def test_a_folder_of_another_sweep_is_refused_and_left_as_it_is(whole):
    before = (whole / "sweep.json").read_bytes()
    text = finish(whole.parent / "sweep.yaml", "--seeds", "1", "2", "3", code=2)
    assert "error: `output_dir`" in text and "holds another sweep (`seeds` differs)" in text
    assert (whole / "sweep.json").read_bytes() == before


def test_failed_runs_stay_rows_until_they_are_asked_to_run_again(tmp_path):
    configurations = {"good": {}, "bad": {"fail": "defect"}}
    path, folder = toy_sweep(tmp_path / "sweep", configurations=configurations, seeds=[1]), tmp_path / "sweep"
    finish(path)
    finish(path)
    assert len(starts(folder / "runs" / "bad-seed1")) == 1
    finish(path, "--retry_failed")
    assert len(starts(folder / "runs" / "bad-seed1")) == 2 and len(starts(folder / "runs" / "good-seed1")) == 1
    (row,) = [row for row in table(folder, TABLES[0]) if row["configuration"] == "bad"]
    assert (row["status"], row["reason"], row["eval_loss"]) == ("failed", "KeyError", "")
    assert "1 of 2 runs failed (KeyError)" in (folder / "report.md").read_text()
    assert "Patient 7" not in (folder / "report.md").read_text() + (folder / TABLES[0]).read_text()


def test_a_sweep_of_which_nothing_finishes_says_so(tmp_path):
    path = toy_sweep(tmp_path / "sweep", configurations={"bad": {"fail": "user"}}, seeds=[1])
    assert "error: no configuration finished with every seed" in finish(path, code=2)
    assert "none was selected" in (tmp_path / "sweep" / "report.md").read_text()


# ----- Search


def test_a_search_compares_its_best_trials_with_the_recipe_on_other_seeds_only(tmp_path):
    folder = tmp_path / "sweep"
    search = {"learning_rate": {"low": "1e-3", "high": 1.0, "log": True}}
    path = toy_sweep(folder, configurations=None, search=search, trials=2, finalists=1, seeds=[7, 8, 9], jobs=2)
    path.write_text(path.read_text().replace("configurations: null\n", ""))
    finish(path)
    rows = table(folder, "hyperparameter_results.csv")
    trials = [row for row in rows if row["seed"] == "7"]
    assert [row["configuration"] for row in trials] == ["trial-0", "trial-1"]
    best = min(trials, key=lambda row: float(row["eval_loss"]))["configuration"]
    assert {(row["configuration"], row["seed"]) for row in rows if row["seed"] != "7"} == {
        (name, seed) for name in ("recipe", best) for seed in ("8", "9")
    }
    found = read_json(folder / "all_results.json")
    assert found["seeds"] == [8, 9] and [c["configuration"] for c in found["configurations"]] == ["recipe", best]
    assert found["test"]["seed"] == 8 and all(c["seeds"] == 2 for c in found["configurations"])
    shutil.rmtree(folder / "runs" / "trial-1-seed7")  # as if it had never run: it is proposed again
    values = [row["learning_rate"] for row in trials]
    finish(path)
    again = [row["learning_rate"] for row in table(folder, "hyperparameter_results.csv") if row["seed"] == "7"]
    assert again == values
