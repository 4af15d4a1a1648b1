"""Score a file of predictions and references.

python -m utils.metrics --task qa --input_file predictions.jsonl
python -m utils.metrics --task summarization --input_file summaries.jsonl --bertscore_model roberta-large
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from utils.arguments import UserError, check_language, parse_recipe, user_errors
from utils.data.splits import MIN_CLUSTERS, effective_number
from utils.factuality import factuality_statistics
from utils.json_files import finite
from utils.metrics.intervals import evaluate_statistics
from utils.metrics.languages import describe_texts, is_english
from utils.metrics.libraries import multi_label_values, scikit_learn_values, text_values
from utils.metrics.multilabel import label_sets, multi_label_statistics
from utils.metrics.statistics import classification_statistics, text_statistics
from utils.metrics.summaries import bert_scores, bert_statistics, summary_statistics
from utils.overlap import check_bertscore_model, choose_tokenizers

logger = logging.getLogger(__name__)


@dataclass
class MetricsArguments:
    """What to score, and how."""

    task: Literal["qa", "summarization", "classification"] = field(metadata={"help": "Selects the metrics."})
    input_file: str = field(
        metadata={
            "help": "jsonl with `prediction`, `reference` (lists of labels, too), for summaries `source`, and "
            "`cluster` where rows belong together, such as those of a patient."
        }
    )
    use_stemmer: bool = field(default=False, metadata={"help": "Use Porter stemming in ROUGE."})
    bertscore_model: str | None = field(default=None, metadata={"help": "Encoder for BERTScore; omitted by default."})
    bertscore_layer: int | None = field(default=None, metadata={"help": "Its layer; defaults to the recommended one."})
    compare_libraries: bool = field(
        default=False, metadata={"help": "Also print scikit-learn's values, or rouge-score's and sacrebleu's."}
    )
    language: str | None = field(
        default=None, metadata={"help": "Language of the texts, such as en (ISO 639); identified by default."}
    )

    def __post_init__(self) -> None:
        check_language(self.language)
        if self.bertscore_layer and not self.bertscore_model:
            raise UserError("`bertscore_layer` is given without `bertscore_model`: give both.")
        if self.bertscore_model and self.task == "classification":
            raise UserError("`bertscore_model` is given with `task` classification, but scores texts: omit it.")


def main(argv: list[str] | None = None) -> None:
    """Print the metrics of the rows, each with its 95 % interval over clusters, as one JSON object. Without `cluster`
    each row is one."""
    with user_errors():
        args, _ = parse_recipe((MetricsArguments,), argv, description="Score a jsonl of predictions and references.")
        rows = read_rows(args.input_file, args.task)
        clusters = [str(row.get("cluster", i)) for i, row in enumerate(rows)]
        counts = {"clusters": len(set(clusters))} if "cluster" in rows[0] else {}
        results: dict[str, Any] = {"rows": len(rows)} | counts | describe_rows(rows, args)
        if args.bertscore_model:
            results["bertscore_model"] = check_bertscore_model(args.bertscore_model, args.bertscore_layer)[1]
        if (units := effective_number(np.unique(clusters, return_counts=True)[1])) < MIN_CLUSTERS:
            found = (
                f"clusters ({counts['clusters']}, as telling as {units:.1f} of one size)"
                if counts
                else f"rows ({len(rows)})"
            )
            logger.warning("Too few %s to tell: intervals need %d.", found, MIN_CLUSTERS)
        results |= evaluate_statistics(row_statistics(rows, args, results), clusters)
        if args.compare_libraries:
            results |= library_values(rows, args, results)
    print(json.dumps(finite(results)))


def describe_rows(rows: list[dict[str, Any]], args: MetricsArguments) -> dict[str, Any]:
    """Return the language of the texts, what ROUGE and BLEU compare and why, and whether ROUGE is stemmed; what reads
    English alone and is left out goes to stderr."""
    if args.task == "classification":
        return {}
    references = [row["reference"] for row in rows]
    sources = [row["source"] for row in rows if "source" in row and args.task == "summarization"]
    found = describe_texts(references, choose_tokenizers(references), args.language, sources)
    english = is_english(found["language"], found["rouge_tokenizer"])
    if args.use_stemmer and not english:
        logger.warning("`use_stemmer` is off: Porter stemming is for English, and the texts are not.")
    if sources and not english:
        logger.warning("Hallucinations and omissions are left out: their word lists are English, the texts are not.")
    return found | {"use_stemmer": args.use_stemmer and english}


def row_statistics(rows: list[dict[str, Any]], args: MetricsArguments, about: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return all statistics of the task; for English summaries with a `source` including hallucinations and omissions.

    Args:
        rows: from `read_rows`.
        args: the task, and the model of BERTScore.
        about: from `describe_rows`.
    """
    predictions, references = [str(row["prediction"]) for row in rows], [str(row["reference"]) for row in rows]
    if args.task == "classification" and isinstance(rows[0]["reference"], list):
        return multi_label_statistics(*_sets(rows))
    if args.task == "classification":
        return classification_statistics(predictions, references, sorted({*predictions, *references}))
    if args.task == "qa":
        statistics = text_statistics(predictions, references, about["use_stemmer"])
    else:
        sources = [row["source"] for row in rows] if "source" in rows[0] else None
        statistics = summary_statistics(predictions, references, sources, about["use_stemmer"])
        if sources and is_english(about["language"], about["rouge_tokenizer"]):
            statistics |= factuality_statistics(predictions, references, sources)
    if args.bertscore_model:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        scores = bert_scores(predictions, references, args.bertscore_model, args.bertscore_layer, device, 32)
        statistics |= bert_statistics(scores)
    return statistics


def library_values(rows: list[dict[str, Any]], args: MetricsArguments, about: dict[str, Any]) -> dict[str, float]:
    """Return what other libraries give for the same rows."""
    if args.task == "classification" and isinstance(rows[0]["reference"], list):
        return multi_label_values(*_sets(rows))
    predictions, references = [str(row["prediction"]) for row in rows], [str(row["reference"]) for row in rows]
    if args.task == "classification":
        return scikit_learn_values(predictions, references)
    return text_values(predictions, references, about["use_stemmer"])


def read_rows(path: str, task: str) -> list[dict[str, Any]]:
    """Read a jsonl file. Errors name file, line and key, but never a value: the rows may be about patients."""
    try:
        text = Path(path).read_bytes().decode("utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise UserError(f"`input_file` {path} cannot be read ({error.strerror}): give a jsonl file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"`input_file` {path} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    types = (str, int) if task == "classification" else (str,)
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also split at U+2028
        where = f"`input_file` {path}, line {number},"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where} is not JSON ({str(error).split(': line')[0]}): write one object.") from error
        for key in ("prediction", "reference"):
            if not isinstance(row, dict) or key not in row:
                keys = sorted(row) if isinstance(row, dict) else type(row).__name__
                raise UserError(f"{where} has no `{key}`, only {keys}: give `prediction` and `reference`.")
        read = ["prediction", "reference"] + ["source"] * (task == "summarization" and "source" in row)
        for key in read:
            labels = row[key] if isinstance(row[key], list) and task == "classification" else [row[key]]
            if not all(isinstance(label, types) for label in labels):
                allowed = " or ".join(t.__name__ for t in types) + (", or a list of them" if len(types) > 1 else "")
                raise UserError(f"{where} has a `{key}` of type {type(row[key]).__name__}: write {allowed}.")
            if rows and key in rows[0] and isinstance(row[key], list) != isinstance(rows[0][key], list):
                raise UserError(f"{where} differs from the first in `{key}`: write a list in every line or in none.")
        if isinstance(row["prediction"], list) != isinstance(row["reference"], list):
            raise UserError(f"{where} has a list in one of `prediction` and `reference`: write both as lists.")
        if row["reference"] == [] or not str(row["reference"]).strip():
            raise UserError(f"{where} has an empty `reference`: nothing to score against, delete the line.")
        if task == "summarization" and rows and ("source" in row) != ("source" in rows[0]):
            raise UserError(f"{where} differs from the first: give `source` in every line or in none.")
        if rows and ("cluster" in row) != ("cluster" in rows[0]):
            raise UserError(f"{where} differs from the first: give `cluster` in every line or in none.")
        if "cluster" in row and not isinstance(row["cluster"], str | int):
            raise UserError(f"{where} has a `cluster` of type {type(row['cluster']).__name__}: write str or int.")
        rows.append(row)
    if not rows:
        raise UserError(f"`input_file` {path} has no rows: write objects with `prediction` and `reference`.")
    return rows


def _sets(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true sets of labels, bool [rows, labels], of all labels in either."""
    sets = [[[str(label) for label in row[key]] for row in rows] for key in ("prediction", "reference")]
    labels = sorted({label for of_rows in sets for own in of_rows for label in own})
    predicted, true = (label_sets(own, labels) for own in sets)
    return predicted, true


if __name__ == "__main__":
    main()
