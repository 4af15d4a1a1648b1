"""`predict.py` on large files, killed again and again: is every row there once, in order, and does memory stay flat?

    python -m benchmarks.predict_kills

A classifier answers 100,000 rows of a csv and a question answering model 5,000 rows of a jsonl, both tiny, with random
weights, made here. Each file is answered without a stop, and again with three SIGKILLs, each once the output has a
random length, and `--resume`. Both outputs have to agree. Peak memory is that of whole runs, of the first tenth of the
rows and of all. Writes results/predict_kills.json.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.models import model_folder, text
from utils.json_files import write_json

ROWS = {"classification": 100_000, "qa": 5_000}
KILLS, BATCH_SIZE, TOLERANCE = 3, 32, 1e-4
TRAINING = {
    "use_cpu": True, "bf16": False, "dtype": "float32", "max_steps": 1, "save_strategy": "no", "report_to": "none",
    "max_length": 64, "max_eval_samples": 8, "max_predict_samples": 8,
}  # fmt: skip


def command(script: str, **values: Any) -> list[str]:
    return [sys.executable, script, *(part for key, value in values.items() for part in (f"--{key}", str(value)))]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_rows(task: str, number: int) -> list[dict[str, Any]]:
    """Return rows of 3 to 40 words; some hold quotation marks and line breaks."""
    rng, rows = random.Random(number), []
    for i in range(number):
        words = text(rng, rng.randrange(3, 40)) + rng.choice(["", "", ' "w1, w2"', "\nw3"])
        own = {"text": words, "label": f"class {i % 3}"} if task == "classification" else {
            "question": words, "answer": text(rng, 5)
        }  # fmt: skip
        rows.append({"id": f"row {i}"} | own)
    return rows


def train(task: str, folder: Path) -> Path:
    """Train a tiny model for one step, and return its output folder."""
    data = write_jsonl(folder / f"{task}_train.jsonl", make_rows(task, 200))
    script, model, own = {
        "classification": ("run_classification.py", "distilbert", {"use_peft": False}),
        "qa": ("run_qa_sft.py", "phi3", {"use_peft": True, "lora_target_modules": "qkv_proj", "max_new_tokens": 8}),
    }[task]
    values = TRAINING | own | {"model_name_or_path": model_folder(model, folder, tiny=True), "train_file": data}
    subprocess.run(command(script, **values, output_dir=folder / task), check=True, stdout=subprocess.DEVNULL)
    return folder / task


def run(argv: list[str], output: Path, kill_at: int | None) -> tuple[int, float]:
    """Run a command, kill it once its output has `kill_at` bytes, and return its exit code and peak memory in MB."""
    process = subprocess.Popen(argv)
    ended, status, usage = os.wait4(process.pid, 0 if kill_at is None else os.WNOHANG)  # `poll` would lose the memory
    while not ended:
        if output.exists() and output.stat().st_size >= (kill_at or 0):
            os.kill(process.pid, signal.SIGKILL)
            ended, status, usage = os.wait4(process.pid, 0)
        else:
            time.sleep(0.001)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024


def agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers are the same, but for the last digits of their confidence."""
    same = {key: value for key, value in one.items() if key not in ("confidence", "probabilities")}
    return all(other[key] == value for key, value in same.items()) and (
        abs(one["confidence"] - other["confidence"]) < TOLERANCE
    )


def measure(task: str, number: int, folder: Path) -> dict[str, Any]:
    """Answer a file whole and with kills, and compare the outputs."""
    model, rows = train(task, folder), make_rows(task, number)
    write, ending = (write_csv, "csv") if task == "classification" else (write_jsonl, "jsonl")
    paths = [write(folder / f"{task}_{len(part)}.{ending}", part) for part in (rows[: number // 10], rows)]
    memory = []
    for path in paths:
        whole = folder / f"{path.stem}_whole.jsonl"
        argv = command("predict.py", model=model, input_file=path, output_file=whole, batch_size=BATCH_SIZE)
        code, peak = run(argv, whole, None)
        assert code == 0
        memory.append(round(peak))
    killed = folder / f"{task}_killed.jsonl"
    argv = command("predict.py", model=model, input_file=paths[1], output_file=killed, batch_size=BATCH_SIZE)
    argv += ["--resume", "true"]
    size = whole.stat().st_size
    places = sorted(random.Random(0).sample(range(size), KILLS))
    codes, lines = [], []
    for place in [*places, None]:
        codes.append(run(argv, killed, place)[0])
        lines.append(killed.read_bytes().count(b"\n"))
    found, wanted = ([json.loads(line) for line in path.open(encoding="utf-8")] for path in (killed, whole))
    return {
        "rows": number,
        "exit_codes": codes,
        "complete_lines_after_each": lines,
        "every_row_once_in_order": [answer["id"] for answer in found] == [row["id"] for row in rows],
        "rows_unlike_the_run_without_a_stop": sum(not agree(*pair) for pair in zip(found, wanted, strict=True)),
        "left_behind": [path.name for path in folder.glob("*.partial")],
        "peak_memory_mb": dict(zip((number // 10, number), memory, strict=True)),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        results: dict[str, Any] = {task: measure(task, number, Path(folder)) for task, number in ROWS.items()}
    results["command"] = "python -m benchmarks.predict_kills"
    write_json(Path("benchmarks/results/predict_kills.json"), results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
