"""How far the confidence that comes with an answer goes with its being right.

    python -m benchmarks.confidence --model outputs/quickstart-qa

Confidence is the geometric mean of the probabilities that the model gave the tokens of its answer. The run's test
answers, sorted by it into thirds, against the experts' answers: ROUGE-L, and the share of the expert's content words
(stems) that the answer holds. Both count words, not facts. Needs `make quickstart`. Writes results/confidence.json,
numbers only.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from utils.arguments import UserError, parse_recipe, user_errors
from utils.factuality import STOP_WORDS
from utils.factuality.words import split_words
from utils.inference import Predictor
from utils.metrics import accuracy_statistics, evaluate_statistics, resampling_weights, text_statistics
from utils.prompts import build_prompt
from utils.serving.answering import mean_probabilities
from utils.tables import write_json

RESULTS = Path("benchmarks/results/confidence.json")
PARTS = 3


@dataclass
class ConfidenceArguments:
    """Which run."""

    model: str = field(default="outputs/quickstart-qa", metadata={"help": "`output_dir` of a run of run_qa_sft.py."})


def content_recall(answer: str, reference: str) -> float:
    """Share of a reference's content words that an answer holds."""
    held, wanted = ({w.stem for w in split_words(text) if w.lower not in STOP_WORDS} for text in (answer, reference))
    return len(held & wanted) / len(wanted) if wanted else 1.0


def main(args: ConfidenceArguments) -> None:
    path = Path(args.model, "_private", "predictions_test.jsonl")
    if not path.is_file():
        raise UserError(f"`model` {args.model} has no test answers: run `make quickstart` first.")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    predictor = Predictor.from_pretrained(args.model)
    column = predictor.task["columns"]["question"]
    prompts = [build_prompt(predictor.tokenizer, predictor.task, {column: row["source"]}) for row in rows]
    answers, references = ([row[key] for row in rows] for key in ("prediction", "reference"))
    confidence = np.array(mean_probabilities(predictor, prompts, answers, [row["ended"] for row in rows], 16))
    rouge = text_statistics(answers, references)["rougeL"][:, 0]
    recall = np.array([content_recall(a, r) for a, r in zip(answers, references, strict=True)])
    parts = []
    for part in np.array_split(np.argsort(confidence, kind="stable"), PARTS):
        statistics = accuracy_statistics(rouge[part], "rougeL") | accuracy_statistics(recall[part], "content_recall")
        lowest, highest = confidence[part].min().item(), confidence[part].max().item()
        found = {"rows": len(part), "lowest_confidence": lowest, "highest_confidence": highest}
        parts.append(found | evaluate_statistics(statistics, resampling_weights(len(part), 42)))
    results = {
        "rows": len(rows),
        "mean_confidence": confidence.mean().item(),
        "mean_rougeL": rouge.mean().item(),
        "mean_content_recall": recall.mean().item(),
        "spearman_rougeL": float(spearmanr(confidence, rouge).statistic),
        "spearman_content_recall": float(spearmanr(confidence, recall).statistic),
        "parts": parts,
        "command": "python -m benchmarks.confidence",
    }
    write_json(RESULTS, results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((ConfidenceArguments,), description=__doc__)[:1])
