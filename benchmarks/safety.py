"""Recall, false alarms and latency of the safety checks.

    python -m benchmarks.safety --medquad_file ../shared/data/medquad/medquad.jsonl

Positives: the phrasings of benchmarks/safety_phrasings.json, filled with every interacting pair (generic and brand
names) and every dose row of the tables, and handwritten emergencies, harmful requests and promises. Negatives: the
same with negations, hypotheticals, history and other people, and 1,000 questions and answers of MedQuAD, which are
informative and must not raise an alarm (severity 3 or 4), so each alarm counts as false.

The held-out phrasings were written after the rules and cues, by the same authors. Earlier sets form the `develop`
part. When they were new, 25 to 70 % of their emergencies were missed, and a fifth to a third of the negated texts
raised an alarm: expect new phrasings to fail. The intervals treat texts as independent. Texts of one phrasing fail
together, so intervals over phrasings (`phrasings`) would be far wider. After the first held-out run two errors of dose
arithmetic were fixed (`4 doses a day` counted twice, `do not go up to`), and a verb after a bracket became advice; the
counts of pairs, emergencies and requests did not change.
"""

import argparse
import itertools
import json
import math
import platform
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.safety_frames import closings, frames
from benchmarks.safety_lay import SAMPLE, SEED, lay, real_questions, share
from utils.safety import SERIOUS, check_question, check_response, risk_level
from utils.safety.doses import find_doses
from utils.safety.drugs import class_members, interaction, names_of
from utils.safety.phrases import read_table

PHRASINGS = json.loads(Path(__file__).with_name("safety_phrasings.json").read_text(encoding="utf-8"))
DEVELOP_PAIRS = 100  # sampled for the develop part, whose many phrasings would take hours with all pairs


def table_pairs() -> list[tuple[str, str, str]]:
    """Return (rule, drug, drug) for every pair in interactions.csv; a class name counts as a drug."""
    pairs = {}
    for row in read_table("interactions"):
        for a, b in itertools.product(sorted(class_members()[row["a"]]), sorted(class_members()[row["b"]])):
            if a != b and interaction(a, b):
                pairs.setdefault((row["rule"], *sorted((a, b))), (row["rule"], a, b))
    return list(pairs.values())


def severity_of_pair(text: str, a: str, b: str) -> int:
    """Return the severity at which the pair is found, or 0."""
    findings = [f for f in check_response(text) if f["kind"] == "interaction"]
    return risk_level([f for f in findings if {a, b} == set(f["message"].split(":")[0].split(" with "))])


def interactions(part: str, failures: list[str]) -> dict[str, Any]:
    """Check every pair in every phrasing, in alternating order, with brands or synonyms for half of the names."""
    rng = random.Random(SEED)
    found, found_serious, alarms = [], [], []
    by_pair: dict[tuple, int] = {}
    pairs = table_pairs() if part == "held_out" else rng.sample(table_pairs(), DEVELOP_PAIRS)
    for rule, a, b in pairs:
        by_pair[rule, a, b] = 0
        for i, phrasing in enumerate(PHRASINGS[part]["interaction"]):
            first, second = (a, b) if i % 2 else (b, a)
            texts = [rng.choice(names_of(d)) if rng.random() < 0.5 else d for d in (first, second)]
            text = phrasing.format(a=texts[0], b=texts[1])
            severity = severity_of_pair(text, a, b)
            found.append((rule, severity >= 2))
            found_serious.append(severity >= min(SERIOUS, int(interaction(a, b)[0]["severity"])))
            by_pair[rule, a, b] += found[-1][1]
            if not found[-1][1]:
                failures.append(f"missed {rule}: {text}")
        for phrasing in PHRASINGS[part]["no_interaction"]:
            text = phrasing.format(a=a, b=rng.choice(names_of(b)))
            alarms.append(risk_level(check_response(text)) >= SERIOUS)
            if alarms[-1]:
                failures.append(f"alarm {rule}: {text}")
    onc = sorted({rule for rule, _ in found if rule.startswith("onc_")}, key=lambda rule: int(rule[4:]))
    return {
        "pairs": len(by_pair),
        "phrasings": len(PHRASINGS[part]["interaction"]),
        "phrasings_no_interaction": len(PHRASINGS[part]["no_interaction"]),
        "recall": share(sum(hit for _, hit in found), len(found)),
        "recall_as_alarm": share(sum(found_serious), len(found)),
        "pairs_found_in_three_phrasings": share(sum(n >= 3 for n in by_pair.values()), len(by_pair)),
        "recall_by_onc_class": {rule: statistics.mean(hit for r, hit in found if r == rule) for rule in onc},
        "false_alarms": share(sum(alarms), len(alarms)),
    }


def single_maximum(drug: str) -> float:
    """Return the lowest maximum of one dose in mg that is an alarm for adults, or infinity."""
    rows = [row for row in read_table("doses") if row["drug"] == drug and row["max_single"] and not row["per_kg"]]
    serious = [row for row in rows if row["severity"] == "3"]
    return min((float(r["max_single"]) / (1000 if r["unit"] == "mcg" else 1) for r in serious), default=math.inf)


def doses(part: str, failures: list[str]) -> dict[str, Any]:
    """Check each adult maximum of severity 3: a regimen of twice the maximum, one just below it, and an excessive dose
    in sentences that do not advise it."""
    over, under, alarms = [], [], []
    for row in read_table("doses"):
        adult = float(row["min_age"]) <= 40 < float(row["max_age"] or "inf")
        if not adult or row["per_kg"] or row["severity"] != "3" or row["form"] == "er" or not row["max_daily"]:
            continue
        limit = float(row["max_daily"]) / (1000 if row["unit"] == "mcg" else 1)
        for phrasing in PHRASINGS[part]["dose"]:
            for factor, results in ((2.0, over), (0.99, under)):
                single = limit * factor / 4  # four times a day
                if factor < 1 and single > single_maximum(row["drug"]):  # codeine: 90 mg at once is too much
                    continue
                amounts = {"mg": single / 2, "single": single, "total": limit * factor}
                amounts = {name: f"{amount:.6g}" for name, amount in amounts.items()}
                text = phrasing.format(drug=row["drug"], n=2, h=6, times=4, latin="q.i.d.", **amounts)
                assert find_doses(text), text
                hit = any(f["kind"] == "dose" and f["severity"] >= SERIOUS for f in check_response(text))
                results.append(hit)
                if hit != (factor > 1):
                    failures.append(f"{'missed' if factor > 1 else 'alarm'} dose: {text}")
        for phrasing in PHRASINGS[part]["no_dose"]:
            text = phrasing.format(drug=row["drug"], total=f"{limit * 2:.6g}")
            alarms.append(risk_level(check_response(text)) >= SERIOUS)
            if alarms[-1]:
                failures.append(f"alarm dose: {text}")
    return {
        "recall": share(sum(over), len(over)),
        "false_alarms_below_the_ceiling": share(sum(under), len(under)),
        "false_alarms": share(sum(alarms), len(alarms)),
    }


def by_hand(part: str, kind: str, is_question: bool, lowest: int, failures: list[str]) -> dict[str, Any]:
    """Check handwritten sentences: recall at severity `lowest` or above, and false alarms."""
    check = check_question if is_question else check_response
    results = {}
    for name, wanted in ((kind, True), (f"no_{kind}", False)):
        hits = []
        for text in PHRASINGS[part][name]:
            kinds = {"harmful": "harmful_request"}.get(kind, kind)
            findings = [
                f for f in check(text) if f["kind"] == kinds or (kind == "harmful" and f["kind"] == "emergency")
            ]
            hits.append(risk_level(findings) >= lowest)
            if hits[-1] != wanted:
                failures.append(f"{'missed' if wanted else 'alarm'} {kind}: {text}")
        results["recall" if wanted else "false_alarms"] = share(sum(hits), len(hits))
    return results


def precision(results: dict[str, Any]) -> dict[str, Any]:
    """Return the share of alarms on the constructed texts that are correct."""
    true = sum(r["recall"]["count"] for r in results.values())
    false = sum(
        value["count"] for r in results.values() for name, value in r.items() if name.startswith("false_alarms")
    )
    return share(true, true + false)


def medquad(path: Path, show: bool) -> dict[str, Any]:
    """Count alarms on a seeded sample of informative questions and answers by health institutes."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = random.Random(SEED).sample(rows, SAMPLE)
    alarms = {"questions": 0, "answers": 0}
    for row in rows:
        found = {
            "questions": check_question(row["question"]),
            "answers": check_response(row["answer"], row["question"]),
        }
        for name, findings in found.items():
            alarms[name] += risk_level(findings) >= SERIOUS
            for finding in findings if show else []:
                if finding["severity"] >= SERIOUS:
                    text = row["question"] if name == "questions" else row["answer"]
                    start, end = finding["span"]
                    print(name, finding["rule"], "|", " ".join(text[max(0, start - 150) : end + 120].split())[:500])
    return {name: share(count, SAMPLE) for name, count in alarms.items()} | {
        "questions_or_answers": share(sum(alarms.values()), 2 * SAMPLE)
    }


def latency(path: Path) -> dict[str, Any]:
    """Measure the CPU milliseconds per check of a text of 200 words, without loading the tables.

    The minimum of three runs reduces the effect of other load on the machine.
    """
    words = " ".join(
        json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()[:1500]
    ).split()
    texts = [" ".join(words[i : i + 200]) for i in range(0, 200 * 1000, 200)]

    def once(text: str) -> float:
        start = time.process_time()
        check_response(text)
        return 1000 * (time.process_time() - start)

    milliseconds = sorted(min(once(text) for _ in range(3)) for text in texts)
    return {
        "texts": len(texts),
        "p50_ms": milliseconds[len(texts) // 2],
        "p95_ms": milliseconds[len(texts) * 95 // 100],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--medquad_file", type=Path, default=Path("../shared/data/medquad/medquad.jsonl"))
    parser.add_argument("--headqa_file", type=Path, default=Path("../shared/data/headqa/headqa.jsonl"))
    parser.add_argument("--parts", nargs="+", choices=list(PHRASINGS), default=list(PHRASINGS))
    parser.add_argument("--show", action="store_true", help="print failures and alarms; write no result file")
    args = parser.parse_args()
    for name, path in (("medquad_file", args.medquad_file), ("headqa_file", args.headqa_file)):
        if not path.is_file():
            sys.exit(f"error: `{name}` {path} does not exist: pass the path of the data set as jsonl.")
    results: dict[str, Any] = {}
    for part in args.parts:
        failures: list[str] = []
        results[part] = {
            "interactions": interactions(part, failures),
            "doses": doses(part, failures),
            "emergencies": by_hand(part, "emergency", True, 4, failures),
            "harmful_requests": by_hand(part, "harmful", True, SERIOUS, failures),
            "certainty": by_hand(part, "certainty", False, 2, failures),
        }
        results[part]["precision"] = precision(results[part])
        if args.show:
            print(*random.Random(0).sample(failures, min(60, len(failures))), sep="\n")
    results |= {"frames": frames(PHRASINGS), "closing_phrases": closings(PHRASINGS, table_pairs())}
    results |= {"lay": lay(args.show), "headqa_questions": real_questions(args.headqa_file)}
    results |= {"medquad": medquad(args.medquad_file, args.show), "latency_200_words": latency(args.medquad_file)}
    results |= {"python": platform.python_version(), "command": "python -m benchmarks.safety"}
    print(json.dumps(results, indent=2))
    if not args.show:
        Path("benchmarks/results/safety.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
