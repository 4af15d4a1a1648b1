"""Generate answers to the questions of several clients in one batch: each row ends, streams and returns on its own."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from utils.generation import contiguous_outputs


class Row(NamedTuple):
    """A row of a batch.

    prompt: token ids.
    max_new_tokens: maximum number of answer tokens.
    temperature: sampling temperature; None decodes greedily.
    on_text: called with the answer so far whenever it grows; never during beam search.
    stopped: whether the answer is of no more use, asked after each token.
    """

    prompt: list[int]
    max_new_tokens: int
    temperature: float | None
    on_text: Callable[[str], None] | None
    stopped: Callable[[], bool]


class Client(NamedTuple):
    """Whether somebody still waits for an answer.

    deadline: value of `time.monotonic()` from which on the request has its 504.
    has_left: whether the client has closed its connection.
    """

    deadline: float
    has_left: Callable[[], bool]

    def is_gone(self) -> bool:
        return time.monotonic() > self.deadline or self.has_left()


@torch.inference_mode()
def decode_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    stop_ids: list[int],
    generation: dict[str, Any],
    deliver: Callable[[int, str, bool], None],
) -> None:
    """Generate an answer for each row.

    Args:
        model: a causal language model, on its device.
        tokenizer: the model's tokenizer.
        rows: one batch.
        stop_ids: tokens that end an answer.
        generation: `GenerationConfig` values that all rows share; `max_new_tokens` and `temperature` are those of the
            rows.
        deliver: called with the index of a row, its answer without special tokens, and whether the answer ended with a
            stop token. Without beam search it is called as soon as the row ends, while the others go on.
    """
    width = max(len(row.prompt) for row in rows)
    pad_id = tokenizer.pad_token_id
    ids = torch.tensor([[pad_id] * (width - len(row.prompt)) + row.prompt for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=model.device)
    samples = any(row.temperature is not None for row in rows)
    values = {key: value for key, value in generation.items() if key not in ("max_new_tokens", "temperature")}
    values |= {"do_sample": samples, "max_new_tokens": max(row.max_new_tokens for row in rows)}
    config = GenerationConfig(**values, eos_token_id=stop_ids, pad_token_id=pad_id)
    beams = values.get("num_beams", 1) > 1
    watch = _Watch(tokenizer, rows, width, set(stop_ids), deliver, beams)
    with contiguous_outputs(model):
        output = model.generate(  # type: ignore[operator]  # PreTrainedModel does not declare GenerationMixin
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([watch]),
            logits_processor=LogitsProcessorList([_Temperatures(rows, model.device)] if samples else []),
        )
    if beams:
        for i, tokens in enumerate(output[:, width:].tolist()):
            watch.end(i, tokens)


class _Temperatures(LogitsProcessor):
    """Divide the scores of each row by its own temperature; a greedy row keeps only its most likely token.

    It runs after top-k, which temperature does not change. Rows share a batch only without other filters.
    """

    def __init__(self, rows: Sequence[Row], device: torch.device) -> None:
        self.greedy = torch.tensor([row.temperature is None for row in rows], device=device)
        self.divisor = torch.tensor([row.temperature or 1.0 for row in rows], device=device)[:, None]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        best = scores.argmax(dim=-1, keepdim=True)
        only_best = torch.full_like(scores, -torch.inf).scatter(1, best, 0.0)
        return torch.where(self.greedy[:, None], only_best, scores / self.divisor)  # type: ignore[return-value]


class _Watch(StoppingCriteria):
    """End each row at its stop token, at its own length or when its client is gone; stream and deliver it."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Row],
        width: int,
        stop_ids: set[int],
        deliver: Callable[[int, str, bool], None],
        beams: bool,
    ) -> None:
        self.tokenizer, self.rows, self.width, self.stop_ids = tokenizer, rows, width, stop_ids
        self.deliver, self.beams = deliver, beams
        self.ended = [False] * len(rows)
        self.left = [False] * len(rows)  # of beam search: its padding may look like a stop token
        self.shown = [""] * len(rows)

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        if self.beams:  # the rows of a question are its beams, which `generate` still compares
            self.left = [left or row.stopped() for left, row in zip(self.left, self.rows, strict=True)]
            beams = input_ids.shape[0] // len(self.rows)
            left = torch.tensor(self.left, device=input_ids.device)
            return left.repeat_interleave(beams)  # type: ignore[return-value]
        for i, tokens in enumerate(input_ids[:, self.width :].tolist()):
            row = self.rows[i]
            if self.ended[i]:
                continue
            if tokens[-1] in self.stop_ids or len(tokens) >= row.max_new_tokens or row.stopped():
                self.end(i, tokens)
            elif row.on_text:
                text = self._decode(tokens)
                if text != self.shown[i] and not text.endswith("\ufffd"):  # half of a character
                    self.shown[i] = text
                    row.on_text(text)
        return torch.tensor(self.ended, device=input_ids.device)  # type: ignore[return-value]

    def end(self, i: int, tokens: list[int]) -> None:
        """Deliver row `i`, cut at its first stop token."""
        self.ended[i] = True
        at = next((k for k, token in enumerate(tokens) if token in self.stop_ids), None)
        text, on_text = self._decode(tokens[:at]), self.rows[i].on_text
        if on_text and not self.beams and text != self.shown[i]:
            on_text(text)
        self.deliver(i, text, at is not None and not self.left[i])

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
