"""Evaluate the factuality statistics against expert judgements, planted errors and the NegEx test kit.

    python -m benchmarks.factuality [--data ../shared/data/mts_dialog] [--negex Annotations-1-120.txt]

- experts: 400 summaries of MTS-Dialog (four systems, 100 validation dialogues; CC BY 4.0), for which experts counted
  omitted, hallucinated and correct facts. Pearson's r of the rates with `omission`, `hallucination` and simpler
  measures, with intervals over dialogues. All parameters were chosen on the dialogues with even numbers. The
  word tables, however, were corrected after reading findings in all dialogues, so `held_out` holds out the parameters
  and not the tables. "wrong facts" is 1 - FactualPrecision: experts count a wrong age as an error, not as a
  hallucination.
- planted: one number, drug, finding, side or negation at a time is falsified in the notes of the experts. Measured is
  the share of these errors that is found against the dialogue.
- negation: sentences with a marked finding from the NegEx test kit (Chapman et al. 2001; github.com/chapmanbe/negex).
  The patterns in `utils/factuality/assertions.py` were written before it was run and corrected after reading its
  errors: F1 rose from 0.958 to the result here.

Writes results/factuality.json, numbers only.
"""

import argparse
import csv
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from utils.factuality import STOP_WORDS, factuality_statistics, find_hallucinations
from utils.factuality.assertions import assertion_at, find_scopes
from utils.factuality.medical_terms import find_terms, load_terms
from utils.factuality.quantities import find_quantities
from utils.factuality.words import split_words
from utils.json_files import write_json
from utils.metrics.intervals import cluster_sums, t_interval

PLANTED_DRUGS = ("warfarin", "metformin", "sertraline", "amoxicillin")
PLANTED_FINDINGS = ("pneumonia", "glaucoma", "gout", "psoriasis")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def pearson(sums: np.ndarray) -> np.ndarray:
    """Return Pearson's r [...] from sums over rows of 1, a, b, a * a, b * b and a * b, [..., 6]."""
    n, a, b, aa, bb, ab = np.moveaxis(sums, -1, 0)
    return (n * ab - a * b) / np.sqrt((n * aa - a * a) * (n * bb - b * b))


def missing_words(claims: str, known: str) -> float:
    """Return the share of a text's distinct content stems that another text lacks: the simple baseline."""
    stems = {word.stem for word in split_words(claims) if word.lower not in STOP_WORDS}
    return len(stems - {word.stem for word in split_words(known)}) / max(len(stems), 1)


def compare_with_experts(folder: Path) -> dict[str, Any]:
    rows = read_csv(folder / "automatic_summaries_validationset.csv")
    scores = read_csv(folder / "manual_scores4correlationstudy.csv")
    summaries = [row["Automatic Summary"] for row in rows]
    references = [row["Reference Summary"] for row in rows]
    sources = [row["Dialogue"] for row in rows]
    dialogues = np.array([int(row["ID"]) for row in rows])
    start, cpu = time.perf_counter(), time.process_time()
    statistics = factuality_statistics(summaries, references, sources)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    scorer = RougeScorer(["rouge1"])
    rouge = [
        scorer.score(reference, summary)["rouge1"] for reference, summary in zip(references, summaries, strict=True)
    ]
    measures = {name: values[:, 0] for name, values in statistics.items()}
    measures["rouge1"] = np.array([score.fmeasure for score in rouge])
    measures["missing_words"] = np.array([missing_words(r, s) for r, s in zip(references, summaries, strict=True)])
    measures["new_words"] = np.array([missing_words(s, x) for s, x in zip(summaries, sources, strict=True)])
    experts = {
        name: np.array([float(score[name]) for score in scores]) for name in ("OmissionRate", "HallucinationRate")
    }
    experts["wrong facts"] = 1 - np.array([float(score["FactualPrecision"]) for score in scores])
    halves = {"all": dialogues >= 0, "chosen_on": dialogues % 2 == 0, "held_out": dialogues % 2 == 1}
    results: dict[str, Any] = {"summaries": len(rows)}
    for half, chosen in halves.items():
        for expert, names in (
            ("OmissionRate", ("omission", "missing_words", "rouge1")),
            (
                "HallucinationRate",
                ("hallucination", "any_hallucination", "hallucinated_findings", "new_words", "rouge1"),
            ),
            ("wrong facts", ("hallucination", "any_hallucination", "new_words", "rouge1")),
        ):
            for name in names:
                key = f"r_{name}_{expert.replace(' ', '_')}_{half}"
                a, b = measures[name][chosen], experts[expert][chosen]
                products = np.column_stack([np.ones(len(a)), a, b, a * a, b * b, a * b])
                sums, _, units = cluster_sums(products, dialogues[chosen])
                results[key] = float(pearson(sums.sum(axis=0)))
                left_out = pearson(sums.sum(axis=0) - sums)
                results[f"{key}_ci95"] = t_interval(results[key], left_out, units, (-1.0, 1.0))
    counts = {f"found_{name}": float(values.sum()) for name, values in measures.items() if name in statistics}
    results |= {name: count for name, count in counts.items() if name not in ("found_omission", "found_hallucination")}
    return results | {"seconds_per_100": seconds / len(rows) * 100, "cpu_seconds_per_100": cpu / len(rows) * 100}


def replaced(text: str, start: int, end: int, by: str) -> str:
    return text[:start] + by + text[end:]


def plant_errors(note: str, dialogue: str) -> list[tuple[str, str]]:
    """Return all variants of a note with one planted error, as (kind, note)."""
    planted = []
    for quantity in find_quantities(note):
        digits = re.search(r"\d+", note[quantity.start : quantity.end])
        if quantity.is_claim and quantity.measure != "date" and digits:
            start = quantity.start + digits.start()
            planted.append(("number", replaced(note, start, start + len(digits[0]), str(int(digits[0]) + 13))))
    for term in find_terms(note):
        new = next(
            name for name in (PLANTED_DRUGS if term.kind == "drug" else PLANTED_FINDINGS) if name not in dialogue
        )
        planted.append((term.kind, replaced(note, term.start, term.end, new)))
        if assertion_at(find_scopes(note), term.start) == ("present", "patient"):
            planted.append(("negation", replaced(note, term.start, term.start, "no ")))
            planted.append(("person", replaced(note, term.start, term.start, "mother with ")))
    for match in re.finditer(r"\b(left|right)\b", note):
        planted.append(("laterality", replaced(note, *match.span(), {"left": "right", "right": "left"}[match[0]])))
    return planted


def find_planted(folder: Path) -> dict[str, Any]:
    """Return the share of planted errors that are found, by kind.

    Notes that already have a finding of the kind are skipped: the wording of an expert may not occur in the dialogue.
    """
    found: dict[str, list[bool]] = {}
    rows = read_csv(folder / "validation.csv")
    for row in rows:
        dialogue, note = row["dialogue"], row["section_text"]
        before = find_hallucinations(dialogue, note)
        for kind, wrong in plant_errors(note, dialogue):
            if not any(finding["kind"] == kind for finding in before):
                after = find_hallucinations(dialogue, wrong)
                found.setdefault(kind, []).append(any(finding["kind"] == kind for finding in after))
    results = {f"planted_{kind}_found": float(np.mean(hits)) for kind, hits in sorted(found.items())}
    results |= {f"planted_{kind}": len(hits) for kind, hits in sorted(found.items())}
    alarms = [len(find_hallucinations(row["dialogue"], row["section_text"])) for row in rows]
    return results | {"findings_a_note_of_experts": float(np.mean(alarms)), "notes_of_experts": len(rows)}


def marked_place(sentence: str, concept: str) -> int | None:
    """Return the position of the marked finding, which is in capitals, or None."""
    pattern = r"\W+".join(map(re.escape, re.findall(r"\w+", concept)))
    places = list(re.finditer(pattern, sentence, flags=re.IGNORECASE))
    capitals = [place for place in places if place[0].isupper()]
    return (capitals or places)[0].start() if places else None


def score_negation(path: Path) -> dict[str, Any]:
    pairs = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[1:]:
        cells = [" ".join(cell.strip('"').split()) for cell in line.split("\t")]
        place = marked_place(cells[2], cells[1]) if len(cells) >= 4 else None
        if place is not None:
            pairs.append((cells[3] == "Negated", assertion_at(find_scopes(cells[2]), place)[0] == "absent"))
    hits = sum(true and predicted for true, predicted in pairs)
    precision = hits / sum(predicted for _, predicted in pairs)
    recall = hits / sum(true for true, _ in pairs)
    return {
        "negex_sentences": len(pairs),
        "negex_precision": precision,
        "negex_recall": recall,
        "negex_f1": 2 * precision * recall / (precision + recall),
    }


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mts_dialog"), help="Folder of MTS-Dialog.")
    parser.add_argument("--negex", type=Path, help="Annotations-1-120.txt of the NegEx test kit.")
    args = parser.parse_args(argv)
    if not (args.data / "manual_scores4correlationstudy.csv").is_file():
        sys.exit(f"skipped: `data` {args.data} does not contain MTS-Dialog: pass its folder.")
    load_seconds, load_cpu = timed(load_terms)
    results: dict[str, Any] = {"load_seconds": load_seconds, "load_cpu_seconds": load_cpu}
    results |= compare_with_experts(args.data) | find_planted(args.data)
    if args.negex:
        results |= score_negation(args.negex)
    results["versions"] = {name: version(name) for name in ("PyStemmer", "numpy", "scikit-learn", "rouge-score")}
    results["command"] = "python -m benchmarks.factuality" + (f" --negex {args.negex.name}" if args.negex else "")
    write_json(Path("benchmarks/results/factuality.json"), results)
    for name, value in results.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
