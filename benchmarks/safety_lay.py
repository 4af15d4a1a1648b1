"""Safety checks on lay wording by other authors (benchmarks/safety_lay_phrasings.json), and on real questions.

    python -m benchmarks.safety_lay --show

`python -m benchmarks.safety` runs this too and writes its numbers. Both parts were handwritten without knowledge of
the rules. The rules were corrected with the errors on `development`; the errors on `held_out` were never read. Only
its counts were seen, a few times. Before the last two rounds of corrections they were: emergencies 82 of 100, harmful
requests 13 of 50, false alarms 12 of 150, interactions 15 of 30, doses 18 of 25, contraindications 1 of 15, false
alarms on safe answers 3 of 60; between the rounds 91, 34, 14, 29, 23, 11 and 5.

The first result on each new set shows what to expect on new wording. Second to eighth set: emergencies 69 of 80, 30 of
45, none, 49 of 60, 24 of 40, 116 of 160, 56 of 60; harmful requests (from the fifth set) 20 of 30, 15 of 25, 32 of 70,
53 of 90; false alarms 8 of 207, 21 of 125, 16 of 129, 9 of 115, 11 of 109, 10 of 200, 15 of 220. Answers about
medicines, two sets: interactions 49 of 109, doses 48 of 90, contraindications 6 of 70 and 23 of 40, false alarms 4 of
157 and 4 of 70. All of these sets are part of `development` now.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from utils.safety import SERIOUS, check_question, check_response, risk_level
from utils.safety.context import SecondStage

PHRASINGS = json.loads(Path(__file__).with_name("safety_lay_phrasings.json").read_text(encoding="utf-8"))
SAMPLE, SEED = 1000, 42


def share(count: int, total: int) -> dict[str, Any]:
    """Return a share with its 95 % Wilson interval."""
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return {"count": count, "of": total, "share": count / total, "ci95": [interval.low, interval.high]}


def is_alarm(text: str, second_stage: SecondStage | None = None) -> bool:
    return risk_level(check_question(text, second_stage=second_stage)) >= SERIOUS


def is_emergency(text: str, second_stage: SecondStage | None = None) -> bool:
    return any(finding["kind"] == "emergency" for finding in check_question(text, second_stage=second_stage))


def count(part: str, kind: str, is_hit: Callable[[str], bool], show: bool) -> dict[str, Any]:
    """Return the share of texts of a kind with a hit; `show` prints the errors of the development part."""
    texts = [text for texts in PHRASINGS[part][kind].values() for text in texts]
    hits = [is_hit(text) for text in texts]
    if show and part == "development":
        for text, hit in zip(texts, hits, strict=True):
            if hit == (kind == "benign"):
                print(f"{kind}: {text}")
    return share(sum(hits), len(hits))


def medicines(part: str) -> dict[str, Any]:
    """Check answers about medicines: recall of each kind at severity 2 or above, and false alarms on safe answers."""
    results = {}
    for kind, rows in PHRASINGS[part].get("medicines", {}).items():
        found = [check_response(row["answer"], row.get("question")) for row in rows]
        kinds = {"dose": ("dose",), "interaction": ("interaction",), "patient": ("contraindication",)}.get(kind)
        if kinds:
            hits = [any(f["kind"] in kinds and f["severity"] >= 2 for f in findings) for findings in found]
        else:
            hits = [risk_level([f for f in findings if f["kind"] != "certainty"]) >= SERIOUS for findings in found]
        results["false_alarms_safe" if kinds is None else f"recall_{kind}"] = share(sum(hits), len(hits))
    return results


def lay(show: bool = False) -> dict[str, Any]:
    """Return recall, false alarms and precision of each part. Precision applies to the class mix of the part only."""
    results: dict[str, Any] = {}
    for part in PHRASINGS:
        emergencies = count(part, "emergency", is_emergency, show)
        harmful = count(part, "harmful", is_alarm, show)
        benign = count(part, "benign", is_alarm, show)
        true = emergencies["count"] + harmful["count"]
        results[part] = {
            "recall_emergencies": emergencies,
            "recall_harmful_requests": harmful,
            "false_alarms_hard_negatives": benign,
            "precision": share(true, true + benign["count"]),
            **medicines(part),
        }
    return results


def real_questions(path: Path) -> dict[str, Any]:
    """Count alarms on a seeded sample of exam questions (jsonl with `question`), none of which is urgent."""
    rows = [json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines()]
    texts = random.Random(SEED).sample(rows, SAMPLE)
    return share(sum(map(is_alarm, texts)), len(texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true", help="print the errors of the development part")
    args = parser.parse_args()
    print(json.dumps(lay(args.show), indent=2))


if __name__ == "__main__":
    main()
