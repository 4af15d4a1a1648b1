"""What the second stage of the safety checks adds to the rules, and what it costs.

    make safety-classifier
    python -m benchmarks.safety_second_stage --safety_model outputs/safety

The same texts are checked by the rules alone, and by the rules and the classifier: the held-out phrasings of
benchmarks/safety_lay_phrasings.json, which neither has seen, and texts that are not urgent: questions of consumers
(MedQuAD), exam questions (HEAD-QA), some of them cases of emergencies, and all that a patient says in a consultation
(MTS-Dialog), which is no question: replies stand there without what was asked, and acute illness is common. Writes
results/safety_second_stage.json.
"""

import argparse
import csv
import json
import platform
import random
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.safety_lay import SAMPLE, SEED, count, is_alarm, is_emergency, share
from utils.json_files import write_json
from utils.safety import check_question
from utils.safety.context import SecondStage
from utils.safety.second_stage import load_second_stage

DATA = Path("../shared/data")
WORDS = 200  # of a text whose check is timed


def harmless(medquad_file: Path, headqa_file: Path, mts_dialog_file: Path) -> dict[str, list[str]]:
    """Return seeded samples of texts that are not urgent."""
    files = {"medquad_questions": medquad_file, "headqa_questions": headqa_file}
    rows = {name: path.read_text(encoding="utf-8").splitlines() for name, path in files.items()}
    texts = {name: [json.loads(line)["question"] for line in lines] for name, lines in rows.items()}
    with mts_dialog_file.open(encoding="utf-8", newline="") as stream:
        dialogues = [row["dialogue"] for row in csv.DictReader(stream)]
    spoken = (re.findall(r"^Patient: *(.+)", dialogue, re.MULTILINE) for dialogue in dialogues)
    texts["patients_in_dialogues"] = [" ".join(turns) for turns in spoken if turns]
    return {name: random.Random(SEED).sample(own, SAMPLE) for name, own in texts.items()}


def measure(second_stage: SecondStage | None, texts: dict[str, list[str]]) -> dict[str, Any]:
    """Count what is found with and without reason, and time the checks of questions and of `WORDS` words."""
    kinds: dict[str, tuple[str, Callable[..., bool]]] = {
        "recall_emergencies": ("emergency", is_emergency),
        "recall_harmful_requests": ("harmful", is_alarm),
        "false_alarms_hard_negatives": ("benign", is_alarm),
    }
    found: dict[str, Any] = {
        name: count("held_out", kind, partial(is_hit, second_stage=second_stage), False)
        for name, (kind, is_hit) in kinds.items()
    }
    for name, own in texts.items():
        found[f"false_alarms_{name}"] = share(sum(is_alarm(text, second_stage) for text in own), len(own))
    words = " ".join(texts["patients_in_dialogues"]).split()
    long = [" ".join(words[start : start + WORDS]) for start in range(0, WORDS * 200, WORDS)]
    for name, own in (("questions", texts["medquad_questions"][:200]), (f"{WORDS}_words", long)):
        found[f"p95_ms_{name}"] = float(np.percentile([milliseconds(text, second_stage) for text in own], 95))
    return found


def milliseconds(text: str, second_stage: SecondStage | None) -> float:
    start = time.perf_counter()
    check_question(text, second_stage=second_stage)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--safety_model", default="outputs/safety")
    parser.add_argument("--medquad_file", type=Path, default=DATA / "medquad/medquad.jsonl")
    parser.add_argument("--headqa_file", type=Path, default=DATA / "headqa/headqa.jsonl")
    parser.add_argument("--mts_dialog_file", type=Path, default=DATA / "mts_dialog/train.csv")
    args = parser.parse_args()
    texts = harmless(args.medquad_file, args.headqa_file, args.mts_dialog_file)
    second_stage = load_second_stage(args.safety_model)
    results: dict[str, Any] = {"rules": measure(None, texts), "rules_and_classifier": measure(second_stage, texts)}
    results["python"] = platform.python_version()
    results["command"] = "python -m benchmarks.safety_second_stage"
    write_json(Path("benchmarks/results/safety_second_stage.json"), results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
