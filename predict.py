"""Use a model that a run has saved: many texts in, one JSON object per line out.

    python predict.py --model outputs/quickstart-qa --text "What is ataxia?"
    python predict.py --model outputs/quickstart-classification --text "A hole in the wall between the atria."
    python predict.py --model outputs/flan-t5-lora --input_file visits.csv --output_file notes.jsonl
    python predict.py --model outputs/quickstart-qa --input_file questions.csv --output_file answers.jsonl
    python predict.py --model outputs/quickstart-qa --text "What is ataxia?" --corpus_file leaflets.csv

A file is read and written as a stream, in the order of its rows and batch by batch. `--resume` goes on with a run that
was stopped. Several processes on one machine share the rows:

    accelerate launch --quiet predict.py --model outputs/flan-t5-lora --input_file visits.csv --output_file notes.jsonl

With `--corpus_file` the model is shown passages of your own texts that share words with the question. Each sentence of
its answer then cites the passage that supports it, or says that none does.

Not a medical device: answers may be wrong. For research and teaching.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import utils  # noqa: F401  # before torch and bitsandbytes, whose threads and messages it settles

# isort: split
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from utils.arguments import UserError, parse_recipe, user_errors
from utils.citations import cite
from utils.inference import Predictor
from utils.inputs import WINDOW, Input, check_inputs, make_batches, own_rows
from utils.json_files import finite
from utils.ordered_lines import (
    OrderedLines,
    begin,
    check_output,
    digest,
    finish,
    partial_folder,
    remove_partial,
    take_rank,
    wait_for_begin,
)
from utils.positions import position_limit
from utils.retrieval import MAX_PASSAGES, Passage, Retriever, add_passages, read_corpus
from utils.task import find_run, load_task, read_input
from utils.tokenizers import flattened, unknown_characters


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
    resume: bool = field(default=False, metadata={"help": "Go on with the `output_file` of a run that was stopped."})
    overwrite: bool = field(default=False, metadata={"help": "Replace an `output_file` that exists."})
    corpus_file: str | None = field(
        default=None,
        metadata={
            "help": "Your own texts to answer from and to cite: column `text`, and optionally `title` and `source`."
        },
    )
    examples_file: str | None = field(
        default=None,
        metadata={
            "help": "Jsonl file with `question` and `answer`, for a model trained with `retrieve_examples`. Default: "
            "its training rows, which only its output folder has."
        },
    )
    batch_size: int = field(
        default=8,
        metadata={
            "help": "Rows per batch. In half precision or 4 bits some generated answers change with the other rows "
            "of their batch; 1 repeats them exactly."
        },
    )
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "Longest answer or summary, in tokens. Default: as in training."}
    )
    top_k: int = field(default=3, metadata={"help": "How many classes to show with their probabilities."})
    revision: str | None = field(default=None, metadata={"help": "Commit, tag or branch of the Hub repository."})
    base_model: str | None = field(
        default=None, metadata={"help": "Where the base model is now, if it has moved since training."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the base model."})

    def __post_init__(self) -> None:
        for key in ("batch_size", "top_k", "max_new_tokens"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise UserError(f"`{key}` is {value}: give 1 or more.")
        if (self.text is None) == (self.input_file is None):
            raise UserError("give `--text` or `--input_file`, and not both.")
        if (self.resume or self.overwrite) and (self.output_file is None or self.resume == self.overwrite):
            raise UserError("`resume` and `overwrite` say what to do with `output_file`: give it, and one of them.")


def set_longest(predictor: Predictor, max_new_tokens: int) -> None:
    """Set the longest answer or summary, in tokens.

    Raises:
        UserError: the model writes no text, or not as much.
    """
    if "generation" not in predictor.task:
        raise UserError("`max_new_tokens` is for answers, and this model generates none: leave it out.")
    is_pair = predictor.model.config.is_encoder_decoder
    limit = position_limit(predictor.model, "decoder" if is_pair else "")
    read = 0 if is_pair else predictor.task["max_length"]  # a causal model writes after what it has read
    if limit and read + max_new_tokens > limit:
        raise UserError(f"`max_new_tokens` is {max_new_tokens}: this model writes up to {limit - read} tokens.")
    predictor.task["generation"]["max_new_tokens"] = max_new_tokens


def predict_lines(
    predictor: Predictor,
    retriever: Retriever | None,
    batch: Mapping[int, Input],
    args: PredictArguments,
    faults: list[str],
) -> dict[int, str]:
    """Return the output line of each row of a batch. A row that only the tokenizer shows to be unreadable, such as one
    whose other columns fill the template, gets an `error` in its line, and a message in `faults`."""
    rows: list[Any] = [item.row for item in batch.values()]
    passages = [list[Passage]() for _ in rows]
    try:
        if retriever:
            rows, passages = add_passages(rows, retriever, MAX_PASSAGES, predictor.tokenizer, predictor.task)
        answers = predictor.predict(rows, args.batch_size)
    except UserError as error:
        if len(batch) > 1:  # find the row
            return {n: predict_lines(predictor, retriever, {n: item}, args, faults)[n] for n, item in batch.items()}
        ((number, item),) = batch.items()
        faults.append(f"{item.where}: {error}")
        return {number: to_line(item.repeated | {"error": str(error)})}
    lines = {}
    for (number, item), answer, own in zip(batch.items(), answers, passages, strict=True):
        if retriever:
            answer |= cite(answer["prediction"], own)
        if isinstance(answer.get("probabilities"), dict):
            chosen = answer["prediction"] if isinstance(answer["prediction"], list) else ()
            answer["probabilities"] = first(answer["probabilities"], max(args.top_k, len(chosen)))
        elif "shown" in answer:
            answer["probabilities"] = [first(level, args.top_k) for level in answer["probabilities"]]
        lines[number] = to_line(item.repeated | answer)
    return lines


def read_text(item: Input, task: Mapping[str, Any]) -> str:
    """Return the question or text of a row."""
    return str(item.row.get(task["columns"].get("question") or task["columns"].get("text")) or "")


def first(probabilities: dict[str, float], top_k: int) -> dict[str, float]:
    """Return the first `top_k` items."""
    return dict(list(probabilities.items())[:top_k])


def to_line(values: dict[str, Any]) -> str:
    """Return values as a line of JSON, in readable letters unless a text has half of a surrogate pair."""
    line = json.dumps(finite(values), ensure_ascii=False, allow_nan=False)
    is_unicode = not any("\ud800" <= letter <= "\udfff" for letter in line)
    return (line if is_unicode else json.dumps(finite(values), allow_nan=False)) + "\n"


def open_output(
    args: PredictArguments, task_file: Path, rows: int, rank: int, processes: int, launch: str
) -> OrderedLines | None:
    """Return where to write lines, after checking `output_file`; None if it is complete."""
    output = Path(args.output_file) if args.output_file else None
    for key in ("input_file", "corpus_file", "examples_file"):
        if output and (path := getattr(args, key)) and output.resolve() == Path(path).resolve():
            raise UserError(f"`output_file` is the `{key}`, {path}: give another name.")
    if output is None or (output.exists() and not (output.is_file() or output.is_dir())):  # a pipe or a device
        if processes > 1:
            raise UserError("several processes write a file: give `output_file`.")
        return OrderedLines(output, None, False, lambda: None)
    keys = ("model", "revision", "batch_size", "max_new_tokens", "top_k")
    settings = {key: getattr(args, key) for key in keys} | {"processes": processes, "task.json": digest(task_file)}
    files = ("input_file", "corpus_file", "examples_file")
    settings |= {key: digest(path) if (path := getattr(args, key)) else None for key in files}
    settings["text"] = hashlib.sha256(args.text.encode(errors="replace")).hexdigest() if args.text else None
    if rank:
        state = wait_for_begin(output, launch, args.resume)
    else:
        state = check_output(output, settings, args.resume, args.overwrite, rows)
    if state == "complete":
        if rank == 0:
            remove_partial(output)  # of a run that was killed as it ended
        return None
    start = partial(begin, output, settings, launch, state == "resume", processes > 1)
    folder = partial_folder(output)
    if processes == 1:
        return OrderedLines(output, folder / "rank-0.journal", state == "resume", start)
    if rank == 0:
        start()
    return OrderedLines(folder / f"rank-{rank}.jsonl", folder / f"rank-{rank}.journal", True, lambda: None)


def main(args: PredictArguments) -> None:
    if not sys.stderr.isatty():
        disable_progress_bar()  # of loading weights: fragments in a log
    rank, processes, launch = take_rank()
    folder = find_run(args.model, args.revision)
    task = load_task(folder)
    retriever = read_corpus(args.corpus_file, task) if args.corpus_file is not None else None
    if args.input_file is not None:
        rows = check_inputs(args.input_file, task) if rank == 0 else 0
        batches = make_batches(args.input_file, task, args.batch_size, rank, processes)
    else:
        rows, batches = 1, iter([{0: Input("`text`", {}, read_input(str(args.text), task, "`text`"))}])
    lines = open_output(args, folder / "task.json", rows, rank, processes, launch)
    if lines is None:
        print(f"{args.output_file} is complete: nothing to do.", file=sys.stderr)
        return
    predictor = Predictor.from_pretrained(
        args.model, args.revision, args.base_model, args.trust_remote_code, args.examples_file
    )
    if args.max_new_tokens is not None:
        set_longest(predictor, args.max_new_tokens)

    faults: list[str] = []
    total, done = own_rows(rows, args.batch_size, rank, processes), lines.written + len(lines.waiting)
    unknown, flat = set[str](), set[str]()
    is_shown = rank == 0 and args.input_file is not None and sys.stderr.isatty()
    with tqdm(total=total, initial=done, unit="row", disable=not is_shown) as bar:
        for batch in batches:
            if left := {number: item for number, item in batch.items() if number not in lines}:
                lines.add(predict_lines(predictor, retriever, left, args, faults))
                texts = [read_text(item, task) for item in left.values()]
                unknown |= unknown_characters(predictor.tokenizer, texts)
                flat |= flattened(predictor.tokenizer, texts)
                bar.update(len(left))
    lines.close()
    if unknown:
        print(f"the model does not see these characters of the input: {' '.join(sorted(unknown))}", file=sys.stderr)
    if flat:
        print(f"the model reads these as plain digits or letters: {' '.join(sorted(flat))}", file=sys.stderr)
    if lines.journal and args.output_file:
        finish(Path(args.output_file), rank, processes, args.batch_size * WINDOW)
    if faults:
        raise UserError(f"{faults[0]} Rows without an answer, whose lines have an `error` instead: {len(faults)}.")


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((PredictArguments,), description=__doc__)[:1])
