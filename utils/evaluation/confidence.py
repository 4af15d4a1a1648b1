"""How sure a model is of an answer, and what that is worth: learnt on validation answers, checked on test answers.

Confidence is the geometric mean of the probabilities that the model gave the tokens of its answer. It is about the
wording; how far it goes with agreeing with the experts differs from run to run, so every run measures it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.generation import score_answers
from utils.metrics.intervals import evaluate_statistics, resampling_weights
from utils.prompts import tokenize_pairs, truncate_pairs

MAX_ROWS = 300  # validation answers that are generated: 100 a part give intervals of about 0.08
MIN_ROWS = 30  # 10 a part: with fewer an interval says nothing
PARTS = ("least_confident", "middle_confident", "most_confident")  # thirds of the validation answers


def answer_confidence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Mapping[str, Any],
    prompts: list[str],
    answers: Sequence[str],
    finished: Sequence[bool],
    batch_size: int,
    name: str | None,
) -> np.ndarray:
    """Geometric mean of the probabilities that a model gives the tokens of its answers.

    Args:
        task: the content of `task.json`.
        prompts: whole prompts, a text a row, as `build_prompt` returns them.
        answers: as generated.
        finished: whether each ended by itself: then the token that ends it counts, too.
        batch_size: most rows a forward pass.
        name: text of the progress bar, or None for none.

    Returns:
        0 to 1 [rows].
    """
    ids, tokens = tokenize_pairs(tokenizer, prompts, list(answers), task["chat"])
    ids, _, _ = truncate_pairs(ids, None, task["max_length"])
    tokens = [t if end or len(t) == 1 else t[:-1] for t, end in zip(tokens, finished, strict=True)]
    nll, counts = score_answers(model, ids, tokens, tokenizer.pad_token_id, batch_size, name)
    return np.exp(-nll / counts)


def fit_confidence(
    statistics: Mapping[str, np.ndarray], confidence: np.ndarray, metric: str, clusters: Sequence[int], seed: int
) -> dict[str, Any] | None:
    """Measure on validation answers how far confidence goes with agreement.

    Args:
        statistics: row statistics of the answers, with `metric`.
        confidence: from `answer_confidence` [rows].
        metric: `rougeL`, agreement with the expert's answer, or `generated_accuracy`, whether the letter is right.
        clusters: of the rows, for the intervals.
        seed: of the bootstrap.

    Returns:
        for `task.json`, or None with fewer than `MIN_ROWS` rows: `metric`, `rows`, its mean `all`, two `edges` of
        confidence between the thirds, and for each third its mean `agreement` and `ci95`.
    """
    rows = len(confidence)
    if rows < MIN_ROWS:
        return None
    table = {"metric": metric, "rows": rows, "edges": np.quantile(confidence, (1 / 3, 2 / 3)).tolist()}
    found = evaluate_statistics(by_confidence(statistics, confidence, table), resampling_weights(rows, seed, clusters))
    parts = [f"{metric}_{part}" for part in PARTS]
    table["all"] = float(statistics[metric][:, 0].mean())
    table["agreement"] = [found[part] for part in parts]
    table["ci95"] = [found[f"{part}_ci95"] for part in parts]
    return table


def by_confidence(
    statistics: Mapping[str, np.ndarray], confidence: np.ndarray, table: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The row statistic of `table["metric"]` once for each third of confidence, with the rows of the others at 0."""
    part = np.searchsorted(table["edges"], confidence, side="right")
    statistic = statistics[table["metric"]]
    return {f"{table['metric']}_{name}": statistic * (part == i)[:, None] for i, name in enumerate(PARTS)}


def confidence_words(confidence: float, table: Mapping[str, Any] | None) -> str:
    """A confidence in words that promise no more than what was measured.

    Args:
        table: of `fit_confidence`; None where nothing was measured, or answers are made in another way.
    """
    gave = f"The model gave its words a mean probability of {confidence:.2f}."
    if table is None:
        return f"{gave} That is about the wording: what is wrong in fact can be worded with confidence."
    part = int(np.searchsorted(table["edges"], confidence, side="right"))
    value, (low, high), mean = table["agreement"][part], table["ci95"][part], table["all"]
    third = f"(the {('lowest', 'middle', 'highest')[part]} third of {table['rows']})"
    sure = f"{gave} In its evaluation, "
    if table["metric"] == "generated_accuracy":
        right = f"about {100 * value:.0f} ({100 * low:.0f} to {100 * high:.0f}) were right, of all {100 * mean:.0f}."
        return f"{sure}of 100 answers to exam questions that sure {third} {right}"
    than = "more than" if low > mean else "less than" if high < mean else "about as much as"
    worth = f"(ROUGE-L {value:.2f} [{low:.2f}, {high:.2f}], all {mean:.2f}; 1 is word for word)"
    return (
        f"{sure}answers that sure {third} agreed with the experts' {than} all did {worth}. What is wrong in fact can "
        "be worded with confidence."
    )
