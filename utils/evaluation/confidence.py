"""The confidence of a generated answer and how well it predicts the score, measured on validation and test answers.

Confidence is the geometric mean of the probabilities that the model gave to the tokens of its answer, times the share
of the answer that is no repetition: each turn of a loop is more probable than the last. It is about the wording. How
well it predicts agreement with the experts differs from run to run, so every run measures it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.chat import tokenize_pairs
from utils.data.splits import MIN_CLUSTERS
from utils.generation import score_answers, truncate_pairs
from utils.hierarchy import LabelTree, expand_predictions
from utils.metrics.intervals import Clusters, evaluate_statistics, jackknife, t_interval
from utils.metrics.statistics import repetition

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
    """Return the geometric mean of the probabilities that a model gives to the tokens of its answers, times 1 - the
    `repetition` of each answer, float [rows].

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
    return np.array([lower_repeated(p, answer) for p, answer in zip(np.exp(-nll / counts), answers, strict=True)])


def lower_repeated(probability: float, answer: str) -> float:
    """Return a mean probability of tokens times the share of the answer's 4-grams that did not occur before in it."""
    return float(probability * (1 - repetition(answer)))


def in_turns(rows: Mapping[str, Sequence[Any]], seed: int) -> dict[str, list[Any]]:
    """Return columns of rows in a random order that takes a row of each cluster in turn, so that its first rows are a
    sample of all clusters, whatever the order of the file."""
    turns: Counter[Any] = Counter()
    places = []
    for row in np.random.default_rng(seed).permutation(len(rows["cluster"])).tolist():
        cluster = rows["cluster"][row]
        places.append((turns[cluster], row))
        turns[cluster] += 1
    order = [row for _, row in sorted(places, key=lambda place: place[0])]
    return {name: [values[row] for row in order] for name, values in rows.items()}


def fit_confidence(
    statistics: Mapping[str, np.ndarray],
    confidence: np.ndarray,
    metric: str,
    clusters: Clusters,
    words: Sequence[int],
) -> dict[str, Any] | None:
    """Measure on validation answers the score in each third of confidence.

    Args:
        statistics: row statistics of the answers, including `metric`.
        confidence: from `answer_confidence`, float [rows].
        metric: `rougeL`, the agreement with the expert's answer, or `generated_accuracy`, whether the letter is right.
        clusters: cluster id of each row, for the intervals.
        words: words of each answer.

    Returns:
        for `task.json`: `metric`, `rows`, the mean score of `all` rows, whether longer answers score higher
        (`longer_is_better`), the two `edges` of confidence between the
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
    by_length = auroc(np.asarray(words), statistics[metric][:, 0] >= table["all"])
    table["longer_is_better"] = bool(by_length > 0.5)
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


def confidence_quality(
    statistics: Mapping[str, np.ndarray],
    confidence: np.ndarray,
    words: Sequence[int],
    table: Mapping[str, Any],
    clusters: Clusters,
) -> dict[str, Any]:
    """Return how well confidence tells right answers from wrong ones, and how much better than their length.

    An answer is right if its letter is, or if its ROUGE-L is at least the mean of the validation answers.

    Args:
        statistics: row statistics of the answers, including `table["metric"]`.
        confidence: from `answer_confidence`, float [rows].
        words: words of each answer.
        table: from `fit_confidence`.
        clusters: cluster id of each row.

    Returns:
        `confidence_auroc`, the area under the ROC curve: the share of pairs of a right and a wrong answer in which the
        right one has the higher confidence; `length_auroc`, the same with the number of words; `confidence_gain`,
        their difference. Each with its interval as `..._ci95`. Empty if all answers are right or all wrong.
    """
    right = statistics[table["metric"]][:, 0] >= table["all"]
    if right.all() or not right.any() or "longer_is_better" not in table:  # which earlier versions did not write
        return {}
    length = np.asarray(words) * (1 if table["longer_is_better"] else -1)

    def gain(rows: np.ndarray) -> float:
        return auroc(confidence[rows], right[rows]) - auroc(length[rows], right[rows])

    results: dict[str, Any] = {}
    for name, function, limits in (
        ("confidence_auroc", lambda rows: auroc(confidence[rows], right[rows]), (0.0, 1.0)),
        ("length_auroc", lambda rows: auroc(length[rows], right[rows]), (0.0, 1.0)),
        ("confidence_gain", gain, (-1.0, 1.0)),
    ):
        value, left_out, units = jackknife(function, clusters)
        results[name] = value
        results[f"{name}_ci95"] = t_interval(value, left_out, units, limits) if units >= MIN_CLUSTERS else None
    return results


def auroc(scores: np.ndarray, right: np.ndarray) -> float:
    """Return the area under the ROC curve, as scikit-learn's `roc_auc_score`; NaN with right or wrong rows alone."""
    n_right = int(right.sum())
    pairs = n_right * (len(right) - n_right)
    return float((rankdata(scores)[right].sum() - n_right * (n_right + 1) / 2) / pairs) if pairs else float("nan")


def confidence_words(confidence: float, table: Mapping[str, Any] | None) -> str:
    """Describe a confidence without promising more than was measured.

    Args:
        confidence: of an answer, from `answer_confidence`.
        table: from `fit_confidence`; None if nothing was measured, or if the answer was generated in another way.
    """
    probability = f"Confidence {confidence:.2f}: the mean probability of its words, lowered where it repeats itself."
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


def abstain_to_parent(log_p: np.ndarray, tree: LabelTree, threshold: float | Sequence[float]) -> np.ndarray:
    """Return how many levels of the predicted path to show, int [rows]: down to the deepest sufficiently likely node.

    0 defers the row to a person.

    Args:
        log_p: float [rows, nodes], from `sum_to_parents`.
        tree: the labels.
        threshold: minimum probability of a node, shared or one per level; infinity is never reached.
    """
    leaf = expand_predictions(log_p, tree)[:, -1]
    enough = np.exp(np.take_along_axis(log_p, tree.ancestor_columns[leaf], axis=1)) >= np.asarray(threshold)
    return (enough * np.arange(1, tree.depth + 1)).max(axis=1)
