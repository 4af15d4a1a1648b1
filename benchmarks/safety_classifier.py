"""Train the second stage of the safety checks, and choose its threshold.

    make safety-classifier        # python -m benchmarks.safety_classifier --output_dir outputs/safety

The rows are the development phrasings of benchmarks/safety_phrasings.json and benchmarks/safety_lay_phrasings.json,
and, as texts that need no alarm, questions, definitions and names of diseases of the quickstart's data. A tenth of the
groups of phrasings (one kind, one author, one subject) is held out: its texts without danger choose the threshold, and
the run's report has its scores. The held-out phrasings of `benchmarks.safety` are never read.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.safety import PHRASINGS
from benchmarks.safety_lay import PHRASINGS as LAY
from utils.inference import Predictor
from utils.json_files import read_json, write_json
from utils.safety.second_stage import OTHER, read_danger

RECIPE = "recipes/quickstart/safety.yaml"
DATA = Path("quickstart/data")
NAMES = {"emergency": "emergency", "harmful": "harmful_request", "benign": OTHER}
MOST_NEAR = 0.03  # share of held-out texts with an alarm that look like danger and are none
MOST_EASY = 0.005  # of medical texts that do not
THRESHOLDS = [t / 100 for t in range(10, 101)]
QUICKSTART_ROWS = {  # file and column -> rows: without them, the classifier takes medical words for danger
    ("hpo_definitions.jsonl", "question"): 400,
    ("hpo_definitions.jsonl", "answer"): 400,
    ("icd10cm_blocks.jsonl", "text"): 300,
}
HELD_OUT = {"test": 0.08, "validation": 0.12}  # shares of the groups of each kind


def phrasings() -> dict[tuple[str, str], list[str]]:
    """Return the development phrasings: (class, group) -> texts."""
    groups = {(NAMES[kind], key): texts for kind in NAMES for key, texts in LAY["development"][kind].items()}
    own = PHRASINGS["develop"]
    for kind in ("emergency", "harmful"):
        groups[NAMES[kind], "first"] = own[kind]
        groups[OTHER, f"first, no {kind}"] = own[f"no_{kind}"]
    return groups


def make_splits(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each split, with `text` and `label`. No group is in two splits."""
    rng, splits = random.Random(seed), dict[str, list[dict[str, Any]]](train=[], validation=[], test=[])
    groups = phrasings()
    for label in NAMES.values():
        own = sorted(key for name, key in groups if name == label)
        rng.shuffle(own)
        for i, key in enumerate(own):
            place = (i + 0.5) / len(own)
            split = "test" if place < HELD_OUT["test"] else "validation" if place < sum(HELD_OUT.values()) else "train"
            splits[split] += [{"text": text, "label": label} for text in groups[label, key]]
    splits["train"] += [{"text": text, "label": OTHER} for text in quickstart_texts(rng)]
    return splits


def quickstart_texts(rng: random.Random) -> list[str]:
    return [
        json.loads(line)[column]
        for (name, column), number in QUICKSTART_ROWS.items()
        for line in rng.sample((DATA / name).read_text(encoding="utf-8").splitlines(), number)
    ]


def dangers(texts: list[str], predictor: Predictor) -> np.ndarray:
    """Return the probability of danger of each text, float [texts]."""
    return np.array([max(danger for danger, _ in read_danger(text, predictor).values()) for text in texts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/safety"))
    args = parser.parse_args()
    splits = make_splits()
    for split, rows in splits.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (DATA / f"safety_{split}.jsonl").write_text(lines, encoding="utf-8")
    script = [sys.executable, "run_classification.py", RECIPE, "--output_dir", str(args.output_dir)]
    subprocess.run(script, check=True)
    predictor = Predictor.from_pretrained(str(args.output_dir))
    near = dangers([row["text"] for row in splits["validation"] if row["label"] == OTHER], predictor)
    easy = dangers(quickstart_texts(random.Random(1)), predictor)
    threshold = next(t for t in THRESHOLDS if (near >= t).mean() <= MOST_NEAR and (easy >= t).mean() <= MOST_EASY)
    found = {
        "threshold": threshold,
        "near_misses": {"texts": len(near), "alarms": int((near >= threshold).sum())},
        "quickstart_texts": {"texts": len(easy), "alarms": int((easy >= threshold).sum())},
    }
    write_json(args.output_dir / "task.json", read_json(args.output_dir / "task.json") | {"safety": found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
