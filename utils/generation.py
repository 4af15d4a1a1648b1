"""Score and generate answers with causal models and encoder-decoders, batched by length, on several processes."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets.utils import are_progress_bars_disabled
from tqdm.auto import tqdm
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.seq2seq import with_max_length

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# Maximum logits (values) per forward pass while scoring. On a CPU, blocks over 32 MB go back to the system at once,
# and allocating them anew costs more than a larger batch saves.
CPU_LOGITS, GPU_LOGITS = 2**24, 2**28


def batches_by_length(
    lengths: list[int], batch_size: int, most_tokens: int | None = None, widths: list[int] | None = None
) -> list[list[int]]:
    """Group row numbers into batches of similar length, and return this process's share of the batches.

    The longest rows come first, so that a lack of memory shows in the first batch.

    Args:
        lengths: tokens per row.
        batch_size: maximum rows per batch.
        most_tokens: maximum tokens per batch, counted as rows x longest row; a single row may exceed it.
        widths: tokens per row that count towards `most_tokens`; defaults to `lengths`.
    """
    widths = lengths if widths is None else widths
    batches: list[list[int]] = []
    widest = 0
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        full = not batches or len(batches[-1]) == batch_size
        widest = max(widest, widths[row])
        if full or (most_tokens and (len(batches[-1]) + 1) * widest > most_tokens):
            batches.append([])
            widest = widths[row]
        batches[-1].append(row)
    state = PartialState()
    return batches[state.process_index :: state.num_processes]


def _in_order(results: list[tuple[int, Result]], n_rows: int) -> list[Result]:
    """Gather (row number, result) pairs from all processes, and return the results in row order."""
    gathered = dict(gather_object(results))
    return [gathered[i] for i in range(n_rows)]


def progress(batches: list[list[int]], name: str | None) -> Iterator[list[int]]:
    """Yield the batches, with a progress bar on the main process if they have a name; where `datasets` shows no bars,
    as in a log file, with a line that says how many there are and, after the first, how long they take at most."""
    shown = name is not None and PartialState().is_main_process
    if not shown or (sys.stderr.isatty() and not are_progress_bars_disabled()):
        yield from tqdm(batches, desc=name, disable=not shown)
        return
    logger.info("%s: %d batches", name, len(batches))
    start = time.monotonic()
    for i, batch in enumerate(batches):
        if i == 1 and (seconds := (time.monotonic() - start) * len(batches)) > 60:  # the longest rows come first
            logger.info("%s: at most %.0f minutes", name, seconds / 60)
        yield batch


def _pad(
    rows: list[list[int]], pad_id: int, device: torch.device, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad token ids on the right or, for causal models, on the left: ids and mask, both [rows, longest row]."""
    width = max(len(row) for row in rows)
    padding = [[pad_id] * (width - len(row)) for row in rows]
    ids = torch.tensor([fill + row if left else row + fill for row, fill in zip(rows, padding, strict=True)])
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    mask = (torch.arange(width) < lengths).long()
    return ids.to(device), (mask.flip(1) if left else mask).to(device)


def check_finite(is_finite: Any) -> None:
    """Raise a UserError for scores of a model that are not finite: whatever is made of them would be a guess."""
    if not is_finite:
        raise UserError(
            "the model computes scores that are not finite: its weights are damaged, or overflow its `dtype`, which "
            "happens to float16; set `dtype: bfloat16` or `dtype: float32`, or use another model."
        )


class FiniteScores(LogitsProcessor):
    """Checks the scores of each next token: of NaN, the search would take one token or another."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        check_finite(scores.amax(dim=-1).isfinite().all())
        return scores


@contextlib.contextmanager
def contiguous_outputs(model: PreTrainedModel) -> Iterator[None]:
    """Let the output layer read hidden states that are contiguous in memory. Those of the last positions of several
    rows are not, and a linear layer of torch on a CPU then copies its weights once per row: for 16 rows of SmolLM2
    that took a fifth of the time to read prompts of 250 tokens, and 900 MB.
    """
    head = model.get_output_embeddings()
    hooks = [head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(),))] if head else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def truncate_pairs(
    prompts: list[list[int]], answers: list[list[int]] | None, max_length: int
) -> tuple[list[list[int]], list[list[int]], dict[str, int]]:
    """Truncate rows to `max_length` tokens. A prompt that leaves no room for an answer keeps its last tokens, which
    hold the question; then the answer is cut at its end.

    Returns:
        prompts, answers (empty without answers), and the number of each that were cut: `cut_prompts`,
        `cut_answers`.
    """
    short = [prompt[-(max_length - 1) :] for prompt in prompts]
    counts = {"cut_prompts": sum(len(prompt) >= max_length for prompt in prompts), "cut_answers": 0}
    if answers is None:
        return short, [], counts
    cut = [answer[: max_length - len(prompt)] for prompt, answer in zip(short, answers, strict=True)]
    counts["cut_answers"] = sum(len(a) < len(b) for a, b in zip(cut, answers, strict=True))
    return short, cut, counts


@torch.inference_mode()
def score_answers(
    model: PreTrainedModel,
    prompts: list[list[int]],
    answers: list[list[int]],
    pad_id: int,
    batch_size: int,
    name: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the negative log-likelihood of each answer given its prompt.

    Args:
        model: a causal language model, on its device.
        prompts: token ids, one list per row.
        answers: token ids, none of them empty.
        pad_id: any token id.
        batch_size: maximum rows per forward pass; fewer if their logits would be large.
        name: label of the progress bar; None shows none.

    Returns:
        nats summed over each answer's tokens, and the number of answer tokens, both [rows].
    """
    model.eval()
    results: list[tuple[int, float]] = []
    vocabulary = model.config.get_text_config().vocab_size
    most_tokens = (CPU_LOGITS if model.device.type == "cpu" else GPU_LOGITS) // vocabulary
    lengths = [len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]
    kept = [len(answer) + 1 for answer in answers]
    for rows in progress(batches_by_length(lengths, batch_size, most_tokens, kept), name):
        ids, mask = _pad([prompts[i] + answers[i] for i in rows], pad_id, model.device, left=True)
        keep = max(kept[i] for i in rows)  # logits are as wide as the vocabulary: only those of answers
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        with contiguous_outputs(model):
            logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits
        for i, row_logits, row_ids in zip(rows, logits, ids, strict=True):
            n = len(answers[i])
            nll = torch.nn.functional.cross_entropy(row_logits[-n - 1 : -1].float(), row_ids[-n:], reduction="sum")
            results.append((i, nll.item()))
    found = np.array(_in_order(results, len(prompts)))
    check_finite(np.isfinite(found).all())
    return found, np.array([len(answer) for answer in answers])


@torch.inference_mode()
def score_summaries(
    model: PreTrainedModel,
    sources: list[list[int]],
    summaries: list[list[int]],
    pad_id: int,
    batch_size: int,
    name: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the negative log-likelihood of each summary given its source: `score_answers` for an encoder-decoder."""
    model.eval()
    results: list[tuple[int, float]] = []
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    most_tokens = (CPU_LOGITS if model.device.type == "cpu" else GPU_LOGITS) // vocabulary
    sizes = [len(summary) for summary in summaries]
    batches = batches_by_length([len(source) for source in sources], batch_size, most_tokens, sizes)
    for rows in progress(batches, name):
        ids, mask = _pad([sources[i] for i in rows], pad_id, model.device)
        labels, _ = _pad([summaries[i] for i in rows], -100, model.device)
        # Not declared by PreTrainedModel, only by its subclasses
        decoder_ids = model.prepare_decoder_input_ids_from_labels(labels=labels)  # type: ignore[operator]
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids, use_cache=False).logits
        nll = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
        results += zip(rows, nll.view_as(labels).sum(dim=1).tolist(), strict=True)
    found = np.array(_in_order(results, len(sources)))
    check_finite(np.isfinite(found).all())
    return found, np.array(sizes)


@torch.inference_mode()
def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    stop: str,
    generation: Mapping[str, Any],
    batch_size: int,
    name: str | None,
) -> tuple[list[str], list[bool]]:
    """Generate an answer to each prompt, batched by length, and return the answers in row order.

    Args:
        model: a causal language model, or an encoder-decoder prepared by `set_generation`; on its device.
        tokenizer: the model's tokenizer.
        prompts: token ids, one list per row.
        stop: the token that ends an answer, from `answer_delimiters`.
        generation: `GenerationConfig` values, e.g. `{"max_new_tokens": 256, "do_sample": False}`. The base model's own
            defaults are ignored, since those of Phi-3 and Llama sample.
        batch_size: rows per batch.
        name: label of the progress bar; None shows none.

    Returns:
        the answers without special tokens, and whether each ended with a stop token.
    """
    model.eval()
    reads = model.config.is_encoder_decoder  # its output starts with a decoder start token, not with the prompt
    stop_ids = [tokenizer.convert_tokens_to_ids(stop)]
    stop_ids += [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    values = with_max_length(generation) if reads else generation
    config = GenerationConfig(**values, eos_token_id=stop_ids, pad_token_id=tokenizer.pad_token_id)
    results: list[tuple[int, tuple[str, bool]]] = []
    for rows in progress(batches_by_length([len(p) for p in prompts], batch_size), name):
        ids, mask = _pad([prompts[i] for i in rows], tokenizer.pad_token_id, model.device, left=not reads)
        with contiguous_outputs(model):
            # PreTrainedModel does not declare GenerationMixin
            output = model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=[FiniteScores()]
            )
        output = output[:, 1 if reads else ids.shape[1] :]
        for i, tokens in zip(rows, output.tolist(), strict=True):
            end = next((k for k, token in enumerate(tokens) if token in stop_ids), None)
            text = str(tokenizer.decode(tokens[:end], skip_special_tokens=True)).strip()
            results.append((i, (text, end is not None)))
    texts, finished = zip(*_in_order(results, len(prompts)), strict=True)
    return list(texts), list(finished)
