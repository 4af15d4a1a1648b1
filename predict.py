"""Use a model that a run has saved: many texts in, one JSON object per line out.

    python predict.py --model outputs/quickstart-qa --text "What is ataxia?"
    python predict.py --model outputs/quickstart-classification --text "A hole in the wall between the atria."
    python predict.py --model outputs/flan-t5-lora --input_file visits.csv --output_file notes.jsonl
    python predict.py --model outputs/quickstart-qa --input_file questions.csv --output_file answers.jsonl
    python predict.py --model outputs/quickstart-qa --text "What is ataxia?" --corpus_file leaflets.csv

With `--corpus_file` the model is shown passages of your own texts that share words with the question. Each sentence of
its answer then cites the passage that supports it, or says that none does.

Not a medical device: answers may be wrong. For research and teaching.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.arguments import UserError, parse_recipe, user_errors
from utils.data.files import read_rows
from utils.inference import Predictor
from utils.retrieval import MAX_PASSAGES, Passage, add_passages, cite, read_corpus
from utils.seq2seq import position_limit


@dataclass
class PredictArguments:
    """The model, its input and its output."""

    model: str = field(metadata={"help": "The `output_dir` of a run, or its repository on the Hub."})
    text: str | None = field(default=None, metadata={"help": "One text. Give this or `input_file`."})
    input_file: str | None = field(
        default=None,
        metadata={"help": "csv, tsv, jsonl, json or parquet (.gz too), with the columns used in training."},
    )
    output_file: str | None = field(
        default=None, metadata={"help": "Where to write the output. Default: standard output."}
    )
    corpus_file: str | None = field(
        default=None,
        metadata={
            "help": "Your own texts to answer from and to cite: column `text`, and optionally `title` and `source`."
        },
    )
    batch_size: int = field(default=8, metadata={"help": "Rows per batch."})
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "Longest answer or summary, in tokens. Default: as in training."}
    )
    top_k: int = field(default=3, metadata={"help": "How many classes to show with their probabilities."})
    revision: str | None = field(default=None, metadata={"help": "Commit, tag or branch of the Hub repository."})
    base_model: str | None = field(
        default=None, metadata={"help": "Where the base model is now, if it has moved since training."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the base model."})


def read_inputs(args: PredictArguments, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the input rows. They must have the columns that the model was trained on."""
    main_column = columns.get("text") or columns["question"]
    if args.text and not args.input_file:
        return [{main_column: args.text}]
    if not args.input_file or args.text:
        raise UserError("give `--text` or `--input_file`, and not both.")
    rows = []
    for number, row in read_rows(args.input_file):
        for column in (main_column, columns.get("context")):
            if column and column not in row:
                raise UserError(
                    f"`{column}` is no column of {args.input_file}, row {number}: it has {', '.join(row)}."
                )
        if not str(row[main_column] or "").strip():
            raise UserError(f"{args.input_file}, row {number}: `{main_column}` is empty: fill or delete the row.")
        rows.append(row)
    return rows


def first(probabilities: dict[str, float], top_k: int) -> dict[str, float]:
    """Return the first `top_k` items."""
    return dict(list(probabilities.items())[:top_k])


def main(args: PredictArguments) -> None:
    for key in ("batch_size", "top_k"):
        if getattr(args, key) < 1:
            raise UserError(f"`{key}` is {getattr(args, key)}: give 1 or more.")
    predictor = Predictor.from_pretrained(args.model, args.revision, args.base_model, args.trust_remote_code)
    if args.max_new_tokens is not None:
        if args.max_new_tokens < 1:
            raise UserError(f"`max_new_tokens` is {args.max_new_tokens}: give 1 or more.")
        if "generation" not in predictor.task:
            raise UserError(f"`max_new_tokens` is for answers, and `model` {args.model} generates none: leave it out.")
        limit = position_limit(predictor.model.config, predictor.tokenizer, "decoder")
        if predictor.model.config.is_encoder_decoder and limit and args.max_new_tokens > limit:
            raise UserError(f"`max_new_tokens` is {args.max_new_tokens}: this model writes up to {limit} tokens.")
        predictor.task["generation"]["max_new_tokens"] = args.max_new_tokens
    retriever = read_corpus(args.corpus_file, predictor.task) if args.corpus_file is not None else None
    rows = read_inputs(args, predictor.task["columns"])
    inputs, passages = rows, [list[Passage]() for _ in rows]
    if retriever:
        inputs, passages = add_passages(rows, retriever, MAX_PASSAGES, predictor.tokenizer, predictor.task)
    try:
        output = Path(args.output_file).open("w", encoding="utf-8") if args.output_file else sys.stdout
    except OSError as error:
        raise UserError(f"`output_file` {args.output_file} cannot be written ({error.strerror}).") from error
    for row, answer, own in zip(rows, predictor(inputs, args.batch_size), passages, strict=True):
        if retriever:
            answer |= cite(answer["prediction"], own)
        if isinstance(answer.get("probabilities"), dict):
            answer["probabilities"] = first(answer["probabilities"], args.top_k)
        elif "shown" in answer:
            answer["probabilities"] = [first(level, args.top_k) for level in answer["probabilities"]]
        line = {"id": row["id"], **answer} if "id" in row else answer
        output.write(json.dumps(line, ensure_ascii=False) + "\n")
    output.flush()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((PredictArguments,), description=__doc__)[:1])
