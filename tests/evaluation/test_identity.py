"""Results say of which weights, code and machine they are; the committed ones hold together."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.numpy import save_file

from utils import run
from utils.evaluation.identity import run_identity, weights_id

ANSWERS = "quickstart_answers"  # two answers for the README, no results
RESULTS = sorted(p for p in (ROOT / "benchmarks" / "results").glob("quickstart_*.json") if p.stem != ANSWERS)


def save_weights(folder: Path, value: float, name: str = "adapter_model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"a": np.full(3, value, dtype=np.float32)}, folder / name)
    return folder


def test_equal_weights_have_one_id_and_any_change_another(tmp_path):
    first, same = save_weights(tmp_path / "a", 1.0), save_weights(tmp_path / "b", 1.0)
    assert weights_id(first) == weights_id(same)
    assert re.fullmatch("[0-9a-f]{12}", weights_id(first))
    assert weights_id(save_weights(tmp_path / "c", np.nextafter(np.float32(1), 2))) != weights_id(first)
    (first / "all_results.json").write_text("{}")
    assert weights_id(first) == weights_id(same)
    save_weights(same, 1.0, "second.safetensors")
    assert weights_id(first) != weights_id(same)


def test_the_machine_is_described_without_its_name(tmp_path):
    found = run_identity(save_weights(tmp_path, 1.0), torch.device("cpu"))
    assert re.search(r", \d+ cores?$", found["machine"])
    hostname = subprocess.run(["hostname"], capture_output=True, text=True, check=False).stdout.strip()
    assert not hostname or len(hostname) < 3 or hostname not in found["machine"]


def test_code_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CODE", tmp_path)
    assert run.code_commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))  # and git itself is missing
    assert run.code_commit() is None


# ----- Committed results


def values_of(path: Path) -> dict:
    """The results of a run; of a sweep, those of its winner."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return found.get("test") or found


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_are_of_one_run_of_committed_code(path):
    found = values_of(path)
    assert re.fullmatch("[0-9a-f]{12}", found["run_id"]) and found["machine"]
    assert re.fullmatch("[0-9a-f]{12}", found["commit"]), "of changed files: commit first, then run"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_values_lie_in_their_intervals(path):
    found = values_of(path)
    intervals = {key: value for key, value in found.items() if key.endswith("_ci95") and value}
    assert intervals
    outside = {
        key: (low, found[key.removesuffix("_ci95")], high)
        for key, (low, high) in intervals.items()
        if found.get(key.removesuffix("_ci95")) is not None and not low <= found[key.removesuffix("_ci95")] <= high
    }
    assert not outside
