"""Effect of the generation settings on answers: beams, length penalty, maximum length.

    python -m benchmarks.answer_settings --model outputs/quickstart-qa

Test questions of a run are answered with each setting through `answer_here`, as in the API. Measured per answer:
words, ROUGE-L against the expert's answer, the share of the expert's content words (stems) that it contains,
repetition, and whether it is finished. Needs `make quickstart`. Writes results/answer_settings.json, numbers only.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.arguments import UserError, parse_recipe, user_errors
from utils.factuality import STOP_WORDS
from utils.factuality.words import split_words
from utils.inference import Predictor
from utils.json_files import write_json
from utils.metrics.intervals import evaluate_statistics, paired_difference
from utils.metrics.statistics import accuracy_statistics, text_statistics
from utils.serving.answering import Question, answer_here

RESULTS = Path("benchmarks/results/answer_settings.json")
BATCH_SIZE = 16
SETTINGS: dict[str, dict[str, Any]] = {
    "as_evaluated": {},
    "beams_4_penalty_-2": {"num_beams": 4, "length_penalty": -2.0},
    "beams_4_penalty_-1": {"num_beams": 4, "length_penalty": -1.0},
    "beams_4_penalty_0": {"num_beams": 4, "length_penalty": 0.0},
    "beams_4_penalty_0.8": {"num_beams": 4, "length_penalty": 0.8},
    "beams_4_penalty_2": {"num_beams": 4, "length_penalty": 2.0},
    "max_length_24": {"max_length": 24},
}


@dataclass
class SettingsArguments:
    """Run and number of questions."""

    model: str = field(default="outputs/quickstart-qa", metadata={"help": "`output_dir` of a run of run_qa_sft.py."})
    rows: int = field(default=100, metadata={"help": "Number of test questions, from the first."})


def content_recall(answer: str, reference: str) -> float:
    """Return the share of a reference's content words that an answer contains."""
    held, wanted = ({w.stem for w in split_words(text) if w.lower not in STOP_WORDS} for text in (answer, reference))
    return len(held & wanted) / len(wanted) if wanted else 1.0


def main(args: SettingsArguments) -> None:
    path = Path(args.model, "_private", "predictions_test.jsonl")
    if not path.is_file():
        raise UserError(f"`model` {args.model} has no test answers: run `make quickstart` first.")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][: args.rows]
    references = [row["reference"] for row in rows]
    predictor = Predictor.from_pretrained(args.model)
    clusters = range(len(rows))
    results: dict[str, Any] = {
        "rows": len(rows),
        "reference_words": float(np.mean([len(text.split()) for text in references])),
    }
    first: dict[str, np.ndarray] = {}
    for name, settings in SETTINGS.items():
        answers = answer_here(predictor, [Question(row["source"], **settings) for row in rows], BATCH_SIZE)
        texts = [answer["response"] for answer in answers]
        statistics = {key: text_statistics(texts, references)[key] for key in ("rougeL", "repetition")}
        recall = [content_recall(a, r) for a, r in zip(texts, references, strict=True)]
        statistics |= accuracy_statistics(recall, "content_recall")
        statistics |= accuracy_statistics([len(text.split()) for text in texts], "words")
        statistics |= accuracy_statistics([answer["finished"] for answer in answers], "finished")
        first = first or statistics
        results[name] = evaluate_statistics(statistics, clusters)
        results[name] |= paired_difference(statistics, first, clusters, "delta")
        print(name, {key: round(results[name][key], 3) for key in statistics}, flush=True)
    results["command"] = "python -m benchmarks.answer_settings"
    write_json(RESULTS, results)


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((SettingsArguments,), description=__doc__)[:1])
