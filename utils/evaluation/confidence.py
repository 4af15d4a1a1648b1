"""The confidence of a generated answer and how well it predicts the score, measured on validation and test answers.

Confidence is the geometric mean of the probabilities that the model gave to the tokens of its answer. It is about the
wording. How well it predicts agreement with the experts differs from run to run, so every run measures it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.generation import score_answers
from utils.metrics.intervals import Clusters, evaluate_statistics
from utils.prompts import tokenize_pairs, truncate_pairs

MAX_ROWS = 300  # validation answers to generate: 100 in each third give intervals of about 0.08
MIN_ROWS = 30  # 10 in each third: with fewer, an interval is meaningless
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
    """Return the geometric mean of the probabilities that a model gives to the tokens of its answers, float [rows].

    Args:
        model: on its device.
        tokenizer: of that model.
        task: the content of `task.json`.
        prompts: whole prompts, as `build_prompt` returns them.
        answers: as generated.
        finished: whether each answer was finished, not cut off; if so, the token that ends it counts.
        batch_size: maximum rows per forward pass.
        name: name of the progress bar; None shows none.
    """
    ids, tokens = tokenize_pairs(tokenizer, prompts, list(answers), task["chat"])
    ids, _, _ = truncate_pairs(ids, None, task["max_length"])
    tokens = [t if end or len(t) == 1 else t[:-1] for t, end in zip(tokens, finished, strict=True)]
    nll, counts = score_answers(model, ids, tokens, tokenizer.pad_token_id, batch_size, name)
    return np.exp(-nll / counts)


def fit_confidence(
    statistics: Mapping[str, np.ndarray], confidence: np.ndarray, metric: str, clusters: Clusters
) -> dict[str, Any] | None:
    """Measure on validation answers the score in each third of confidence.

    Args:
        statistics: row statistics of the answers, including `metric`.
        confidence: from `answer_confidence`, float [rows].
        metric: `rougeL`, the agreement with the expert's answer, or `generated_accuracy`, whether the letter is right.
        clusters: cluster id of each row, for the intervals.

    Returns:
        for `task.json`: `metric`, `rows`, the mean score of `all` rows, the two `edges` of confidence between the
        thirds, and for each third its mean score as `agreement` and its interval as `ci95`; both are NaN and None for
        a third without rows. None with fewer than `MIN_ROWS` rows.
    """
    rows = len(confidence)
    if rows < MIN_ROWS:
        return None
    table = {"metric": metric, "rows": rows, "edges": np.quantile(confidence, (1 / 3, 2 / 3)).tolist()}
    found = evaluate_statistics(by_confidence(statistics, confidence, table), clusters)
    parts = [f"{metric}_{part}" for part in PARTS]
    table["all"] = float(statistics[metric][:, 0].mean())
    table["agreement"] = [found[part] for part in parts]
    table["ci95"] = [found[f"{part}_ci95"] for part in parts]
    return table


def by_confidence(
    statistics: Mapping[str, np.ndarray], confidence: np.ndarray, table: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the row statistic of `table["metric"]` for each third of confidence, with 0 in the rows of the others."""
    part = np.searchsorted(table["edges"], confidence, side="right")
    statistic = statistics[table["metric"]]
    return {f"{table['metric']}_{name}": statistic * (part == i)[:, None] for i, name in enumerate(PARTS)}


def confidence_words(confidence: float, table: Mapping[str, Any] | None) -> str:
    """Describe a confidence without promising more than was measured.

    Args:
        confidence: of an answer, from `answer_confidence`.
        table: from `fit_confidence`; None if nothing was measured, or if the answer was generated in another way.
    """
    probability = f"The model gave its words a mean probability of {confidence:.2f}."
    part = int(np.searchsorted(table["edges"], confidence, side="right")) if table else 0
    if table is None or table["ci95"][part] is None:  # no validation answer was in this third
        return f"{probability} This is about the wording: a confident answer can be factually wrong."
    value, (low, high), mean = table["agreement"][part], table["ci95"][part], table["all"]
    third = f"answers with such a confidence (the {('lowest', 'middle', 'highest')[part]} third of {table['rows']})"
    if table["metric"] == "generated_accuracy":
        return (
            f"{probability} In the evaluation on exam questions, {third} were right in about {100 * value:.0f}% of "
            f"cases ({100 * low:.0f}% to {100 * high:.0f}%), and all answers in {100 * mean:.0f}%."
        )
    compared = "more than" if low > mean else "less than" if high < mean else "about as much as"
    return (
        f"{probability} In the evaluation, {third} agreed with the experts' answers {compared} the average answer: "
        f"ROUGE-L {value:.2f} [{low:.2f}, {high:.2f}], average {mean:.2f}; 1 is word for word. A confident answer can "
        "be factually wrong."
    )
