"""Commands of short runs of all scripts, and what two runs must have in common."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT, Data, flags

from tests.forks import Forks, start_forks
from tests.hub_server import Hub, serve_hub
from utils.json_files import read_json, write_json

KILLED = "run_classification.py"  # the script of the quick part
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
SCRIPTS = ("run_qa_sft.py", "run_classification.py", "run_hierarchical.py", "run_summarization.py")


class Whole(NamedTuple):
    """A finished run: its folder, what it printed, how many events it had, and how many seconds it took."""

    folder: Path
    output: str
    events: int
    seconds: float


Command = Callable[..., list[str]]  # script, output folder, further values -> flags


@pytest.fixture(scope="session")
def table() -> Iterator[dict[str, Any]]:
    """What `make faults` found, for benchmarks/results/faults.json."""
    found: dict[str, Any] = {}
    yield found
    if found:
        before = read_json(RESULTS)  # a part of the tests replaces its own numbers alone
        merged = {key: before.get(key, {}) | values for key, values in found.items()}
        write_json(RESULTS, before | merged | {"command": "make faults"})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of the kills after the long part."""
    if config.option.markexpr == "faults":
        kills = read_json(RESULTS)["kills"]
        lines = {script: (one["recovered"], one["of"], one["where"]) for script, one in kills.items()}
        lines["all"] = (*(sum(line[place] for line in lines.values()) for place in (0, 1)), {})
        for script, (recovered, of, where) in lines.items():
            places = ", ".join(f"{count} {place}" for place, count in sorted(where.items()))
            terminalreporter.write_line(f"{script:22} {recovered:3} of {of:3} kills recovered  {places}")


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    with serve_hub() as found:
        yield found


@pytest.fixture(scope="session")
def forks(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Runs whose Hub is `hub`."""
    folder = tmp_path_factory.mktemp("hub")
    with start_forks(folder, hub.env(folder / "home")) as found:
        yield found


@pytest.fixture(scope="session")
def command(tiny_llama: Path, tiny_bert: Path, tiny_t5: Path, data: Data) -> Command:
    own = {
        "run_qa_sft.py": {
            "model_name_or_path": tiny_llama, "train_file": data.qa, "lora_target_modules": "q_proj", "bf16": False,
            "gradient_checkpointing": False, "max_new_tokens": 4, "max_length": 128,
        },
        "run_classification.py": {
            "model_name_or_path": tiny_bert, "train_file": data.notes, "lora_target_modules": "query",
            "text_column": "note", "label_column": "ward",
        },
        "run_hierarchical.py": {
            "model_name_or_path": tiny_bert, "train_file": data.tree, "lora_target_modules": "query",
            "text_column": "note", "parent_column": "group", "child_column": "ward",
        },
        "run_summarization.py": {
            "model_name_or_path": tiny_t5, "train_file": data.dialogues, "lora_target_modules": "q",
            "text_column": "dialogue", "summary_column": "note", "max_new_tokens": 4, "max_source_length": 64,
        },
    }  # fmt: skip
    same = {
        "use_cpu": True, "use_peft": True, "lora_r": 2, "lora_dropout": 0.1, "dtype": "float32", "max_steps": 6,
        "per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 2,
        "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "save_total_limit": 2,
        "metric_for_best_model": "loss", "logging_steps": 3, "max_eval_samples": 6, "max_predict_samples": 6,
        "report_to": "none", "disable_tqdm": True, "near_duplicate_threshold": 1.0,
    }  # fmt: skip

    def of(script: str, folder: Path, **values: Any) -> list[str]:
        return flags(**same | own[script] | {"output_dir": folder} | values)

    return of


@pytest.fixture(scope="session")
def whole(forks: Forks, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """Return a function: script -> a run that nothing stopped."""

    @functools.cache
    def of(script: str) -> Whole:
        folder, start = tmp_path_factory.mktemp("whole") / "run", time.monotonic()
        name = f"tester/{script[4:-3]}"
        done = forks.run(script, command(script, folder, push_to_hub=True, hub_model_id=name))
        assert done.code == 0, done.output
        return Whole(folder, done.output, done.events, time.monotonic() - start)

    return of


MEASURED = (
    "runtime",
    "per_second",
    "memory",
    "seconds",
    "latency",
    "commit",
)  # what differs between two runs of a command


def outcome(folder: Path) -> dict[str, Any]:
    """Return what a run must give each time: its weights, results and predictions."""
    results = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))
    found = {key: value for key, value in results.items() if not any(word in key for word in MEASURED)}
    files = [*folder.glob("*.safetensors"), folder / "_private" / "predictions_test.jsonl"]
    return found | {path.name: path.read_bytes() for path in files}


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
