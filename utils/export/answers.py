"""What a model answers to the stored test rows, and its metrics: the same for a trained model and an export."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.encoding import encode_texts
from utils.evaluation import classification, hierarchical, qa, summarization
from utils.evaluation.answers import predict_answers, tokenize_turns
from utils.evaluation.ensemble import ensemble_logits, linear_scores
from utils.evaluation.summaries import predict_summaries
from utils.generation import truncate_pairs
from utils.hierarchy import LabelTree, expand_predictions, sum_to_parents
from utils.logits import predict_logits
from utils.metrics.languages import is_english
from utils.metrics.statistics import accuracy_statistics, loss_statistics, text_statistics
from utils.overlap import choose_tokenizers
from utils.runtimes.llama_cpp import LlamaCpp
from utils.seq2seq import encode_pairs
from utils.task import template_names

FIRST_TOKENS = 32  # of an answer, which are compared one by one: after the first that differs, others follow
LOGITS = 2**26  # values of a text model to compare, 256 MB

Outputs = dict[str, Any]


def answer_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Mapping[str, Any],
    task: Mapping[str, Any],
    batch_size: int,
    linear: dict[str, np.ndarray] | None = None,
) -> Outputs:
    """Answer the test rows of a run.

    Args:
        model: of the run or of an export, on its device.
        tokenizer: of the same folder.
        rows: from `stored_rows`.
        task: the content of `task.json`.
        batch_size: maximum rows per forward pass.
        linear: weights of the linear model of an ensemble.

    Returns:
        the outputs that the evaluation of the task reads; `answers`, one comparable value per row; and `logits` of the
        model itself: float [rows, classes], or of a model that writes texts [values], those of the first tokens of
        the experts' answers.
    """
    if task["task"] == "qa":
        outputs = predict_answers(model, tokenizer, rows, task, batch_size, "answers", len(rows["turns"]), False)
        _, prompts, references, _ = tokenize_turns(tokenizer, task, rows["turns"], list(rows["reference"]))
        logits = _first_logits(model, _decoder_inputs(prompts, references))
        return outputs | _texts(tokenizer, outputs["prediction"]) | {"logits": logits}
    if task["task"] == "summarization":
        column, others = task["columns"]["text"], dict.fromkeys(template_names(task), "")  # which are not stored
        table = [others | {column: text} for text in rows["text"]]
        chunks, _, tokens, _ = encode_pairs(tokenizer, table, rows["reference"], task)
        ids, labels = tokens["input_ids"][:], tokens["labels"][:]
        found = {"chunks": chunks, "tokens": tokens}
        outputs = predict_summaries(model, tokenizer, found, task, batch_size, "summaries")
        inputs = _decoder_inputs(ids, labels)
        if "chat" not in task:  # an encoder-decoder
            start, pairs = model.generation_config.decoder_start_token_id, zip(ids, labels, strict=True)
            inputs = [({"input_ids": i, "decoder_input_ids": [start, *own[:-1]]}, len(own)) for i, own in pairs]
        return outputs | _texts(tokenizer, outputs["prediction"]) | {"logits": _first_logits(model, inputs)}
    ids, _ = encode_texts(tokenizer, rows["text"], task["max_length"], task["long_texts"], task["max_chunks"])
    pad = tokenizer.pad_token_id
    logits = predict_logits(model, ids, pad, task["max_length"], batch_size, name="texts")
    outputs = {"logits": logits}
    if linear:
        outputs["linear_scores"] = linear_scores(linear, rows["text"])
    if "tree" in task:
        tree = LabelTree.from_dict(task["tree"])
        scores = ensemble_logits(hierarchical.leaf_outputs(outputs, tree), task)
        log_p = sum_to_parents(scores / task["temperature"], tree)
        answers = expand_predictions(log_p, tree)[:, -1].tolist()
        return {"logits": logits, "log_p": log_p, "answers": answers}
    scores = ensemble_logits(outputs, task)
    return {"logits": logits, "scores": scores, "answers": scores.argmax(axis=1).tolist()}


def answer_prompts(
    model: LlamaCpp,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    rows: Mapping[str, Any],
    task: Mapping[str, Any],
) -> Outputs:
    """Answer the test rows with llama.cpp: as `answer_rows`, without likelihoods and logits, which it does not give.

    It reads the text of a prompt with its own tokenizer, as in Ollama; one that is too long for the model is given as
    the token ids that are left of it.

    Raises:
        UserError: its tokenizer reads a prompt otherwise than that of the run.
    """
    whole = tokenize_turns(tokenizer, {**task, "max_length": sys.maxsize}, rows["turns"], None)[1]
    short, _, _ = truncate_pairs(whole, None, task["max_length"])
    answers, differ = [], 0
    for prompt, ids, own in zip(prompts, whole, short, strict=True):
        answers.append(model.answer(prompt if ids == own else own, task["generation"]))
        differ += answers[-1].prompt_tokens != len(own)
    if differ:
        raise UserError(f"llama.cpp splits {differ} of {len(answers)} prompts into other tokens: choose merged.")
    texts = [answer.text for answer in answers]
    return _texts(tokenizer, texts) | {"prediction": texts, "finished": [answer.finished for answer in answers]}


def _texts(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Outputs:
    """Return texts to compare, and their first tokens."""
    first = [ids[:FIRST_TOKENS] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return {"answers": texts, "first_tokens": first}


def _decoder_inputs(prompts: list[list[int]], answers: list[list[int]]) -> list[tuple[dict[str, list[int]], int]]:
    """Return what `_first_logits` reads of a decoder-only model."""
    return [({"input_ids": ids + own[:-1]}, len(own)) for ids, own in zip(prompts, answers, strict=True)]


@torch.inference_mode()
def _first_logits(model: PreTrainedModel, inputs: list[tuple[dict[str, list[int]], int]]) -> np.ndarray:
    """Return the logits of the first tokens of each answer, as one float array of equal values per row at most
    `LOGITS`: a row has the token ids that a model reads, and the number of answer tokens at their end."""
    found = []
    room = LOGITS // len(inputs)
    for ids, count in inputs:
        tensors = {name: torch.tensor([values], device=model.device) for name, values in ids.items()}
        logits = model(**tensors, use_cache=False).logits[0, -count:].float()
        found.append(logits[: max(1, room // logits.shape[-1])].flatten().cpu().numpy())
    return np.concatenate(found)


def measure(
    outputs: Outputs, rows: Mapping[str, Any], train: Mapping[str, Any], task: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the row statistics of answers, as the evaluation of the run has them.

    Args:
        outputs: from `answer_rows`.
        rows, train: from `stored_rows`.
        task: the content of `task.json`.
    """
    if task["task"] == "qa":
        tokenizers = choose_tokenizers(rows["reference"])
        statistics: dict[str, Any] = text_statistics(outputs["prediction"], rows["reference"], tokenizers=tokenizers)
        statistics |= accuracy_statistics(outputs["finished"], "finished")
        if "nll" in outputs:
            statistics |= loss_statistics(outputs["nll"], outputs["tokens"])
        if "options" in rows:
            statistics |= qa.answer_statistics(outputs, dict(rows), tokenizers)[0]
        return statistics
    if task["task"] == "summarization":
        tokenizers = choose_tokenizers(rows["reference"])
        english = is_english([task.get("data", {}).get("language") or "en"], tokenizers.rouge)
        return summarization.row_statistics(outputs, dict(rows), False, tokenizers, english)
    if "tree" in task:
        return hierarchical.row_statistics(outputs["log_p"], rows["label"], LabelTree.from_dict(task["tree"]))
    temperature, counts = task["temperature"], train["class_counts"]
    return classification.row_statistics(outputs["scores"], rows["label"], temperature, counts, dict(task))
