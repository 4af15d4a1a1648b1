"""Runs of a sweep as processes: started, watched, measured, and each ended in a row that is on disk."""

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
from utils.sweeps.cost import COST, add_cost, read_meter, start_meter
from utils.sweeps.plan import Run

POLL_SECONDS = 0.2
LOOK_SECONDS = 5  # between looks at checkpoints; also how much of its cost a kill of this process can lose
GRACE_SECONDS = 30  # for several processes to end each other
ROW, LOG, PID = "row.json", "run.log", "run.pid"
OWN_FILES = (ROW, COST, LOG, PID)


def execute(
    runs: list[Run],
    metric: str,
    jobs: int,
    processes: int,
    bar: tqdm,
    keep_seed: int | None,
    bad_step: Callable[[Run, dict[int, float]], int | None] | None = None,
) -> list[dict[str, Any]]:
    """Do the runs that have no row yet, and return the rows of all of them, in order.

    A run that fails is a row with its reason. When this process is told to end, or an error leaves this function, the
    runs in the middle are ended too; the next call goes on from their checkpoints. Checkpoints of a run that nobody
    needs any more are deleted.

    Args:
        metric: a key `eval_*` that every run has to write.
        jobs: runs at once.
        processes: processes of one run, each with a GPU of its own where there are GPUs.
        bar: moved on by one for each run.
        keep_seed: checkpoints of runs with this seed are kept.
        bad_step: takes a run and its validation values by step, and returns the step at which it should have ended.

    Raises:
        UserError: a run has ended and has not written `metric`.
    """
    waiting = [run for run in runs if not (run.folder / ROW).exists()]
    bar.update(len(runs) - len(waiting))
    environments = slot_environments(jobs, processes)
    meter = start_meter() if waiting and jobs == 1 else None  # of several at once none could be told from the others
    running: dict[int, tuple[Run, subprocess.Popen, float]] = {}
    try:
        while waiting or running:
            for slot in range(jobs):
                if slot not in running and waiting:
                    run = waiting.pop(0)
                    read_meter(meter)  # what was used since the last run is not this one's
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
                cost = add_cost(run.folder, (now - since) / 60, read_meter(meter))
                if slot in running:
                    continue
                row = make_row(run, metric, process.returncode, pruned_at, cost)
                write_json(run.folder / ROW, row)
                if run.seed != keep_seed and row["status"] != "failed":
                    drop_checkpoints(run.folder)
                shown = row["reason"] or f"{metric} {format_number(row['evals'][metric])}"
                tqdm.write(f"{run.folder.name}: {row['status']}, {shown}, {cost['minutes']:.1f} min", sys.stderr)
                bar.update()
    finally:
        with contextlib.ExitStack() as stack:
            for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not leave runs behind
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
            for run, process, since in running.values():
                end(process)
                add_cost(run.folder, (time.monotonic() - since) / 60, read_meter(meter))
            if meter:
                meter.stop()
    return [read_json(run.folder / ROW) for run in runs]


def slot_environments(jobs: int, processes: int) -> list[dict[str, str]]:
    """What each of `jobs` runs at once has in its environment: GPUs of its own, or its share of the CPU's cores.

    Raises:
        UserError: runs of several processes need more GPUs than there are.
    """
    env = os.environ | {"TQDM_DISABLE": "1"}  # bars would fill the logs
    if jobs == 1:
        return [env]
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    if not torch.cuda.device_count():
        cores = max(1, joblib.cpu_count() // jobs)
        return [env | {"LOKY_MAX_CPU_COUNT": str(cores)}] * jobs  # joblib's count, which `start_run` goes by
    if processes > 1 and jobs * processes > len(gpus):
        raise UserError(f"`jobs` is {jobs}, of {processes} processes each, and there are {len(gpus)} GPUs: lower it.")
    own = [[gpus[(job * processes + i) % len(gpus)] for i in range(processes)] for job in range(jobs)]
    return [env | {"CUDA_VISIBLE_DEVICES": ",".join(devices)} for devices in own]


def start(run: Run, env: dict[str, str]) -> subprocess.Popen:
    """Start a run in a process group of its own, its output in its log.

    The group holds a lock on the log. So a run whose sweep was killed is found when the sweep starts again, and is
    ended before the same run starts a second time in the same folder.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOG).open("ab") as log:
        _end_earlier(log, run.folder / PID)
        log.truncate(0)
        process = subprocess.Popen(
            run.command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (run.folder / PID).write_text(str(process.pid))
    return process


def end(process: subprocess.Popen) -> None:
    """End a run's whole process group: ask first, so that several processes can end each other, then kill."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)  # what is left of it, also where the launcher alone had died
    process.wait()


def read_history(folder: Path, metric: str) -> dict[int, float]:
    """Step -> value of `metric` in the evaluations that a run, or its newest checkpoint, has written down."""
    checkpoints = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name[11:]))
    for path in (folder / "trainer_state.json", *reversed(checkpoints)):
        with contextlib.suppress(ValueError, OSError):  # half written, or deleted for a newer one
            history = json.loads(path.read_text(encoding="utf-8"))["log_history"]
            return {entry["step"]: entry[metric] for entry in history if is_number(entry.get(metric))}
    return {}


def make_row(run: Run, metric: str, code: int, pruned_at: int | None, cost: dict[str, float]) -> dict[str, Any]:
    """What is kept of a run that has ended: `finished`, `pruned` or `failed`, its validation numbers and its cost.

    Raises:
        UserError: it has ended well and has not written `metric`.
    """
    results = read_json(run.folder / "all_results.json")
    evals = {key: results[key] for key in results if key.startswith("eval_") and not key.endswith("_ci95")}
    finished, history = code == 0 and pruned_at is None, read_history(run.folder, metric)
    if finished and metric not in evals:
        written = ", ".join(sorted(evals)) or "no `eval_...` at all"
        raise UserError(f"`metric` {metric} is not what the runs write: {run.folder} has {written}.")
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
        "cost": cost | {key.removeprefix("train_"): results[key] for key in memory if key in results},
    }


def failure(folder: Path, code: int) -> str:
    """Why a run failed, from its log: its last `error:` line, or the type of its exception, never the message, which
    could hold a row of data."""
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    if errors := re.findall(r"^error: (.+)$", text, re.MULTILINE):
        return errors[-1]
    types = re.findall(r"^((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit))\b", text, re.MULTILINE)
    types = [name for name in types if not name.endswith("CalledProcessError")]  # accelerate's own, after the run's
    killed = re.findall(r"died with <Signals\.(\w+)", text)
    if killed or code < 0:
        return f"ended by {killed[-1] if killed else signal.Signals(-code).name}"
    return types[-1] if types else f"exit code {code}"


def drop_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run: its model and numbers stay, training it further would begin anew."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)


def _end_earlier(log: BinaryIO, pid: Path) -> None:
    """Take the lock on a run's log; a process group of an earlier sweep that holds it is ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(int(GRACE_SECONDS / POLL_SECONDS)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            with contextlib.suppress(OSError, ValueError):  # the group is gone, or has no number
                os.killpg(int(pid.read_text()), number)
            time.sleep(POLL_SECONDS)
    raise UserError(f"a process of an earlier sweep still writes to {log.name}: end it.")
