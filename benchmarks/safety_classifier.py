"""Train the second stage of the safety checks, and choose its threshold.

    make safety-classifier        # python -m benchmarks.safety_classifier --output_dir outputs/safety

The rows are the development phrasings of benchmarks/safety_phrasings.json and benchmarks/safety_lay_phrasings.json,
and, as texts that need no alarm, questions, definitions and names of diseases of the quickstart's data. Each comes
once more beside a harmless text. A fifth of the groups of phrasings (one kind, one author, one subject) is held out:
the run's report has the scores of one part, and the texts without danger of the other choose the thresholds. The
held-out phrasings of `benchmarks.safety` are never read.
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
from utils.safety.second_stage import KINDS, OTHER, read_danger

RECIPE = "recipes/quickstart/safety.yaml"
DATA = Path("quickstart/data")
NAMES = {"emergency": "emergency", "harmful": "harmful_request", "benign": OTHER}
THRESHOLDS = [t / 100 for t in range(1, 102)]  # the last alarms at nothing
# Most alarms of a kind: share of held-out texts that look like danger and are none, and of other medical texts
MOST = (0.015, 0.0025)
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
    splits["train"] += beside_others(splits["train"], rng)
    return splits


def beside_others(rows: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Return each row again with a harmless text in front of it or behind it, which takes no danger away."""
    harmless = [row["text"] for row in rows if row["label"] == OTHER]
    pairs = [(row, rng.sample([row["text"], rng.choice(harmless)], 2)) for row in rows]
    return [{"text": " ".join(texts), "label": row["label"]} for row, texts in pairs]


def quickstart_texts(rng: random.Random) -> list[str]:
    return [
        json.loads(line)[column]
        for (name, column), number in QUICKSTART_ROWS.items()
        for line in rng.sample((DATA / name).read_text(encoding="utf-8").splitlines(), number)
    ]


def choose_thresholds(near: list[str], easy: list[str], predictor: Predictor) -> dict[str, Any]:
    """Return for each kind the lowest threshold that keeps `MOST`, and the alarms at it."""
    found: dict[str, Any] = {"thresholds": {}, "alarms": {}, "near_misses": len(near), "quickstart_texts": len(easy)}
    dangers = [[read_danger(text, predictor) for text in texts] for texts in (near, easy)]
    for kind in KINDS:
        own = [np.array([danger[kind][0] for danger in part]) for part in dangers]
        most = list(zip(own, MOST, strict=True))
        at = next(t for t in THRESHOLDS if all((p >= t).mean() <= share for p, share in most))
        found["thresholds"][kind] = at
        found["alarms"][kind] = [int((p >= at).sum()) for p in own]
    return found


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
    near = [row["text"] for row in splits["validation"] if row["label"] == OTHER]
    found = choose_thresholds(near, quickstart_texts(random.Random(1)), predictor)
    write_json(args.output_dir / "task.json", read_json(args.output_dir / "task.json") | {"safety": found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
