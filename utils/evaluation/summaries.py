"""The outputs of a summarizer for each row: the likelihood of the reference and its own summary."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.chunking import source_ids
from utils.generation import generate_answers, score_answers, score_summaries
from utils.words import SENTENCES


def summarize(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chunks: list[list[str]],
    task: Mapping[str, Any],
    batch_size: int,
    name: str | None,
) -> tuple[list[str], list[bool]]:
    """Summarize each row.

    Args:
        model: a decoder, or an encoder-decoder prepared by `set_generation`.
        tokenizer: the model's tokenizer.
        chunks: inputs of each row, from `cut_sources`; the summaries of several chunks are joined.
        task: `stop`, the token that ends a summary, `generation` and, of a decoder, `chat`.
        batch_size: chunks per batch.
        name: label of the progress bar; None shows none.

    Returns:
        the summaries, and whether every chunk's summary ended with the stop token.
    """
    ids = source_ids(tokenizer, [text for own in chunks for text in own], task.get("chat"))
    found = generate_answers(model, tokenizer, ids, task["stop"], task["generation"], batch_size, name)
    results = iter(zip(*found, strict=True))
    rows = [[next(results) for _ in own] for own in chunks]
    texts = [own[0][0] if len(own) == 1 else join_summaries([text for text, _ in own]) for own in rows]
    return texts, [all(finished for _, finished in own) for own in rows]


def predict_summaries(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Mapping[str, Any],
    task: Mapping[str, Any],
    batch_size: int,
    name: str,
    with_texts: bool = True,
) -> dict[str, Any]:
    """Score the references of rows, and summarize the rows.

    Args:
        model: a decoder, or an encoder-decoder prepared by `set_generation`.
        tokenizer: the model's tokenizer.
        pairs: `chunks` of each row, and `tokens`, from `encode_pairs`.
        task: as for `summarize`.
        batch_size: maximum chunks per forward pass.
        name: label of the progress bars.
        with_texts: whether to generate summaries.

    Returns:
        `nll` (nats, summed over the reference tokens of all chunks) and `tokens` (their number), arrays [rows]; with
        texts also the lists `prediction` and `finished` (every chunk's summary ended with the stop token).
    """
    texts: dict[str, list] = {}
    if with_texts:
        written = summarize(model, tokenizer, pairs["chunks"], task, batch_size, f"{name}: summaries")
        texts = dict(zip(("prediction", "finished"), written, strict=True))
    pad_id = tokenizer.pad_token_id
    score = score_answers if "chat" in task else score_summaries
    own = pairs["tokens"]
    found = score(model, own["input_ids"][:], own["labels"][:], pad_id, batch_size, f"{name}: loss")
    nll, tokens = (np.bincount(own["row"], weights=values) for values in found)
    return texts | {"nll": nll, "tokens": tokens}


def join_summaries(summaries: Sequence[str]) -> str:
    """Join the summaries of a text's chunks, and drop sentences that repeat an earlier summary."""
    seen: set[str] = set()
    kept = []
    for summary in summaries:
        sentences = {" ".join(sentence.casefold().split()): sentence for sentence in SENTENCES.findall(summary)}
        kept.append("".join(sentence for key, sentence in sentences.items() if key not in seen).strip())
        seen |= sentences.keys()
    return ("\n" if any("\n" in text for text in kept) else " ").join(text for text in kept if text)
