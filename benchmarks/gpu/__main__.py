"""Speed, memory and model FLOPs utilization (MFU) of the recipes on a GPU, against what a user would run instead.

    python -m benchmarks.gpu                      everything, about 8 minutes on an H100
    python -m benchmarks.gpu --only "phi3 "       the cases whose name starts so
    python -m benchmarks.gpu --tiny               tiny models, also on a CPU: checks the command, not the speed

Models have random weights in their published shapes, and nothing is downloaded:

- phi3, phi2, qwen3 (4B): QLoRA at 1,024 tokens. "recipe" is `run_qa_sft.py` with its recipe; "trl" is `trl sft` with
  the same quantization, LoRA and tokenized rows, and its defaults for the rest; further words are switches. A step is
  the same 16 rows in every way, so loss and gradient norm of the first step have to agree, but for dropout and
  rounding. MFU is what the step has to compute (`useful_flops`) over the matrix product that was measured first.
- batches: the recipe with rows of 1,024 tokens, the largest batch for cards of 8, 12, 16 and 24 GB (PyTorch is held to
  that size less what CUDA takes), and MFU at each batch size.
- distilbert, bioclinicalbert, flan_t5: rows per second against transformers' example scripts.
- generation: tokens per second of `generate_answers`, which evaluation, `predict.py` and the app use.

Each case has a process of its own; the next one loads its libraries meanwhile. A case that fails leaves its error in
the table. Writes results/gpu.json after every measurement.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.gpu.process import receive, start

RESULTS = Path(__file__).parents[1] / "results" / "gpu.json"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "liger-kernel", "triton")
PACKED = {"dtype": "bfloat16", "packing": True, "attn_implementation": "sdpa"}  # packing turns padding off in TRL
UNPACKED = {"packing": False}
LIGER = {"use_liger_kernel": True}
STORE = {"gradient_checkpointing": False}
LEAST_SECONDS, MOST_SECONDS = 10, 120  # a case starts only with the first left, and ends after the second
BATCHES, CARDS = (1, 2, 4, 8, 16, 32), (8, 12, 16, 24)


def training(name: str, way: str, **switches: Any) -> tuple[str, dict[str, Any]]:
    return "training", {"name": name, "way": way, "switches": switches}


def batches(name: str, sizes: tuple[int, ...], cards: tuple[int, ...] = (), **switches: Any) -> tuple[str, dict]:
    return "batches", {"name": name, "switches": switches, "batches": sizes, "limits_gb": cards}


def generation(in_4bit: bool) -> tuple[str, dict[str, Any]]:
    return "generation", {"name": "phi3", "load_in_4bit": in_4bit, "batches": (1, 8, 32)}


# In the order of their worth, for a run that ends early
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "machine": ("machine", {}),
    "phi3 recipe": training("phi3", "recipe"),
    "phi3 recipe liger": training("phi3", "recipe", **LIGER),
    "phi3 trl": training("phi3", "trl"),
    "phi3 trl packing": training("phi3", "trl", **PACKED),
    "phi3 trl packing liger": training("phi3", "trl", **PACKED, **LIGER),
    "phi3 batches": batches("phi3", BATCHES, CARDS),
    "phi3 recipe unpacked batch 2": training("phi3", "recipe", **UNPACKED, per_device_train_batch_size=2),
    "phi3 recipe unpacked batch 16": training("phi3", "recipe", **UNPACKED, per_device_train_batch_size=16),
    "phi3 batches liger store": batches("phi3", BATCHES[1:5], **LIGER, **STORE),
    "qwen3 recipe": training("qwen3", "recipe"),
    "qwen3 trl": training("qwen3", "trl"),
    "qwen3 trl packing liger": training("qwen3", "trl", **PACKED, **LIGER),
    "phi2 recipe": training("phi2", "recipe"),
    "phi2 trl": training("phi2", "trl"),
    "phi2 trl packing": training("phi2", "trl", **PACKED),
    **{
        f"{name} {way}": ("encoder", {"name": name, "way": way, "steps": steps})
        for name, steps in (("distilbert", 30), ("bioclinicalbert", 30), ("flan_t5", 20))
        for way in ("recipe", "official", "official_best")
    },
    "generation 4-bit": generation(True),
    "generation bfloat16": generation(False),
    # What the recipes could change, by expected gain
    "phi3 recipe unpacked group_by_length": training(
        "phi3", "recipe", **UNPACKED, train_sampling_strategy="group_by_length"
    ),
    "phi3 recipe store liger": training("phi3", "recipe", **STORE, **LIGER),
    "phi3 recipe checkpoint every second layer liger": training(
        "phi3", "recipe", gradient_checkpointing_kwargs='{"every_n_layers": 2}', **LIGER
    ),
    "phi3 recipe adamw_torch_fused": training("phi3", "recipe", optim="adamw_torch_fused"),
    "phi3 recipe packing flex": training("phi3", "recipe", attn_implementation="flex_attention", **LIGER),
    "qwen3 batches": batches("qwen3", (1, 2, 4, 8), CARDS),
    "phi2 batches": batches("phi2", (1, 2, 4, 8), CARDS),
    "phi3 recipe compile": training("phi3", "recipe", torch_compile=True),
}


def describe() -> dict[str, Any]:
    """Return the driver, versions and command."""
    found: dict[str, Any] = {"versions": {}}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found["versions"][package] = version(package)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if shutil.which(query[0]):
        found["driver"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return found | {"command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])}


def line(name: str, row: dict[str, Any]) -> str:
    """Return a measurement as a line of the table."""
    if "error" in row:
        return f"{name:45} {row['error'].splitlines()[0][:120]}"
    shown = ("tokens_per_second", "rows_per_second", "largest_batch", "mfu", "peak_memory_gb", "loss", "grad_norm")
    return f"{name:45} " + "  ".join(f"{key} {row[key]:.4g}" for key in (*shown, "matmul_tflops") if key in row)


def run(cases: dict[str, tuple[str, dict[str, Any]]], tiny: bool, minutes: float, output: Path) -> dict[str, Any]:
    """Measure the cases one after the other, and write the results after each measurement. The file keeps the rows of
    other cases."""
    end = time.monotonic() + 60 * minutes
    earlier = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    results: dict[str, Any] = describe() | {"tiny": tiny, "rows": {}}
    if earlier.get("tiny") == tiny:
        results["rows"] = earlier["rows"]
    shared = Path("/dev/shm")  # files of a model of 4 billion weights load faster from memory
    roomy = shared.exists() and shutil.disk_usage(shared).free > 40e9
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shared if roomy else None) as folder:
        waiting: tuple[BaseProcess, Connection] | None = None
        machine: dict[str, Any] = {}
        for name, (measure, arguments) in cases.items():
            left = end - time.monotonic()
            if left < LEAST_SECONDS:
                results["rows"].setdefault(name, {"error": "not measured: no time left"})
                continue
            process, connection = waiting or start()
            more = {"context_gb": machine.get("context_gb", 0.0)} if measure == "batches" else {}
            connection.send((measure, arguments | more | {"folder": Path(folder), "tiny": tiny}))
            # The first case is alone: it measures what one process takes of the GPU
            waiting = start() if measure != "machine" and name != list(cases)[-1] else None
            begin = time.monotonic()
            for key, row in receive(connection, min(left, MOST_SECONDS)):
                machine = row if measure == "machine" else machine
                if "tflops" in row and "matmul_tflops" in machine:
                    row["mfu"] = row["tflops"] / machine["matmul_tflops"]
                full_name = f"{name} {key}".strip()
                results["rows"][full_name] = row | {"seconds": time.monotonic() - begin}
                write_json(output, results)
                print(line(full_name, row), flush=True)
            process.join(0 if "error" in row else 10)
            process.kill()
        if waiting:
            waiting[0].kill()
    write_json(output, results)
    return results


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write to a new file and rename it, so that a run that is cut leaves whole results."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="Measure only cases that start with one of these.")
    parser.add_argument("--tiny", action="store_true", help="Tiny models.")
    parser.add_argument("--minutes", type=float, default=8, help="Leave out the cases for which no time is left.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # less fragmentation: larger batches fit
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # TRL reports each trainer
    cases = {name: case for name, case in CASES.items() if name == "machine" or name.startswith(tuple(args.only))}
    results = run(cases, args.tiny, args.minutes, args.output)
    print(*(line(name, row) for name, row in results["rows"].items()), sep="\n")


if __name__ == "__main__":
    main()
