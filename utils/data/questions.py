"""What only questions and answers have: their columns, and variants of training rows (key `augmentation_factor`)."""

import random
import re
from collections.abc import Sequence

from datasets import Dataset

from utils.arguments import DataArguments, UserError
from utils.data.columns import Columns
from utils.data.shapes import FORMATS
from utils.data.sources import column_names, given_splits

# (full question, its paraphrases); the first match applies. `\1` is the subject, unchanged.
PARAPHRASES = [
    (r"What are the symptoms of (.+?)\s*\?", ["How does \\1 show itself?", "Which symptoms does \\1 cause?"]),
    (r"What causes (.+?)\s*\?", ["What leads to \\1?", "What are the causes of \\1?"]),
    (r"How to diagnose (.+?)\s*\?", ["How is \\1 diagnosed?", "Which tests show \\1?"]),
    (r"What are the treatments for (.+?)\s*\?", ["How is \\1 treated?", "Which treatments are there for \\1?"]),
    (r"How to prevent (.+?)\s*\?", ["How can \\1 be prevented?", "What protects from \\1?"]),
    (r"What (?:is \(are\)|is|are) (.+?)\s*\?", ["Define \\1.", "Explain what \\1 means.", "What does \\1 mean?"]),
]
FRAMES = ["{} Please answer.", "A medical question: {}", "Please answer this question. {}", "I would like to know: {}"]


def question_columns(
    args: DataArguments,
    dataset_format: str,
    question: str | None,
    answer: str | None,
    context: str | None,
    options: Sequence[str] | None,
    answer_index: str | None,
    index_base: int | None,
) -> Columns:
    """Return the columns of questions and answers, for the keys of a recipe; None is a key that is not given.

    A recipe that names a column has the format `columns`; `auto` is what the columns of the training rows show.

    Raises:
        UserError: a key has a wrong value, or the training rows show several formats.
    """
    if index_base is not None and (index_base not in (0, 1) or not options):
        raise UserError(f"`answer_index_base` is {index_base}: give 0 or 1, with `options_column`.")
    if question and question == answer:
        raise UserError(f"`question_column` and `answer_column` are both {question}: dialogues need neither key.")
    dataset_format = check_format(dataset_format, has_columns=any((question, answer, context, options)))
    if dataset_format == "auto":
        given_splits(args)
        dataset_format = find_format(column_names(args), str(args.train_file or args.dataset_name))
    context = context or ("context" if dataset_format == "alpaca" else None)
    return Columns(
        input=question or "question",
        target=None if options else answer or "answer",
        optional=(context,) if context else (),
        lists=tuple(options or ()),
        index=answer_index,
        index_base=index_base,
        kept=tuple(args.keep_columns or ()),
        strip_pattern=args.strip_pattern,
        lowercase=args.lowercase,
        dataset_format=dataset_format,
    )


def check_format(dataset_format: str, has_columns: bool) -> str:
    """Return the format that is asked for: `columns` if the recipe names a column.

    Raises:
        UserError: there is no such format, or it has columns of its own.
    """
    if dataset_format not in ("auto", *FORMATS):
        raise UserError(f"`dataset_format` is {dataset_format}: give auto, {', '.join(FORMATS)}.")
    if has_columns and dataset_format not in ("auto", "columns"):
        raise UserError(
            f"`dataset_format` is {dataset_format}, whose columns are known: drop `question_column` and so on."
        )
    return "columns" if has_columns else dataset_format


def find_format(known: Sequence[str], name: str) -> str:
    """Return the `dataset_format` that the columns of a file show.

    Raises:
        UserError: they show several formats.
    """
    found = [shape for shape, needed in FORMATS.items() if set(needed) <= set(known)]
    if len(found) > 1:
        raise UserError(
            f"`{name}` has the columns of several formats ({', '.join(found)}): give one of them as `dataset_format`."
        )
    return found[0] if found else "columns"


# ----- Variants of training rows


def paraphrase(question: str) -> list[str]:
    """Return paraphrases of a question, the closest first. Its subject stays unchanged."""
    for pattern, wordings in PARAPHRASES:
        match = re.fullmatch(pattern, question.strip())
        if match:
            return [match.expand(wording) for wording in wordings] + [frame.format(question) for frame in FRAMES]
    return [frame.format(question) for frame in FRAMES]


def shuffle_options(options: Sequence[str], answer_index: int, rng: random.Random) -> tuple[list[str], int]:
    """Return the options in random order, and the new index of the correct one."""
    order = rng.sample(range(len(options)), len(options))
    return [options[i] for i in order], order.index(answer_index)


def augment(train: Dataset, columns: Columns, factor: int, seed: int) -> Dataset:
    """Return each training row followed by `factor - 1` variants: shuffled options or, without options, a paraphrased
    question.

    Args:
        train: the training split, never another.
        columns: the columns of the rows.
        factor: rows per original row; 1 returns the rows unchanged.
        seed: seed of the shuffling.
    """
    if factor == 1:
        return train

    def variants(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        out = []
        for index, row in zip(indices, rows, strict=True):
            rng = random.Random(seed * 1_000_003 + index)  # a row's variants are independent of batching
            out.append(row)
            wordings = paraphrase(row[columns.input])
            for copy in range(1, factor):
                if columns.options and columns.index:
                    options, answer = shuffle_options(row[columns.options], row[columns.index], rng)
                    out.append({**row, columns.options: options, columns.index: answer})
                else:
                    out.append({**row, columns.input: wordings[(copy - 1) % len(wordings)]})
        return {name: [row[name] for row in out] for name in batch}

    return train.map(variants, batched=True, with_indices=True, features=train.features, desc="Augmenting")
