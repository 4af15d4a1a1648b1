"""Clean, de-duplicate and split a file.

    python -m utils.data --train_file notes.csv --text_column note --label_column ward --output_dir clean

writes train.jsonl, validation.jsonl and test.jsonl, and prints the report as JSON.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from utils.arguments import DataArguments, UserError, parse_recipe, user_errors
from utils.data.load import load_splits
from utils.data.rows import Columns
from utils.data.sources import KEYS


@dataclass
class ColumnArguments:
    """Columns of one task, and the output folder."""

    output_dir: str = field(metadata={"help": "Folder for train.jsonl, validation.jsonl and test.jsonl."})
    text_column: str | None = field(default=None, metadata={"help": "Input text; needs a label or summary column."})
    label_column: str | None = field(default=None, metadata={"help": "Label; splits are stratified by it."})
    summary_column: str | None = field(default=None, metadata={"help": "Summary of the text."})
    question_column: str | None = field(default=None, metadata={"help": "Input question; needs answer or options."})
    answer_column: str | None = field(default=None, metadata={"help": "Answer to the question."})
    context_column: str | None = field(default=None, metadata={"help": "Context of the question."})
    options_column: list[str] | None = field(default=None, metadata={"help": "A list column, or a column per option."})
    answer_index_column: str | None = field(default=None, metadata={"help": "Index of the correct option, from 0."})
    seed: int = field(default=42, metadata={"help": "Seed of the splits and samples."})


def main(data_args: DataArguments, args: ColumnArguments) -> None:
    """Clean and split the data, write the splits to `output_dir`, and print the report."""
    input_column = args.text_column or args.question_column
    if not input_column or (args.text_column and args.question_column):
        raise UserError("`text_column` and `question_column`: give exactly one as the input.")
    targets = [c for c in (args.label_column, args.summary_column, args.answer_column) if c]
    if len(targets) > 1 or not (targets or args.answer_index_column):
        raise UserError(
            f"{len(targets)} target columns are given: give `label_column`, `summary_column` or `answer_column`, "
            "or `options_column` with `answer_index_column`."
        )
    if bool(args.options_column) != bool(args.answer_index_column):
        raise UserError("`options_column` and `answer_index_column` go together: give both.")
    files = [Path(args.output_dir, f"{split}.jsonl") for split in KEYS]
    if existing := [path for path in files if path.exists()]:
        raise UserError(f"`output_dir` already contains `{existing[0]}`: choose another folder.")
    columns = Columns(
        input=input_column,
        target=targets[0] if targets else None,
        optional=(args.context_column,) if args.context_column else (),
        lists=tuple(args.options_column or ()),
        index=args.answer_index_column,
        label=args.label_column,
        kept=tuple(data_args.keep_columns or ()),
        lowercase=data_args.lowercase,
    )
    # As in training: answers count, since the same answer to another wording is the same fact
    clustered = [name for name in (input_column, args.answer_column) if name]
    splits, report = load_splits(data_args, columns, cluster_columns=clustered, seed=args.seed)
    try:
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        for path, rows in zip(files, splits.values(), strict=True):
            with path.open("w", encoding="utf-8") as stream:
                for row in rows.remove_columns("_cluster"):
                    if args.label_column:
                        row[args.label_column] = rows.features[args.label_column].int2str(row[args.label_column])
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"`output_dir` `{args.output_dir}` cannot be written ({error}): choose another.") from error
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe((DataArguments, ColumnArguments), description=__doc__)[:2])
