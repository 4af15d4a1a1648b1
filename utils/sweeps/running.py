"""Execute the runs of a sweep as processes and store one result row per run."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import joblib
import torch
from tqdm import tqdm

from utils.arguments import UserError
from utils.json_files import read_json, write_json
from utils.reporting.metric_names import is_number
from utils.reporting.tables import format_number
from utils.sweeps.plan import Run

POLL_SECONDS = 0.2
LOOK_SECONDS = 5  # between checks of a run; if this process is killed, at most this much of its run time is lost
GRACE_SECONDS = 30  # between SIGTERM and SIGKILL
ROW, TIME, LOG, PID = "row.json", "time.json", "run.log", "run.pid"
OWN_FILES = (ROW, TIME, LOG, PID)


def execute(
    runs: list[Run],
    metric: str,
    jobs: int,
    processes: int,
    bar: tqdm,
    keep_seed: int | None,
    bad_step: Callable[[Run, dict[int, float]], int | None] | None = None,
) -> list[dict[str, Any]]:
    """Execute the runs that have no row yet and return the rows of all runs, in order.

    A failed run gives a row with its reason. If this function is interrupted, it stops the active runs; the next call
    resumes them from their checkpoints.

    Args:
        metric: the `eval_*` key that every run must write.
        jobs: number of runs in parallel.
        processes: number of processes per run; on a GPU machine each gets its own GPU.
        bar: progress bar, advanced once per run.
        keep_seed: keep the checkpoints of runs with this seed and delete those of the others.
        bad_step: takes a run and its validation values by step; returns the step at which to prune the run, or None.

    Raises:
        UserError: a run finished without writing `metric`.
    """
    waiting = [run for run in runs if not (run.folder / ROW).exists()]
    bar.update(len(runs) - len(waiting))
    environments = slot_environments(jobs, processes)
    running: dict[int, tuple[Run, subprocess.Popen, float]] = {}
    try:
        while waiting or running:
            for slot in range(jobs):
                if slot not in running and waiting:
                    run = waiting.pop(0)
                    running[slot] = (run, start(run, environments[slot]), time.monotonic())
                    bar.set_postfix_str(", ".join(run.folder.name for run, _, _ in running.values()))
            time.sleep(POLL_SECONDS)
            for slot, (run, process, since) in list(running.items()):
                code, now = process.poll(), time.monotonic()
                if code is None and now - since < LOOK_SECONDS:
                    continue
                running[slot] = (run, process, now)
                pruned_at = bad_step(run, read_history(run.folder, metric)) if bad_step else None
                if code is not None or pruned_at is not None:
                    end(process)
                    del running[slot]
                minutes = add_minutes(run.folder, now - since)
                if slot in running:
                    continue
                row = make_row(run, metric, process.returncode, pruned_at, minutes)
                write_json(run.folder / ROW, row)
                if run.seed != keep_seed and row["status"] != "failed":
                    drop_checkpoints(run.folder)
                shown = row["reason"] or f"{metric} {format_number(row['evals'][metric])}"
                tqdm.write(f"{run.folder.name}: {row['status']}, {shown}, {minutes:.1f} min", sys.stderr)
                bar.update()
    finally:
        with contextlib.ExitStack() as stack:
            for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not leave orphan runs
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
            for run, process, since in running.values():
                end(process)
                add_minutes(run.folder, time.monotonic() - since)
    return [read_json(run.folder / ROW) for run in runs]


def add_minutes(folder: Path, seconds: float) -> float:
    """Add to the stored run time, which also counts interrupted attempts, and return the total in minutes."""
    minutes = read_json(folder / TIME).get("minutes", 0.0) + seconds / 60
    write_json(folder / TIME, {"minutes": minutes})
    return minutes


def slot_environments(jobs: int, processes: int) -> list[dict[str, str]]:
    """Return one environment per parallel run: each run gets its own GPUs, or its share of the CPU cores.

    Raises:
        UserError: multi-process runs need more GPUs than the machine has.
    """
    env = os.environ | {"TQDM_DISABLE": "1"}  # progress bars would fill the logs
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    if not torch.cuda.device_count():
        if jobs == 1:
            return [env]
        cores = max(1, joblib.cpu_count() // jobs)
        return [env | {"LOKY_MAX_CPU_COUNT": str(cores)}] * jobs  # `start_run` takes the number of threads from joblib
    if processes > 1 and jobs * processes > len(gpus):
        lower = "lower `jobs`" if processes <= len(gpus) else "lower `num_processes` in `config_file`"
        raise UserError(f"`jobs` is {jobs} with {processes} processes each, but there are {len(gpus)} GPUs: {lower}.")
    own = [[gpus[(job * processes + i) % len(gpus)] for i in range(processes)] for job in range(jobs)]
    return [env | {"CUDA_VISIBLE_DEVICES": ",".join(devices)} for devices in own]


def start(run: Run, env: dict[str, str]) -> subprocess.Popen:
    """Start a run in its own process group, with its output in its log file.

    The process group holds a lock on the log. If the sweep is killed and started again, it detects the orphan run by
    this lock and stops it before it starts the run again.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("ab") as log:
        _stop_orphan(log, run.folder / PID)
        log.truncate(0)
        process = subprocess.Popen(
            run.command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (run.folder / PID).write_text(str(process.pid))
    return process


def end(process: subprocess.Popen) -> None:
    """Stop the process group of a run: SIGTERM first, then SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)  # also kills children that outlived the launcher
    process.wait()


def read_history(folder: Path, metric: str) -> dict[int, float]:
    """Return step -> value of `metric`, from the trainer state of a run or of its newest readable checkpoint."""
    checkpoints = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name[11:]))
    for path in (folder / "trainer_state.json", *reversed(checkpoints)):
        with contextlib.suppress(ValueError, OSError):  # incomplete, or just deleted
            history = json.loads(path.read_text(encoding="utf-8"))["log_history"]
            return {entry["step"]: entry[metric] for entry in history if is_number(entry.get(metric))}
    return {}


def make_row(run: Run, metric: str, code: int, pruned_at: int | None, minutes: float) -> dict[str, Any]:
    """Return the row of an ended run: status (`finished`, `pruned` or `failed`), validation metrics and cost.

    Raises:
        UserError: the run succeeded but did not write `metric`.
    """
    results = read_json(run.folder / "all_results.json")
    evals = {key: results[key] for key in results if key.startswith("eval_") and not key.endswith("_ci95")}
    finished, history = code == 0 and pruned_at is None, read_history(run.folder, metric)
    if finished and metric not in evals:
        written = ", ".join(sorted(evals)) or "no validation metric"
        raise UserError(f"`metric` is {metric}, which {run.folder} does not contain: choose from {written}.")
    if pruned_at is not None:
        status, reason = "pruned", f"pruned at step {pruned_at}"
    elif not finished:
        status, reason = "failed", failure(run.folder, code)
    elif not is_number(evals[metric]):
        status, reason = "failed", f"{metric} is not a number"
    else:
        status, reason = "finished", ""
    memory = ("train_peak_memory_gb", "train_peak_gpu_memory_gb")
    return {
        "configuration": run.configuration,
        "values": run.values,
        "seed": run.seed,
        "status": status,
        "reason": reason,
        "evals": evals if status == "finished" else {},
        "history": {str(s): v for s, v in history.items() if pruned_at is None or s <= pruned_at},
        "rows": {key: results[key] for key in ("validation_sha256", "test_sha256") if key in results},
        "cost": {"minutes": minutes} | {key.removeprefix("train_"): results[key] for key in memory if key in results},
    }


def failure(folder: Path, code: int) -> str:
    """Return why a run failed: the last `error:` line of its log, or the type of its exception. The exception message
    is left out, because it could contain a row of data."""
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    if errors := re.findall(r"^error: (.+)$", text, re.MULTILINE):
        return errors[-1]
    types = re.findall(r"^((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit))\b", text, re.MULTILINE)
    types = [
        name for name in types if not name.endswith("CalledProcessError")
    ]  # raised by accelerate after the run's own exception
    killed = re.findall(r"died with <Signals\.(\w+)", text)
    if killed or code < 0:
        return f"ended by {killed[-1] if killed else signal.Signals(-code).name}"
    return types[-1] if types else f"exit code {code}"


def drop_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run. Its model and results stay."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)


def _stop_orphan(log: BinaryIO, pid: Path) -> None:
    """Lock the log of a run. Stop the process group of an earlier sweep that still holds the lock."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(int(GRACE_SECONDS / POLL_SECONDS)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            with contextlib.suppress(OSError, ValueError):  # the group is gone, or its number was not written
                os.killpg(int(pid.read_text()), number)
            time.sleep(POLL_SECONDS)
    raise UserError(f"`{log.name}` is still in use by a run of an earlier sweep: stop that process.")
