"""Run scripts in forks of one process that has imported the libraries, and kill them at a chosen moment.

A fork is a process of its own that begins in a millisecond, where Python and the libraries take ten seconds. A moment
is a number of seconds, a file that is there, or a number of events, and of seconds after the last of them: a file or
folder of the run that is about to be written, renamed or deleted, and a connection that is about to be made. Jobs are
lines of JSON on standard input, answers on its output.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SCRIPTS = ("run_qa_sft", "run_classification", "run_hierarchical", "run_summarization", "predict", "export", "sweep")


class Done(NamedTuple):
    """How a run ended: exit code (-9 if killed), what it printed, and the number of events until then."""

    code: int
    stdout: str
    stderr: str
    events: int

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def errors(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith("error: ")]


class Forks:
    """The process that forks, from the side of a test."""

    def __init__(self, folder: Path, env: dict[str, str], under: Sequence[str], modules: Sequence[str]) -> None:
        self.folder, self.number = folder, 0
        self.process = subprocess.Popen(
            [*under, sys.executable, "-m", "tests.forks", *modules], cwd=ROOT, env=os.environ | env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self,
        script: str,
        flags: list[str],
        event: int | None = None,
        seconds: float | None = None,
        after: float = 0.0,
        exists: Path | None = None,
        number: int = signal.SIGKILL,
        env: dict[str, str] | None = None,
        processes: int = 1,
    ) -> Done:
        """Run a script, or Python code.

        Args:
            script, flags: the command.
            event, after: kill it `after` seconds from its `event`-th event.
            seconds: kill it after these seconds.
            exists, number: send the signal `number` as soon as there is the file `exists`.
            env: further variables, which no library may read when it is imported.
            processes: how many, as torchrun starts them on one machine; the code is the first that is not 0.
        """
        self.number += 1
        logs = [str(self.folder / f"{self.number}.{name}") for name in ("out", "err")]
        job = {
            "script": script, "flags": flags, "folder": next((a for f, a in pairs(flags) if f in OUTPUTS), "none"),
            "logs": logs, "event": event, "after": after, "seconds": seconds, "exists": exists and str(exists),
            "number": number, "envs": [(env or {}) | rank for rank in ranks(processes)],
        }  # fmt: skip
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        stdout, stderr = (Path(log).read_text(errors="replace") if Path(log).exists() else "" for log in logs)
        errors, ended, events = stderr.rpartition("\nevents: ")
        return Done(code, stdout, errors if ended else events, int(events) if ended else 0)


LIBRARIES = ("evaluate", "matplotlib.figure", "nltk", "peft", "torch", "transformers", "trl", *SCRIPTS)
LONGEST = 300  # seconds of a run: one that hangs is killed
OUTPUTS = ("--output_dir", "--output_file")


def ranks(processes: int) -> list[dict[str, str]]:
    """Return the variables that torchrun sets for each of several processes."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    same = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    same |= {"LOCAL_WORLD_SIZE": str(processes)}
    return [same | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def pairs(flags: list[str]) -> Iterator[tuple[str, str]]:
    return zip(flags, flags[1:], strict=False)


@contextlib.contextmanager
def start_forks(
    folder: Path, env: dict[str, str], under: Sequence[str] = (), modules: Sequence[str] = LIBRARIES
) -> Iterator[Forks]:
    """Start the process that forks, with `modules` imported, `under` a command such as strace."""
    forks = Forks(folder, env, under, modules)
    try:
        yield forks
    finally:
        assert forks.process.stdin
        forks.process.stdin.close()
        forks.process.wait(60)


# ----- In the process that forks


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch(folder: str, kill_at: int | None, after: float) -> list[str]:
    """Collect the events of this process in a folder, and kill it before one of them, or some seconds later."""
    found: list[str] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            name = "connection"
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            name = str(args[0])
        elif event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
            name = args[0]
        else:
            return
        if name == "connection" or os.path.abspath(name).startswith(folder):
            found.append(f"{event} {name}")
            if len(found) == kill_at and after:
                timer = threading.Timer(after, kill)
                timer.daemon = True
                timer.start()
            elif len(found) == kill_at:
                kill()

    sys.addaudithook(hook)
    return found


def child(job: dict[str, Any], env: dict[str, str]) -> None:
    os.environ.update(env)
    with open(job["logs"][0], "a") as out, open(job["logs"][1], "a", buffering=1) as log:
        os.dup2(out.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.argv = [job["script"], *job["flags"]]
        # the folder around that of the run: an export is written beside its own
        found = watch(os.path.dirname(os.path.abspath(job["folder"])), job["event"], job["after"])
        code = 0
        try:
            if job["script"].endswith(".py"):
                runpy.run_path(job["script"], run_name="__main__")
            else:
                exec(job["script"], {"__name__": "__main__"})
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        log.write(f"\nevents: {len(found)}")
    os._exit(code)


def wait(pid: int, job: dict[str, Any]) -> int:
    """Return the exit code of a process, to which a signal is sent when the job says so."""
    late = time.monotonic() + (job["seconds"] or LONGEST)
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended:
        time.sleep(0.002)
        if time.monotonic() > late or (job["exists"] and os.path.exists(job["exists"])):
            os.kill(pid, job["number"] if time.monotonic() <= late else signal.SIGKILL)
            ended, status = os.waitpid(pid, 0)
        else:
            ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    for name in sys.argv[1:]:
        __import__(name)
    for line in sys.stdin:
        job = json.loads(line)
        begun = [os.fork() or child(job, env) for env in job["envs"]]
        codes = [wait(pid, job) for pid in begun if pid]
        print(next((code for code in codes if code), 0), flush=True)


if __name__ == "__main__":
    main()
