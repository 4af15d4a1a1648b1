"""Clean, de-duplicate and split a file.

    python -m utils.data --train_file notes.csv --text_column note --label_column ward --output_dir clean

writes train.jsonl, validation.jsonl and test.jsonl, and prints the report as JSON.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars

from utils.arguments import DataArguments, UserError, parse_recipe, user_errors
from utils.data.columns import Columns
from utils.data.label_lists import has_label_lists
from utils.data.load import iter_rows, load_splits
from utils.data.questions import question_columns
from utils.data.shapes import DIALOGUE, FORMATS
from utils.data.sources import KEYS


@dataclass
class ColumnArguments:
    """Columns of one task, and the output folder."""

    output_dir: str = field(metadata={"help": "Folder for train.jsonl, validation.jsonl and test.jsonl."})
    text_column: str | None = field(default=None, metadata={"help": "Input text; needs a label or summary column."})
    label_column: str | None = field(default=None, metadata={"help": "Label; splits are stratified by it."})
    summary_column: str | None = field(default=None, metadata={"help": "Summary of the text."})
    dataset_format: str = field(
        default="auto", metadata={"help": f"Shape of questions, see docs/data.md: auto, {', '.join(FORMATS)}."}
    )
    question_column: str | None = field(default=None, metadata={"help": "Input question; needs answer or options."})
    answer_column: str | None = field(default=None, metadata={"help": "Answer to the question."})
    context_column: str | None = field(default=None, metadata={"help": "Context of the question."})
    options_column: list[str] | None = field(
        default=None, metadata={"help": "One column of options, or one per option."}
    )
    answer_index_column: str | None = field(default=None, metadata={"help": "Right option: letter, text, or place."})
    answer_index_base: int | None = field(default=None, metadata={"help": "Number of the first place, 0 or 1."})
    seed: int = field(default=42, metadata={"help": "Seed of the splits and samples."})


def make_columns(data_args: DataArguments, args: ColumnArguments) -> Columns:
    """Return the columns that the arguments name or, if they name none, those of the format of the training rows."""
    if args.text_column and (args.question_column or args.dataset_format != "auto"):
        raise UserError("`text_column` excludes `question_column` and `dataset_format`: give one of them.")
    if bool(args.options_column) != bool(args.answer_index_column):
        raise UserError("`options_column` and `answer_index_column` go together: give both.")
    targets = [c for c in (args.label_column, args.summary_column, args.answer_column) if c]
    named = args.text_column or args.question_column
    if len(targets) > 1 or (named and not (targets or args.answer_index_column)):
        raise UserError(
            f"{len(targets)} target columns are given: give `label_column`, `summary_column` or `answer_column`, "
            "or `options_column` with `answer_index_column`."
        )
    columns = question_columns(
        data_args, args.dataset_format, named, args.answer_column, args.context_column,
        args.options_column, args.answer_index_column, args.answer_index_base,
    )  # fmt: skip
    if not (named or columns.has_turns):
        raise UserError("`text_column` and `question_column`: give exactly one as the input.")
    target = targets[0] if targets else None if args.options_column else columns.target
    label_list = bool(args.label_column) and has_label_lists(data_args, str(args.label_column))
    return dataclasses.replace(columns, target=target, label=args.label_column, label_list=label_list)


def from_columns(row: Mapping[str, Any], dataset_format: str) -> dict[str, Any]:
    """Return a row of `to_columns` in a format that can be read again: alpaca as such, any other dialogue as
    `messages`."""
    if dataset_format == "columns":
        return dict(row)
    others = {key: value for key, value in row.items() if key not in (*DIALOGUE, "context")}
    turns = [*row["history"], row["question"], row["answer"]]
    if dataset_format == "alpaca":
        pairs = [turns[i : i + 2] for i in range(0, len(turns) - 2, 2)]
        made = {"instruction": row["question"], "input": row["context"], "output": row["answer"]}
        return others | made | {"history": pairs, "system": row["system"]}
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    system = [{"role": "system", "content": row["system"]}] if row["system"] else []
    return others | {"messages": [*system, *messages]}


def main(data_args: DataArguments, args: ColumnArguments) -> None:
    """Clean and split the data, write the splits to `output_dir`, and print the report."""
    if not sys.stderr.isatty():
        disable_progress_bars()  # fragments in a log
    columns = make_columns(data_args, args)
    files = [Path(args.output_dir, f"{split}.jsonl") for split in KEYS]
    if existing := [path for path in files if path.exists()]:
        raise UserError(f"`output_dir` already contains `{existing[0]}`: choose another folder.")
    # As in training: answers count, since the same answer to another wording is the same fact
    answer = None if args.label_column or args.summary_column else columns.target
    clustered = [name for name in (columns.input, answer) if name]
    splits, report = load_splits(data_args, columns, cluster_columns=clustered, seed=args.seed)
    try:
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        for path, rows in zip(files, splits.values(), strict=True):
            part = path.with_name(f".{path.name}.tmp")  # a split is whole or not there
            with part.open("w", encoding="utf-8") as stream:
                feature: Any = rows.features[args.label_column] if args.label_column else None  # each access copies
                for row in iter_rows(rows.remove_columns("_cluster")):
                    if args.label_column:
                        row[args.label_column] = getattr(feature, "feature", feature).int2str(row[args.label_column])
                    written = from_columns(row, columns.dataset_format)
                    stream.write(json.dumps(written, ensure_ascii=False) + "\n")
            part.replace(path)
    except OSError as error:
        raise UserError(f"`output_dir` `{args.output_dir}` cannot be written ({error}): choose another.") from error
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((DataArguments, ColumnArguments), description=__doc__)[:2])
