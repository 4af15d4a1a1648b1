"""Evaluate retrieval on MedQuAD: search quality, false support, and the effect of passages on a small model.

    python -m benchmarks.retrieval --medquad_file ../shared/data/medquad/medquad.jsonl
    python -m benchmarks.retrieval --medquad_file ../shared/data/medquad/medquad.jsonl --answers 50

- search: the corpus consists of the answers of all 6,076 rows, without their questions. A question must find the
  document of its answer. Settings are compared on the questions of half of the documents, and results are reported on
  the other half. Nearly all questions name their disease, and so do document and title, which makes the task easy. But
  several institutes write about the same disease, and only one document counts as correct; `same_focus` accepts all
  documents with the same title.
- support: a sentence that is wrong for a question replaces its answer. Reported is the share of such sentences that
  one of the first three passages is said to support. `other`: from another document. `renamed`: from another document,
  with its disease replaced by that of the question, which makes it plausible and sometimes correct. There are no
  paraphrases of MedQuAD, so the share of correct sentences without support is not measured.
- answers (with `--answers N`): SmolLM2-135M-Instruct without fine-tuning on N questions of the second half, without
  passages, with three passages, and with the best passage itself as the answer. The corpus contains the references.

MedQuAD (Ben Abacha and Demner-Fushman 2019, CC BY 4.0) is not part of this repository. The model comes from
`make quickstart`. Writes results/retrieval.json.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from utils.chat import answer_delimiters
from utils.citations import MIN_OVERLAP, cite, find_support
from utils.data.files import read_rows
from utils.inference import Predictor
from utils.json_files import read_json, write_json
from utils.metrics.intervals import evaluate_statistics, paired_difference
from utils.metrics.statistics import accuracy_statistics, text_statistics
from utils.retrieval import PASSAGE_WORDS, Passage, Retriever, add_passages

RESULTS = Path("benchmarks/results/retrieval.json")
MODEL = Path("quickstart/models/smollm2-135m-instruct")
DEPTH = 50  # passages searched for the rank
SHOWN = 3  # passages per prompt


def write_corpus(rows: list[dict[str, Any]], path: Path, titles: bool) -> None:
    """Write the answers as a corpus with the row numbers as ids."""
    with path.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(rows):
            passage = {"id": str(number), "title": row["focus"] if titles else "", "source": row["source"]}
            stream.write(json.dumps(passage | {"text": row["answer"]}) + "\n")


def index(rows: list[dict[str, Any]], titles: bool, passage_words: int) -> tuple[Retriever, float]:
    """Build a retriever; returns it and the CPU seconds, which are independent of other load on the machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl")
        write_corpus(rows, path, titles)
        start = time.process_time()
        retriever = Retriever.from_file(path, passage_words)
        return retriever, time.process_time() - start


def rank(found: list[Passage], right: set[int]) -> float:
    """Return the reciprocal rank of the first passage of a correct row, 0 if there is none."""
    places = [place for place, passage in enumerate(found, 1) if int(passage.id) in right]
    return 1 / places[0] if places else 0.0


def search_statistics(
    retriever: Retriever, rows: list[dict[str, Any]], asked: list[int]
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Return row statistics of the search for the questions `asked`, and the CPU milliseconds of each."""
    groups: dict[str, dict[str, set[int]]] = {"document": {}, "same_focus": {}, "answer": {}}
    for number, row in enumerate(rows):
        groups["document"].setdefault(row["document_id"], set()).add(number)
        groups["same_focus"].setdefault(row["focus"].lower(), set()).add(number)
        groups["answer"].setdefault(row["answer"], set()).add(number)
    reciprocal: dict[str, list[float]] = {name: [] for name in groups}
    milliseconds = []
    for number in asked:
        row = rows[number]
        start = time.process_time()
        found = retriever.search(row["question"], DEPTH)
        milliseconds.append(1000 * (time.process_time() - start))
        keys = {"document": row["document_id"], "same_focus": row["focus"].lower(), "answer": row["answer"]}
        for name, key in keys.items():
            reciprocal[name].append(rank(found, groups[name][key]))
    found_statistics = {}
    for name, values in reciprocal.items():
        for k in (1, SHOWN, 5):
            found_statistics |= accuracy_statistics([v >= 1 / k for v in values], f"{name}_recall_at_{k}")
        found_statistics |= accuracy_statistics(values, f"{name}_mrr")
    return found_statistics, milliseconds


def false_support(
    retriever: Retriever, rows: list[dict[str, Any]], asked: list[int], rng: random.Random
) -> dict[str, Any]:
    """Return the share of wrong sentences, each the first of another document's answer, that a passage supports."""
    supported: dict[str, list[bool]] = {"other": [], "renamed": []}
    for number in asked:
        row, other = rows[number], rows[rng.randrange(len(rows))]
        if other["focus"].lower() == row["focus"].lower():
            continue
        passages = retriever.search(row["question"], SHOWN)
        wrong = {"other": other["answer"]}
        if other["focus"] in other["answer"]:
            wrong["renamed"] = other["answer"].replace(other["focus"], row["focus"])
        for name, answer in wrong.items():
            plain, claims = find_support(answer[:1000], passages)
            named = [c for c in claims if name == "other" or row["focus"] in plain[c.start : c.end]][:1]
            supported[name] += [claim.passage is not None for claim in named]
    results = {"min_overlap": MIN_OVERLAP}
    for name, values in supported.items():
        results |= {f"{name}_sentences": len(values)}
        results |= evaluate_statistics(accuracy_statistics(values, f"{name}_supported"), range(len(values)))
    return results


def ask_model(retriever: Retriever, rows: list[dict[str, Any]], asked: list[int]) -> dict[str, Any]:
    """Compare answers of the small model with and without passages to the references."""
    if not MODEL.is_dir():
        sys.exit(f"error: {MODEL} does not exist: run `make quickstart` first.")
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    task = {
        "task": "qa",
        "columns": {"question": "question", "context": None, "options": None},
        "chat": True,
        "system_prompt": None,
        "prompt_template": "{question}",
        "stop": answer_delimiters(tokenizer, True)[1],
        "max_length": 1024,
        "generation": {"max_new_tokens": 96, "do_sample": False, "repetition_penalty": 1.1},
    }
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    predictor = Predictor(model.eval(), tokenizer, task)

    questions = [rows[number]["question"] for number in asked]
    references = [" ".join(rows[number]["answer"].split()) for number in asked]
    prompts, found = add_passages([{"question": q} for q in questions], retriever, SHOWN, tokenizer, task)
    answers = {
        "without": [answer["prediction"] for answer in predictor(questions, 4)],
        "with_passages": [answer["prediction"] for answer in predictor(prompts, 4)],
        "best_passage": [passages[0].text if passages else "" for passages in found],
    }
    clusters = [rows[n]["document_id"] for n in asked]
    scores = {name: text_statistics(texts, references) for name, texts in answers.items()}
    kept = ("rouge1", "rouge2", "rougeL")
    scores = {name: {key: own[key] for key in kept} for name, own in scores.items()}
    results = {"questions": len(asked), "passages_shown": statistics.mean(map(len, found)), "max_new_tokens": 96}
    for name, own in scores.items():
        results |= evaluate_statistics(own, clusters, name)
    results |= paired_difference(scores["with_passages"], scores["without"], clusters, "delta_with_passages")
    for name in ("without", "with_passages"):
        checked = [cite(answer, passages) for answer, passages in zip(answers[name], found, strict=True)]
        shares = [one["supported"] or 0.0 for one in checked]
        results |= evaluate_statistics(accuracy_statistics(shares, "supported"), clusters, name)
        results[f"{name}_answers_that_cite"] = sum("[" in answer for answer in answers[name])
        results[f"{name}_wrong_citations"] = sum(one["wrong_citations"] for one in checked)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medquad_file", type=Path, default=Path("../shared/data/medquad/medquad.jsonl"))
    parser.add_argument("--answers", type=int, help="Run only this part, with N questions; adds to the result file.")
    args = parser.parse_args()
    if not args.medquad_file.is_file():
        sys.exit(f"error: `medquad_file` {args.medquad_file} does not exist: pass the path of MedQuAD as jsonl.")
    rows = [row for _, row in read_rows(args.medquad_file)]
    rng = random.Random(42)
    documents = sorted({row["document_id"] for row in rows})
    first_half = set(rng.sample(documents, len(documents) // 2))
    halves = ([n for n, r in enumerate(rows) if r["document_id"] in first_half],
              [n for n, r in enumerate(rows) if r["document_id"] not in first_half])  # fmt: skip
    retriever, seconds = index(rows, True, PASSAGE_WORDS)
    if args.answers:
        answers = ask_model(retriever, rows, sorted(rng.sample(halves[1], args.answers)))
        write_json(RESULTS, read_json(RESULTS) | {"answers": answers})
        return

    settings = []
    sample = sorted(rng.sample(halves[0], 600))
    clusters = [rows[n]["document_id"] for n in sample]
    for titles, words in ((True, 75), (True, 150), (True, 300), (False, 150)):
        own = retriever if titles and words == PASSAGE_WORDS else index(rows, titles, words)[0]
        found, _ = search_statistics(own, rows, sample)
        kept = {name: found[name] for name in ("document_recall_at_1", "document_mrr", "answer_mrr")}
        settings.append({"titles": titles, "passage_words": words} | evaluate_statistics(kept, clusters))

    test = halves[1]
    found, milliseconds = search_statistics(retriever, rows, test)
    clusters = [rows[n]["document_id"] for n in test]
    named = [rows[n]["focus"].lower() in rows[n]["question"].lower() for n in test]
    results = {
        "settings_on_first_half": settings,
        "search": {
            "questions": len(test),
            "documents": len(documents),
            "passages": len(retriever.passages),
            "passage_words": PASSAGE_WORDS,
            "titles": True,
            "questions_that_name_the_title": statistics.mean(named),
        }
        | evaluate_statistics(found, clusters),
        "time": {
            "index_cpu_seconds": seconds,
            "search_cpu_ms_median": statistics.median(milliseconds),
            "search_cpu_ms_p95": statistics.quantiles(milliseconds, n=20)[-1],
        },
        "support": false_support(retriever, rows, sorted(rng.sample(test, 400)), rng),
        "command": "python -m benchmarks.retrieval --medquad_file medquad.jsonl",
    }
    write_json(RESULTS, results)


if __name__ == "__main__":
    main()
