"""Multiple choice by the likelihood of the options, and the sensitivity of the choice to their order."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.chat import tokenize_pairs
from utils.generation import score_answers, truncate_pairs
from utils.metrics.statistics import accuracy_statistics
from utils.templates import option_answers


def score_options(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    options: list[list[str]],
    task: Mapping[str, Any],
    batch_size: int,
    name: str | None,
) -> np.ndarray:
    """Return the log-likelihood of each option as the answer to its prompt.

    Args:
        model: on its device.
        tokenizer: of that model.
        prompts: whole prompts, as `build_prompt` returns them.
        options: options of each row.
        task: the content of `task.json`.
        batch_size: maximum options per forward pass.
        name: name of the progress bar; None shows none.

    Returns:
        float [rows, most options, 2]: the sum of log-probabilities in nats, and that sum divided by the characters of
        the option, as in `acc` and `acc_norm` of lm-evaluation-harness; -inf where a row has fewer options.
    """
    flat = [(prompt, answer) for prompt, row in zip(prompts, options, strict=True) for answer in option_answers(row)]
    pairs = tokenize_pairs(tokenizer, [p for p, _ in flat], [a for _, a in flat], task["chat"])
    ids, answers, _ = truncate_pairs(*pairs, task["max_length"])
    nll, _ = score_answers(model, ids, answers or [], tokenizer.pad_token_id, batch_size, name)
    scores = np.stack([-nll, -nll / [max(len(answer), 1) for _, answer in flat]], axis=1)
    counts = [len(row) for row in options]
    padded = np.full((len(options), max(counts), 2), -np.inf)
    padded[np.arange(max(counts)) < np.array(counts)[:, None]] = scores
    return padded


def shuffled_orders(counts: Sequence[int], seed: int) -> list[list[int]]:
    """Return a random order of each row's options: the old index for each new place."""
    return [random.Random(seed + i).sample(range(n), n) for i, n in enumerate(counts)]


def shuffled_rows(rows: Sequence[Mapping[str, Any]], options_column: str, seed: int) -> list[dict[str, Any]]:
    """Return the rows with their options in random order, because models prefer some places."""
    orders = shuffled_orders([len(row[options_column]) for row in rows], seed)
    return [
        {**row, options_column: [row[options_column][place] for place in order]}
        for row, order in zip(rows, orders, strict=True)
    ]


def choice_statistics(
    outputs: Mapping[str, Any], options: Sequence[Sequence[str]], answer_index: Sequence[int], seed: int
) -> dict[str, np.ndarray]:
    """Return row statistics of multiple choice.

    Args:
        outputs: `option_scores`, `shuffled_option_scores` (options in the order of `shuffled_orders`), and the
            generated answers as `prediction`.
        options: options of each row.
        answer_index: index of the right option.
        seed: seed of `shuffled_orders`.

    Returns:
        accuracy: the option with the highest log-likelihood is right.
        accuracy_norm: the same with the log-likelihood divided by the characters of the option.
        flip_rate: the choice changes when the options are in another order.
        generated_accuracy, parse_failure: from `letter_statistics`.
    """
    right, orders = np.array(answer_index), shuffled_orders([len(row) for row in options], seed)
    best, best_norm = outputs["option_scores"].argmax(axis=1).T
    moved = outputs["shuffled_option_scores"][:, :, 0].argmax(axis=1)
    best_moved = np.array([order[place] for order, place in zip(orders, moved, strict=True)])
    return (
        accuracy_statistics(best == right)
        | accuracy_statistics(best_norm == right, "accuracy_norm")
        | accuracy_statistics(best_moved != best, "flip_rate")
        | letter_statistics(options, answer_index, outputs["prediction"])
    )


def letter_statistics(
    options: Sequence[Sequence[str]], answer_index: Sequence[int], generated: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return row statistics of the letter at the start of each generated answer.

    `generated_accuracy`: it is the right one. `parse_failure`: the answer does not start with the letter of an option.
    """
    letters = np.array([_letter(text, len(row)) for text, row in zip(generated, options, strict=True)])
    return accuracy_statistics(letters == np.array(answer_index), "generated_accuracy") | accuracy_statistics(
        letters < 0, "parse_failure"
    )


def _letter(text: str, n_options: int) -> int:
    """Return the index of the option whose letter begins the text, or -1."""
    match = re.match(r"\W*([A-Z])\b", text)
    index = ord(match[1]) - ord("A") if match else -1
    return index if index < n_options else -1
