"""Examples in the prompt of a trained model: where they come from, and the rows that show them."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.examples import COLUMN, FILE, Examples, example_texts

logger = logging.getLogger(__name__)


def load_examples(path: Path) -> Examples:
    """Read what `Examples.save` wrote, or a jsonl file of one's own with `question` and `answer`.

    Raises:
        UserError: the file cannot be read, or a line has no such texts.
    """
    questions, answers = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"`examples_file` {path} cannot be read ({error}).") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            pair = row["question"].strip(), row["answer"].strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"`examples_file` {path}, line {number}: give an object with the texts `question` and `answer`."
            ) from error
        if all(pair):
            questions.append(pair[0])
            answers.append(pair[1])
    return Examples(questions, answers)


def with_examples(
    rows: Sequence[Mapping[str, Any]],
    examples: Examples | None,
    task: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Mapping[str, Any]]:
    """Return rows with their examples; rows that have some, or a model that was trained without, stay as they are."""
    if examples is None or not task.get("retrieve_examples"):
        return list(rows)
    missing = [row for row in rows if COLUMN not in row]
    texts, _ = example_texts([row[task["columns"]["question"]] for row in missing], examples, task, tokenizer)
    found = iter(texts)
    return [row if COLUMN in row else {**row, COLUMN: next(found)} for row in rows]


def find_examples(folder: Path, examples_file: str | None, task: Mapping[str, Any]) -> Examples | None:
    """Return the examples for a trained model: those of a file, else those of its own training.

    Raises:
        UserError: the model was trained without examples, and a file is given; or the file cannot be read.
    """
    if not task.get("retrieve_examples"):
        if examples_file:
            raise UserError("`examples_file` is for models that were trained with `retrieve_examples`: drop it.")
        return None
    if examples_file:
        return load_examples(Path(examples_file))
    if (folder / FILE).exists():
        return load_examples(folder / FILE)
    logger.warning(
        "the model was trained with similar questions in its prompt, and %s has none: give a jsonl file with "
        "`question` and `answer` as `--examples_file`", folder,
    )  # fmt: skip
    return None
