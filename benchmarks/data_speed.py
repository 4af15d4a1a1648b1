"""Seconds and memory to clean, cluster and split a file (`python -m utils.data`), by its number of rows.

    python -m benchmarks.data_speed
    python -m benchmarks.data_speed --rows 10000 100000 1000000

Texts of 60 words of a vocabulary of 20,000, as one of

- unique: random words;
- near_duplicates: five versions of each text, which differ in up to two words;
- template: one text with three words changed, each for one of 100,000.

Each measurement has a process of its own, and one thread. `found` is the share of the pairs of near-duplicates that
came into one split; they are compared here word by word. Writes results/data_speed.json, with the exponent of the rows
in the seconds.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from utils.evaluation.identity import machine
from utils.json_files import read_json, write_json

RESULTS = Path("benchmarks/results/data_speed.json")
WORDS, LENGTH, VERSIONS = [f"w{number}" for number in range(20_000)], 60, 5
# A process of its own: the peak of a child starts at what its parent holds
LAUNCH = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""
KINDS = ("unique", "near_duplicates", "template")


def texts(kind: str, n_rows: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the text that a row is a version of, and its words."""
    rng = random.Random(0)
    common = rng.choices(WORDS, k=LENGTH)
    for number in range(n_rows):
        if kind == "template":
            words = list(common)
            for place in (15, 30, 45):
                words[place] = f"value{rng.randrange(100_000)}"
            yield number, words
        elif kind == "unique":
            yield number, rng.choices(WORDS, k=LENGTH)
        else:
            words = random.Random(number // VERSIONS).choices(WORDS, k=LENGTH)
            for _ in range(rng.randrange(3)):
                words[rng.randrange(LENGTH)] = rng.choice(WORDS)
            yield number // VERSIONS, words


def shingles(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def share_found(kind: str, n_rows: int, split_of: dict[str, str]) -> float | None:
    """Return the share of the near-duplicate pairs, at a Jaccard similarity of 0.8, that share a split."""
    pairs, found = 0, 0
    versions: list[tuple[int, str, set]] = []
    for original, words in texts(kind, n_rows):
        versions = [one for one in versions if one[0] == original]
        own, text = shingles(words), " ".join(words)
        for _, other, theirs in versions:
            if text != other and len(own & theirs) >= 0.8 * len(own | theirs):
                pairs, found = pairs + 1, found + (split_of[text] == split_of[other])
        versions.append((original, text, own))
    return found / pairs if pairs else None


def measure(kind: str, n_rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "rows.jsonl"), Path(folder, "clean")
        with source.open("w") as stream:
            for number, words in texts(kind, n_rows):
                row = {"text": " ".join(words), "label": f"class{number % 5}"}
                stream.write(json.dumps(row) + "\n")
        command = [sys.executable, "-m", "utils.data", "--train_file", str(source), "--text_column", "text"]
        command += ["--label_column", "label", "--output_dir", str(output)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": folder}
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", LAUNCH, *command], env=env, capture_output=True, check=True)
        seconds = time.perf_counter() - start
        rows = [(json.loads(line)["text"], path.stem) for path in output.glob("*.jsonl") for line in path.open()]
        found = share_found(kind, n_rows, dict(rows))
    return {"seconds": seconds, "peak_memory_gb": int(done.stdout) * 1024 / 1e9, "found": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="The others stay as they are.")
    args = parser.parse_args()
    results: dict[str, Any] = read_json(RESULTS) if len(args.kinds) < len(KINDS) else {}
    results |= {"command": "python -m benchmarks.data_speed --rows 10000 100000 1000000"}
    results["machine"] = machine(torch.device("cpu"))
    for kind in args.kinds:
        rows = {n_rows: measure(kind, n_rows) for n_rows in args.rows}
        first, *_, last = rows  # in the order of `--rows`
        ratio = rows[last]["seconds"] / rows[first]["seconds"]
        results[kind] = {str(n_rows): row for n_rows, row in rows.items()}
        results[kind]["exponent"] = math.log(ratio) / math.log(last / first)
        print(kind, results[kind], flush=True)
        write_json(RESULTS, results)


if __name__ == "__main__":
    main()
