"""The outputs of a causal language model for each row: the likelihood of the expert's answer and its own answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.chat import Turn, tokenize_pairs
from utils.evaluation.confidence import answer_confidence
from utils.evaluation.multiple_choice import score_options
from utils.generation import generate_answers, score_answers, truncate_pairs
from utils.prompts import recent_turns, render_prompt


def predict_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Mapping[str, Any],
    task: Mapping[str, Any],
    batch_size: int,
    name: str,
    most_answers: int | None = None,
    with_confidence: bool = True,
) -> dict[str, Any]:
    """Score the experts' answers, generate answers and score the options.

    Args:
        model: on its device.
        tokenizer: of that model.
        rows: column -> one value per row: `turns` (those before the answer) and `reference` (the expert's answer).
            Multiple choice adds `options`, and `shuffled_turns` and `shuffled_options` with the options in another
            order.
        task: the content of `task.json`.
        batch_size: maximum rows per forward pass.
        name: start of the progress bars' names.
        most_answers: number of rows to answer, from the first on; None answers all.
        with_confidence: whether to measure the confidence of the answers.

    Returns:
        `nll`, float [rows], in nats, summed over the tokens of the reference, and `tokens`, int [rows], their number.
        Unless `most_answers` is 0: `prediction`, a list of texts, `finished`, a list of bools (the answer was not cut
        off), and `confidence`, float [answers]. With options, if every row is answered: `option_scores` and
        `shuffled_option_scores`, as `score_options` returns them.
    """
    prompts, ids, references, _ = tokenize_turns(tokenizer, task, rows["turns"], list(rows["reference"]))
    nll, tokens = score_answers(model, ids, references, tokenizer.pad_token_id, batch_size, f"{name}: loss")
    outputs: dict[str, Any] = {"nll": nll, "tokens": tokens}
    if most_answers == 0:
        return outputs
    prompts, ids = prompts[:most_answers], ids[:most_answers]
    texts, finished = generate_answers(
        model, tokenizer, ids, task["stop"], task["generation"], batch_size, f"{name}: answers"
    )
    outputs |= {"prediction": texts, "finished": finished}
    if with_confidence:
        bar = f"{name}: confidence"
        outputs["confidence"] = answer_confidence(model, tokenizer, task, prompts, texts, finished, batch_size, bar)
    if "options" in rows and most_answers is None:
        for order in ("", "shuffled_"):
            asked = [render_prompt(tokenizer, task, turns) for turns in rows[f"{order}turns"]]
            options, bar = rows[f"{order}options"], f"{name}: {order.replace('_', ' ')}options"
            outputs[f"{order}option_scores"] = score_options(model, tokenizer, asked, options, task, batch_size, bar)
    return outputs


def tokenize_turns(
    tokenizer: PreTrainedTokenizerBase,
    task: Mapping[str, Any],
    dialogues: Sequence[Sequence[Turn]],
    answers: list[str] | None,
) -> tuple[list[str], list[list[int]], list[list[int]], dict[str, int]]:
    """Return the prompts for dialogues that wait for an answer, their token ids, those of the answers (empty without
    answers), and the counts of `truncate_pairs` with `cut_dialogues`, those without their oldest turns."""
    kept = [recent_turns(tokenizer, task, turns) for turns in dialogues]
    prompts = [render_prompt(tokenizer, task, turns) for turns in kept]
    ids, answer_ids = tokenize_pairs(tokenizer, prompts, answers, task["chat"])
    ids, answer_ids, counts = truncate_pairs(ids, None if answers is None else answer_ids, task["max_length"])
    cut = sum(len(turns) < len(whole) for turns, whole in zip(kept, dialogues, strict=True))
    return prompts, ids, answer_ids, counts | {"cut_dialogues": cut}
