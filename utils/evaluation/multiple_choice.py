"""Multiple choice by the likelihood of the options, and how much the answer hangs on their order."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.generation import score_answers
from utils.metrics.statistics import accuracy_statistics
from utils.prompts import build_prompt, option_answers, tokenize_pairs, truncate_pairs


def score_options(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    options: list[list[str]],
    task: Mapping[str, Any],
    batch_size: int,
    name: str | None,
) -> list[np.ndarray]:
    """Log-likelihood of every option of every row as the answer to its prompt.

    Returns:
        an array [number of options, 2] a row: sum of log-probabilities in nats, and the same by character of the
        option, as `acc` and `acc_norm` of lm-evaluation-harness use them.
    """
    flat = [(prompt, answer) for prompt, row in zip(prompts, options, strict=True) for answer in option_answers(row)]
    ids, answer_ids = tokenize_pairs(tokenizer, [p for p, _ in flat], [a for _, a in flat], task["chat"])
    ids, answer_ids, _ = truncate_pairs(ids, answer_ids, task["max_length"])
    nll, _ = score_answers(model, ids, answer_ids, tokenizer.pad_token_id, batch_size, name)
    scores = np.stack([-nll, -nll / [max(len(answer), 1) for _, answer in flat]], axis=1)
    return np.split(scores, np.cumsum([len(row) for row in options])[:-1])


def shuffle_rows(rows: list[dict[str, Any]], options_column: str, seed: int) -> tuple[list[dict], list[list[int]]]:
    """Return the rows with their options in another order, and for each new place the old one."""
    orders = [random.Random(seed + i).sample(range(n), n) for i, n in enumerate(len(r[options_column]) for r in rows)]
    moved = [
        {**row, options_column: [row[options_column][old] for old in order]}
        for row, order in zip(rows, orders, strict=True)
    ]
    return moved, orders


def choice_statistics(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, Any]],
    generated: Sequence[str],
    task: Mapping[str, Any],
    batch_size: int,
    seed: int,
    name: str,
) -> dict[str, np.ndarray]:
    """Row statistics of multiple choice.

    Returns:
        accuracy: the option of the highest log-likelihood is the right one.
        accuracy_norm: the same, by character of the option.
        flip_rate: another option is chosen once the options stand in another order.
        generated_accuracy: the letter that the generated answer begins with is the right one.
        parse_failure: the generated answer begins with no letter of an option.
    """
    options_column, index_column = task["columns"]["options"], task["columns"]["answer_index"]
    moved, orders = shuffle_rows(rows, options_column, seed)
    scores, moved_scores = (
        score_options(
            model,
            tokenizer,
            [build_prompt(tokenizer, task, row) for row in version],
            [row[options_column] for row in version],
            task,
            batch_size,
            f"{name}: {label}",
        )
        for version, label in ((rows, "options"), (moved, "options in another order"))
    )
    right = np.array([row[index_column] for row in rows])
    best = np.array([row_scores[:, 0].argmax() for row_scores in scores])
    best_norm = np.array([row_scores[:, 1].argmax() for row_scores in scores])
    best_moved = np.array([order[s[:, 0].argmax()] for order, s in zip(orders, moved_scores, strict=True)])
    return (
        accuracy_statistics(best == right)
        | accuracy_statistics(best_norm == right, "accuracy_norm")
        | accuracy_statistics(best_moved != best, "flip_rate")
        | letter_statistics(rows, generated, task)
    )


def letter_statistics(
    rows: list[dict[str, Any]], generated: Sequence[str], task: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """`generated_accuracy` and `parse_failure` of `choice_statistics`."""
    options_column, index_column = task["columns"]["options"], task["columns"]["answer_index"]
    letters = np.array([_letter(text, len(row[options_column])) for text, row in zip(generated, rows, strict=True)])
    right = np.array([row[index_column] for row in rows])
    return accuracy_statistics(letters == right, "generated_accuracy") | accuracy_statistics(
        letters < 0, "parse_failure"
    )


def _letter(text: str, n_options: int) -> int:
    """Return the index of the option whose letter begins the text, or -1."""
    match = re.match(r"\W*([A-Z])\b", text)
    index = ord(match[1]) - ord("A") if match else -1
    return index if index < n_options else -1
