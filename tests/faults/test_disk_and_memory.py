"""A full disk, a folder that cannot be written, a second run in one folder, and too little memory."""

import contextlib
import errno
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, read_jsonl, run_here, write_rows

import run_classification
from tests.faults.conftest import KILLED, SCRIPTS, different, outcome
from utils.arguments import UserError, known_failure
from utils.ordered_lines import begin, partial_folder
from utils.run import SAVING, damage, newest_checkpoint


@contextlib.contextmanager
def small_disk(folder, kib):
    """Mount a disk of `kib` KiB in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, option):
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def size(folder):
    return sum(path.stat().st_blocks for path in folder.rglob("*")) // 2


def check_full_disk(script, kib, whole, forks, command, folder, goes_on=True):
    """Run into a full disk; then make room and go on, if asked to."""
    with small_disk(folder, kib):
        done = forks.run(script, command(script, folder / "run"))
        assert done.code == 2 and len(done.errors) == 1 and "Traceback" not in done.output, done.output[-3000:]
        assert "the disk is full" in done.errors[0], done.errors
        for path in folder.glob("run/checkpoint-*"):
            assert (path / SAVING).exists() or not list(path.iterdir()) or damage(path) is None
        assert not list(folder.rglob("*.tmp"))
        if not goes_on:
            return
        remount(folder, "size=100m")
        again = forks.run(script, command(script, folder / "run"))
        assert again.code == 0, again.output[-3000:]
        assert different(outcome(whole), outcome(folder / "run")) == []


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(forks, command, whole, tmp_path):
    expected = whole(KILLED).folder
    check_full_disk(KILLED, size(expected) // 2, expected, forks, command, tmp_path / "disk")


@pytest.mark.faults
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_disk_may_be_full_at_any_write(script, forks, command, whole, tmp_path, table):
    expected, shares = whole(script).folder, [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for number, share in enumerate(shares):
        disk, kib = tmp_path / f"disk{share}", int(size(expected) * share)
        check_full_disk(script, kib, expected, forks, command, disk, goes_on=number % 3 == 0)
    table.setdefault("full_disks", {})[script] = {"one_line": len(shares), "of": len(shares), "gone_on_from": 4}


@pytest.mark.faults
def test_a_disk_may_be_full_at_any_write_of_an_output_or_an_export(forks, whole, tmp_path, table):
    model = whole(KILLED).folder
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": n, "note": f"heart murmur number {n}"} for n in range(400)])
    sizes = [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    for kib in sizes:
        with small_disk(tmp_path / f"output{kib}", kib):
            output = tmp_path / f"output{kib}" / "out.jsonl"
            argv = [
                "--model",
                str(model),
                "--batch_size",
                "8",
                "--input_file",
                str(rows),
                "--output_file",
                str(output),
            ]
            done = forks.run("predict.py", argv)
            assert done.code == 2 and len(done.errors) == 1 and "Traceback" not in done.output, done.output[-3000:]
            remount(output.parent, "size=100m")
            again = forks.run("predict.py", [*argv, "--resume", "true"])
            assert again.code == 0, again.output
            assert [row["id"] for row in read_jsonl(output)] == list(range(400))
    table.setdefault("full_disks", {})["predict.py"] = {"one_line": len(sizes), "of": len(sizes), "gone_on_from": 10}
    argv = ["--model", str(model), "--max_predict_samples", "4", "--output_dir"]
    first = forks.run("export.py", [*argv, str(tmp_path / "export")])
    assert first.code == 0, first.output
    for number in range(10):
        with small_disk(tmp_path / f"export{number}", max(4, size(tmp_path / "export") * number // 10)):
            export = tmp_path / f"export{number}" / "export"
            done = forks.run("export.py", [*argv, str(export)])
            assert done.code == 2 and len(done.errors) == 1 and "Traceback" not in done.output, done.output[-3000:]
            assert list(export.parent.iterdir()) == []
    table["full_disks"]["export.py"] = {"one_line": 10, "of": 10, "gone_on_from": 0}


@pytest.mark.parametrize("script", [s if s == KILLED else pytest.param(s, marks=pytest.mark.faults) for s in SCRIPTS])
def test_a_folder_that_cannot_be_written_is_one_line_and_changes_nothing(script, forks, command, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 100_000):
        assert forks.run(script, command(script, disk / "run")).code == 0
        before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
        remount(disk, "ro")
        done = forks.run(script, command(script, disk / "run"))
        assert done.code == 2 and len(done.errors) == 1 and "`output_dir`" in done.errors[0], done.output
        assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
        model = ["--model", str(disk / "run"), "--text", "a murmur of the heart"]
        file = forks.run("predict.py", [*model, "--output_file", str(disk / "out.jsonl")])
        assert file.code == 2 and len(file.errors) == 1 and "`output_file`" in file.errors[0], file.output
        export = forks.run("export.py", [*model[:2], "--output_dir", str(disk / "export")])
        assert export.code == 2 and len(export.errors) == 1 and "`output_dir`" in export.errors[0], export.output


HOLD = """
import sys
from pathlib import Path
from utils.json_files import hold
print(hold(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_dead(command, tmp_path):
    lock = tmp_path / "run" / "_private" / ".lock"
    lock.parent.mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == "None\n"
    argv = command("run_classification.py", tmp_path / "run")
    refused = run_here(run_classification.main, run_classification.ARGUMENTS, argv)
    assert refused.code == 2 and "`output_dir`" in refused.stderr and str(holder.pid) in refused.stderr
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["_private", ".lock"]
    holder.kill()
    holder.wait()
    done = run_here(run_classification.main, run_classification.ARGUMENTS, [*argv, "--evaluate_test", "false"])
    assert done.code == 0, done.stderr


def test_too_little_memory_says_what_to_change_and_keeps_the_last_checkpoint(command, tmp_path, monkeypatch):
    step, calls = run_classification.Trainer.training_step, []

    def hungry(self, *args):
        calls.append(1)
        return torch.empty(2**55) if len(calls) == 4 else step(self, *args)

    monkeypatch.setattr(run_classification.Trainer, "training_step", hungry)
    argv = command("run_classification.py", tmp_path / "run")
    done = run_here(run_classification.main, run_classification.ARGUMENTS, argv)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and "`per_device_train_batch_size`" in line and "`gradient_accumulation_steps`" in line
    assert newest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-2")


def raised(action):
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


def test_what_a_machine_lacks_is_told_from_a_defect():
    for error in (
        raised(lambda: np.empty(2**58)), raised(lambda: torch.empty(2**55)), MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
    ):  # fmt: skip
        assert "`per_device_train_batch_size`" in known_failure(error)
    full = ["x (os error 28)", "[enforce fail at inline_container.cc:672] . unexpected pos 9731 vs 9684"]
    full += ["basic_ios::clear: iostream error", "PytorchStreamWriter failed writing file data/1"]  # of torch.save
    for error in (OSError(errno.ENOSPC, "x", "a/b"), OSError(errno.EDQUOT, "x"), *map(RuntimeError, full)):
        assert "the disk is full" in known_failure(error)
    assert "`a/b`" in known_failure(OSError(errno.ENOSPC, "x", "a/b"))
    for number in (errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE):
        assert "`a/b`" in known_failure(OSError(number, "x", "a/b"))
    no_embedding = raised(lambda: torch.nn.Embedding(4, 2)(torch.tensor([4])))
    assert "tokenizer" in known_failure(no_embedding)
    for error in (ValueError("x"), FileNotFoundError(errno.ENOENT, "x", "a"), RuntimeError("x"), KeyError("memory")):
        assert known_failure(error) is None


def test_a_second_predict_on_one_output_is_refused_and_changes_nothing(tmp_path):
    output = tmp_path / "out.jsonl"
    partial_folder(output).mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(partial_folder(output) / "lock")], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == "None\n"
    output.write_text("a line\n")
    (partial_folder(output) / "rank-0.journal").write_text("1\tb\n")
    for goes_on in (True, False):
        with pytest.raises(UserError, match=f"`output_file` .*{holder.pid}"):
            begin(output, {}, "launch", goes_on, keep_output=False)
    assert output.read_text() == "a line\n" and (partial_folder(output) / "rank-0.journal").exists()
    holder.kill()
    holder.wait()
    begin(output, {}, "launch", goes_on=False, keep_output=False)
    assert not output.exists() and not (partial_folder(output) / "rank-0.journal").exists()
