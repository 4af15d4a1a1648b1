"""How should a classifier read texts that are longer than its encoder, and what does it cost?

    python -m benchmarks.long_inputs --medquad_file medquad.jsonl

Quality: MiniLM classifies answers of MedQuAD with more than 300 words by the kind of their question (symptoms,
treatments, causes, ...). It reads 256 tokens: the head of the text, its head and tail, or all of it in chunks, whose
logits are averaged. The splits keep the answers of a document together and are the same for every way; the seed
changes the training. The table has the mean over the seeds, and paired differences of the rows' macro F1 and accuracy
from `head` with cluster intervals, for the first seed.

Cost: seconds per text, forward and forward with backward, of MiniLM in chunks and of an encoder with the shape of
ModernBERT-base (random weights, 8,192 positions, float32), on texts of 512 to 2,048 tokens, one by one.

Needs `make quickstart` (the model) and a file with the columns `question`, `answer`, `focus` and `document_id`, such
as that of abachaa/MedQuAD. Finished runs are not repeated. Writes results/long_inputs.json.
"""

import argparse
import json
import re
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, ModernBertConfig, PreTrainedModel

from benchmarks.runs import run_once
from utils.data.files import read_rows
from utils.encoding import encode_texts
from utils.json_files import read_json, write_json
from utils.sweeps.compare import compare_runs

OUTPUTS = Path("outputs/long_inputs")
RESULTS = Path(__file__).parent / "results" / "long_inputs.json"
MINILM = "quickstart/models/all-minilm-l6-v2"
WORDS = 300  # about 400 tokens of MiniLM, so that each text is longer than what `head` reads
MIN_ROWS = 20  # answers of a kind of question, so that validation and test have some
WAYS = {"head": {}, "head_tail": {}, "chunks": {"max_chunks": 16}}
KEYS = {
    "max_length": 256, "num_train_epochs": 4, "test_fraction": 0.3, "group_column": "document_id", "split_seed": 0,
    "save_strategy": "no", "per_device_train_batch_size": 16, "max_risk": 0.1,
}  # fmt: skip
METRICS = ("accuracy", "macro_f1")
LENGTHS = (512, 1024, 2048)


def write_rows(medquad_file: Path) -> dict[str, int]:
    """Write the long answers with the kind of their question, and return how many of each kind there are."""
    kinds = []
    for _, row in read_rows(medquad_file):
        kind = re.sub(r"\s+", " ", row["question"].replace(row["focus"], "...")).strip()
        if len(row["answer"].split()) > WORDS:
            kinds.append({"text": row["answer"], "label": kind, "document_id": row["document_id"]})
    counts = Counter(row["label"] for row in kinds)
    kept = {kind: n for kind, n in counts.most_common() if n >= MIN_ROWS}
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in kinds if row["label"] in kept]
    (OUTPUTS / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return kept


def train(way: str, seed: int) -> dict[str, Any]:
    """Train once, unless it is done, and return the results."""
    output_dir = OUTPUTS / f"{way}-{seed}"
    keys = KEYS | {"train_file": OUTPUTS / "answers.jsonl", "long_texts": way, "seed": seed} | WAYS[way]
    return run_once(["run_classification.py", "recipes/quickstart/classification.yaml"], output_dir, keys)


def compare(way: str, seed: int) -> dict[str, Any]:
    """Return the paired differences of the test rows from `head`, with intervals over clusters."""
    output_dir = OUTPUTS / f"{way}-against-head"
    compare_runs([str(OUTPUTS / f"{own}-{seed}") for own in ("head", way)], output_dir)
    found = read_json(output_dir / "comparison.json")
    own = f"delta_{way}-{seed}_"
    return {key.replace(own, "delta_"): value for key, value in found.items() if key.startswith(own)}


def quality(seeds: int, ways: list[str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for way in ways:
        runs = [train(way, seed) for seed in range(seeds)]
        table[way] = {metric: statistics.mean(run[f"test_{metric}"] for run in runs) for metric in METRICS}
        table[way] |= {f"{metric}_of_seeds": [run[f"test_{metric}"] for run in runs] for metric in METRICS}
        table[way] |= {f"{m}_ci95_of_first_seed": runs[0][f"test_{m}_ci95"] for m in METRICS}
        # minutes of training are the median: other work on the machine slows single runs
        table[way]["train_minutes"] = statistics.median(run["train_runtime"] for run in runs) / 60
        table[way]["cut_texts"] = runs[0].get("data_test_cut_texts")
        if way != "head":
            table[way]["minus_head"] = compare(way, 0)
    svm = {m: (runs[0][f"baseline_tfidf_svm_test_{m}"], runs[0][f"baseline_tfidf_svm_test_{m}_ci95"]) for m in METRICS}
    rows = {f"{split}_rows": runs[0][f"{split}_rows"] for split in ("train", "validation", "test")}
    return {"ways": table, "tfidf_svm_on_all_words": svm, "rows": rows, "machine": runs[0]["machine"]}


# ----- What a text costs


def seconds(model: PreTrainedModel, chunks: torch.Tensor, backward: bool) -> float:
    """Return the median seconds of one text, whose chunks are the rows of `chunks` [chunks, tokens]."""
    taken = []
    for _ in range(4 if chunks.numel() <= 1024 else 2):  # the first is a warm-up
        start = time.perf_counter()
        with torch.set_grad_enabled(backward):
            logits = model(input_ids=chunks, attention_mask=torch.ones_like(chunks)).logits.mean(0)
            if backward:
                logits.sum().backward()
                model.zero_grad()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def cost() -> dict[str, Any]:
    """Return the seconds per text of each encoder and length, and the number of weights."""
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    minilm = AutoModelForSequenceClassification.from_pretrained(MINILM, num_labels=10).eval()
    modernbert = AutoModelForSequenceClassification.from_config(ModernBertConfig(num_labels=10)).eval()
    table: dict[str, Any] = {"threads": torch.get_num_threads()}
    for name, model, size in (("minilm, chunks of 256", minilm, 256), ("modernbert-base", modernbert, 8192)):
        table[name] = {"parameters": model.num_parameters()}
        for length in LENGTHS:
            chunk, count = min(size, length), max(1, length // size)
            ids = torch.randint(200, len(tokenizer), (count, chunk), generator=torch.Generator().manual_seed(0))
            table[name][length] = {
                "forward_seconds": seconds(model, ids, backward=False),
                "forward_backward_seconds": seconds(model, ids, backward=True),
            }
            print(name, length, table[name][length])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medquad_file", type=Path, required=True, help="A jsonl or csv file of MedQuAD.")
    parser.add_argument("--seeds", type=int, default=1, help="Seeds of the training; one takes an hour on one core.")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="Chunks take half an hour more.")
    parser.add_argument("--part", choices=("quality", "cost", "all"), default="all")
    args = parser.parse_args()
    results: dict[str, Any] = read_json(RESULTS)
    results["command"] = "python -m benchmarks.long_inputs --medquad_file medquad.jsonl"
    if args.part != "cost":
        counts = write_rows(args.medquad_file)
        tokenizer = AutoTokenizer.from_pretrained(MINILM)
        texts = [row["text"] for _, row in read_rows(OUTPUTS / "answers.jsonl")]
        lengths = sorted(len(ids) for ids in encode_texts(tokenizer, texts, 100_000)[0])
        results["data"] = {
            "rows_per_kind": list(counts.values()),
            "tokens_median": lengths[len(lengths) // 2],
            "tokens_p90": lengths[len(lengths) * 9 // 10],
            "tokens_longest": lengths[-1],
        }
        results |= quality(args.seeds, args.ways)
    if args.part != "quality":
        results["cost"] = cost()
    write_json(RESULTS, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
