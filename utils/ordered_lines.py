"""Write a line per row in the order of the rows, while batches end in another order. A killed run loses the batch of
each process, and no more.

Until a run is finished, `OUTPUT.partial/` stands beside its output: `run.json`, what the run depends on, and for each
process `rank-N.journal`, lines that wait for earlier ones. Several processes share this folder alone: each writes
`rank-N.jsonl`, and the first one joins them.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import psutil
import torch

from utils.arguments import UserError
from utils.json_files import hold, read_json, write_json

AGAIN = "start anew with `--overwrite`"
LOCK = "lock"
SECONDS = 0.2  # between two looks at the files of another process


class OrderedLines:
    """Lines by number. A line is written once all before it are; until then it waits, in the journal, too.

    Args:
        path: file of the lines; None is standard output.
        journal: file of the waiting lines; None keeps none, and writes `path` anew.
        goes_on: whether the lines of an earlier run stay.
        begin: called before the first line is written, which is the first time that a file changes.
    """

    def __init__(self, path: Path | None, journal: Path | None, goes_on: bool, begin: Callable[[], None]) -> None:
        self.path, self.journal, self.begin = path, journal, begin
        self.written = count_lines(path) if path and goes_on else 0
        self.waiting: dict[int, str] = {}
        if journal and goes_on and journal.exists():
            with journal.open(encoding="utf-8") as stream:
                kept = (line.split("\t", 1) for line in stream if line.endswith("\n"))
                self.waiting = {int(number): line for number, line in kept if int(number) >= self.written}
        self.streams: list[TextIO] = []

    def __contains__(self, number: int) -> bool:
        return number < self.written or number in self.waiting

    def add(self, lines: Mapping[int, str]) -> None:
        """Add the lines of a batch, each with its line break."""
        if not self.streams:
            self.begin()
            paths = [path for path in (self.path, self.journal) if path]
            self.streams = [_open(path, bool(self.journal)) for path in paths] or [sys.stdout]
        self.waiting |= lines
        output, *journal = self.streams
        try:
            for stream in journal:
                stream.write("".join(f"{number}\t{line}" for number, line in lines.items()))
                stream.flush()
            while self.written in self.waiting:
                output.write(self.waiting.pop(self.written))
                self.written += 1
            output.flush()
            for stream in journal if not self.waiting else ():
                stream.truncate(0)
        except OSError as error:
            raise UserError(f"the output cannot be written ({error.strerror}): make room, then `--resume`.") from error

    def close(self) -> None:
        """Write what an earlier run has left to write, and close the files."""
        self.add({})
        for stream in self.streams if self.path else ():
            stream.close()


def _open(path: Path, append: bool) -> TextIO:
    """Open a file for its next lines. What a killed process has left of a line is cut off."""
    if append:
        count_lines(path, cut=True)
    return path.open("a" if append else "w", encoding="utf-8")


def count_lines(path: Path, cut: bool = False) -> int:
    """Return the number of complete lines of a file, 0 if it is not there. `cut` cuts off an incomplete last line."""
    if not path.exists():
        return 0
    lines, end = 0, 0
    with path.open("r+b" if cut else "rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                lines, end = lines + 1, end + len(line)
        if cut:
            stream.truncate(end)
    return lines


# ----- Runs that are not finished


def partial_folder(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def finished_file(output: Path) -> Path:
    """Return the file that says what the lines of a finished output depend on."""
    return output.with_name(f"{output.name}.run.json")


def remove_partial(output: Path) -> None:
    """Delete what stands beside an output until its run is finished, if it is there."""
    shutil.rmtree(partial_folder(output), ignore_errors=True)


def check_output(output: Path, settings: Mapping[str, Any], resume: bool, overwrite: bool, rows: int) -> str:
    """Return whether to `start`, to `resume`, or that the output is `complete`. Nothing is changed.

    Args:
        output: the file to write.
        settings: what its lines depend on, by key.
        resume, overwrite: what to do with an output that is there.
        rows: number of lines of a complete output.

    Raises:
        UserError: the output is there and must not be written to; names the settings that differ from its own.
    """
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"`output_file` {output} cannot be written: give a file in a folder that exists.")
    run = read_json(partial_folder(output) / "run.json")
    if resume and run:
        if changed := _changed(run, settings):
            raise UserError(
                f"`output_file` {output} was begun with another {changed}: repeat that command, or {AGAIN}."
            )
        return "resume"
    if overwrite or not (run or output.exists()):
        return "start"
    if run:
        raise UserError(f"`output_file` {output} is not finished: `--resume` goes on, `--overwrite` starts anew.")
    if resume and count_lines(output) == rows and (run := read_json(finished_file(output))):
        if changed := _changed(run, settings):
            raise UserError(
                f"`output_file` {output} was written with another {changed}: give another name, or {AGAIN}."
            )
        return "complete"
    found = f"`output_file` {output} exists" + (" and is of no stopped run" if resume else "")
    raise UserError(f"{found}: give another name, or replace it with `--overwrite`.")


def _changed(run: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}`" for key in settings if run.get(key) != settings[key])


def begin(output: Path, settings: Mapping[str, Any], launch: str, goes_on: bool, keep_output: bool) -> None:
    """Note what a run depends on, and delete what an earlier one has left unless this one goes on with it.

    Raises:
        UserError: the earlier one still runs.
    """
    folder = partial_folder(output)
    folder.mkdir(exist_ok=True)
    if holder := hold(folder / LOCK):
        raise UserError(f"`output_file` {output} is being written by process {holder}: wait for it, or stop it.")
    if not goes_on:
        for path in folder.iterdir():
            if path.name != LOCK:
                path.unlink()
        finished_file(output).unlink(missing_ok=True)
        if not keep_output:
            output.unlink(missing_ok=True)
    for mark in folder.glob("rank-*.done"):
        mark.unlink()
    write_json(folder / "run.json", {**settings, "launch": launch})


def digest(path: str | Path) -> str:
    """Return the sha256 of a file."""
    found = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(2**20):
            found.update(block)
    return found.hexdigest()


# ----- Several processes


def take_rank() -> tuple[int, int, str]:
    """Return the rank of this process, the number of processes, and a name of their launch that no other has.

    Each process goes at its own pace, so the libraries must not see that there are others.
    """
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    rank, processes, local = (int(os.environ.pop(name, default)) for name, default in names.items())
    if processes > int(os.environ.pop("LOCAL_WORLD_SIZE", processes)):
        raise UserError("the processes are on several machines: split `input_file`, and give each machine a part.")
    if processes > 1 and torch.cuda.is_available():
        torch.cuda.set_device(local)
    parent = psutil.Process(os.getppid())
    return rank, processes, f"{parent.pid} {parent.create_time()} {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


def wait_for_begin(output: Path, launch: str, resume: bool) -> str:
    """Wait until the first process of this launch has called `begin`, and return as `check_output` does."""
    while (run := read_json(partial_folder(output) / "run.json")).get("launch") != launch:
        if resume and not run and output.exists():
            return "complete"
        time.sleep(SECONDS)
    return "resume"


def finish(output: Path, rank: int, processes: int, window: int) -> None:
    """End a run: the first process waits for the others, and writes `window` lines of each in turn."""
    folder = partial_folder(output)
    (folder / f"rank-{rank}.done").touch()
    if rank == 0:
        if processes > 1:
            _join(output, processes, window)
        # first: what a kill then leaves of the folder is of a run that is finished
        (folder / "run.json").replace(finished_file(output))
        remove_partial(output)


def _join(output: Path, processes: int, window: int) -> None:
    folder = partial_folder(output)
    while len(list(folder.glob("rank-*.done"))) < processes:
        time.sleep(SECONDS)
    with contextlib.ExitStack() as files:
        paths = [folder / f"rank-{rank}.jsonl" for rank in range(processes)]
        parts = [
            files.enter_context(path.open("rb")) for path in paths if path.exists()
        ]  # few rows: not all have some
        joined = files.enter_context((folder / "joined").open("wb"))
        number = 0
        while line := parts[number // window % processes].readline():
            joined.write(line)
            number += 1
    os.replace(folder / "joined", output)
