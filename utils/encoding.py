"""Encode texts for classifiers.

A long text is truncated or split into chunks. A row's `input_ids` are its chunks concatenated; all but the last have
exactly `max_length` tokens, so `split_chunks` can separate them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from utils.arguments import LONG_TEXTS, DataArguments, UserError
from utils.control_tokens import keep_control_tokens, plain_text, special_tokens, text_ids
from utils.data.columns import Columns
from utils.heads import prepare_classifier, renew_outputs
from utils.modeling import get_quantization_config, load_base_model
from utils.positions import warn_if_longer
from utils.tokenizers import unread

if TYPE_CHECKING:
    from trl import ModelConfig  # takes a second, and serving needs none

ENSEMBLES = ("none", "prior", "linear")
BATCH = 1000  # texts that are tokenized at once


@dataclass
class EncoderArguments:
    """How an encoder reads a text, for the classification scripts."""

    text_column: list[str] = field(
        default_factory=lambda: ["text"],
        metadata={"help": "Column of the text to classify, or several, such as a pair, whose texts are joined."},
    )
    text_column_delimiter: str = field(default=" ", metadata={"help": "Text between the texts of several columns."})
    text_template: str = field(default="{text}", metadata={"help": "Text with {text} and any of `keep_columns`."})
    max_length: int = field(default=512, metadata={"help": "Maximum tokens the model reads at once."})
    long_texts: str = field(
        default="head",
        metadata={"help": "Reading of longer texts: head, head and tail, or chunks.", "choices": LONG_TEXTS},
    )
    max_chunks: int = field(
        default=8, metadata={"help": "Maximum chunks per text.", "needs": ("long_texts", ("chunks",))}
    )
    pooling: str = field(
        default="model",
        metadata={"help": "Head input: that of the model class, or the token mean.", "choices": ("model", "mean")},
    )
    dropout: float | None = field(default=None, metadata={"help": "Overrides the base model's dropout."})
    head_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of the new head."})
    ensemble: str = field(
        default="none",
        metadata={
            "help": "Add the class prior to the logits, or prior and linear model, weighted on validation rows.",
            "choices": ENSEMBLES,
        },
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without improvement."}
    )
    max_risk: float = field(default=0.05, metadata={"help": "Maximum error rate of answered rows (abstention)."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code from the model repository."})

    def __post_init__(self) -> None:
        if self.text_column_delimiter != " " and len(self.text_column) == 1:
            raise UserError("`text_column_delimiter` needs several columns as `text_column`: name them, or delete it.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"`dropout` is {self.dropout}: give a value from 0 to below 1.")
        if not 0 < self.max_risk < 1:
            raise UserError(f"`max_risk` is {self.max_risk}: give a value between 0 and 1.")


def text_columns(args: EncoderArguments, data_args: DataArguments, label: str, label_list: bool = False) -> Columns:
    """Return the columns of a data set for a classifier; the texts of several `text_column` are joined.

    Args:
        args: the text columns.
        data_args: further columns and cleaning.
        label: column of the class, which stratifies the splits.
        label_list: whether a row has a list of them.
    """
    several = len(args.text_column) > 1
    return Columns(
        input="joined_text" if several else args.text_column[0],
        parts=tuple(args.text_column) if several else (),
        delimiter=args.text_column_delimiter,
        target=label,
        label=label,
        label_list=label_list,
        kept=tuple(data_args.keep_columns or ()),
        strip_pattern=data_args.strip_pattern,
        lowercase=data_args.lowercase,
    )


def load_classifier(
    args: "ModelConfig", encoder_args: EncoderArguments, device: torch.device, labels: list[str], heads: list[str]
) -> PreTrainedModel:
    """Load an encoder with new heads, in 4 or 8 bits if requested; the heads are never quantized.

    Args:
        args: the model arguments.
        encoder_args: `pooling`, `dropout` and `trust_remote_code`.
        device: device of this process.
        labels: names of the outputs.
        heads: from `head_names`.
    """
    quantization = get_quantization_config(args, device, skip_modules=heads)
    remote_code = encoder_args.trust_remote_code
    new = [*heads, "pooler"] if encoder_args.pooling == "mean" else heads
    model = load_base_model(args, AutoModelForSequenceClassification, quantization, device, remote_code, labels, new)
    warn_if_longer(model.config, encoder_args.max_length, "`max_length`")
    renew_outputs(model, args, labels, heads, remote_code)
    return prepare_classifier(model, heads, encoder_args.pooling, encoder_args.dropout)


def encoder_settings(args: EncoderArguments, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what `task.json` says about reading a text: read differently when served, it would get other logits.

    Raises:
        UserError: the model does not support `max_length` tokens.
    """
    if not 8 <= args.max_length <= tokenizer.model_max_length:
        raise UserError(
            f"`max_length` is {args.max_length}: this model supports 8 to {tokenizer.model_max_length} tokens; for "
            "longer texts set `long_texts: chunks`."
        )
    values = {key: getattr(args, key) for key in ("max_length", "long_texts", "max_chunks", "pooling")}
    return {"text_template": keep_control_tokens(tokenizer, args.text_template)} | values


def encode_rows(
    split: Dataset, texts: list[str], labels: np.ndarray, tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any]
) -> tuple[dict[str, Any], Dataset, dict[str, Any]]:
    """Return a split as columns for the evaluation, its token ids and labels for the trainer, and counts: `cut_texts`
    and those of `unread`.

    Args:
        split: rows with `id` and `_cluster`.
        texts: the text that the model reads, one per row.
        labels: int [rows], or [rows, classes].
        tokenizer: the model's tokenizer.
        task: `max_length`, `long_texts` and `max_chunks`.
    """
    parts, cut = [], []
    for start in range(0, len(texts), BATCH):  # a token takes 8 bytes in Arrow, and 36 or more in a list
        part = slice(start, start + BATCH)
        ids, own = encode_texts(tokenizer, texts[part], task["max_length"], task["long_texts"], task["max_chunks"])
        parts.append(Dataset.from_dict({"input_ids": ids, "labels": labels[part]}))
        cut += own
    dataset = concatenate_datasets(parts)
    rows = {"id": split["id"][:], "cluster": split["_cluster"][:], "label": labels, "cut": cut}
    rows["text"] = [plain_text(text) for text in texts]
    ids_of_rows = (ids for batch in dataset.iter(BATCH) for ids in batch["input_ids"])
    return rows, dataset, {"cut_texts": sum(cut), **unread(tokenizer, texts, ids_of_rows)}


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    long_texts: str = "head",
    max_chunks: int = 8,
) -> tuple[list[list[int]], list[bool]]:
    """Tokenize texts for a classifier.

    Args:
        tokenizer: its special tokens surround each chunk.
        texts: one per row.
        max_length: tokens per chunk, including special tokens.
        long_texts: how to read longer texts. `head`: only the beginning. `head_tail`: a quarter of the tokens from the
            beginning, the rest from the end (Sun et al. 2019, How to fine-tune BERT for text classification).
            `chunks`: up to `max_chunks` chunks.
        max_chunks: maximum chunks per text.

    Returns:
        token ids of each text, with its chunks concatenated; and whether it was cut.
    """
    before, after = special_tokens(tokenizer)
    room = max_length - len(before) - len(after)
    encoded = text_ids(tokenizer, texts, add_special_tokens=False)
    limit = room * (max_chunks if long_texts == "chunks" else 1)
    rows = []
    for ids in encoded:
        if long_texts == "head_tail" and len(ids) > room:
            ids = ids[: room // 4] + ids[len(ids) - (room - room // 4) :]
        pieces = [ids[start : start + room] for start in range(0, min(len(ids), limit), room)] or [[]]
        rows.append([token for piece in pieces for token in [*before, *piece, *after]])
    return rows, [len(ids) > limit for ids in encoded]


@dataclass
class ChunkCollator:
    """Collate rows of `input_ids` and `labels` into a padded batch of chunks: `input_ids` and `attention_mask`
    [chunks, longest chunk], `labels` [rows] and, if any row has several chunks, `chunk_counts` [rows] for
    `pool_chunks`."""

    pad_token_id: int
    max_length: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        chunks = [split_chunks(row["input_ids"], self.max_length) for row in rows]
        batch = pad([chunk for own in chunks for chunk in own], self.pad_token_id)
        batch["labels"] = torch.tensor([row["labels"] for row in rows])  # [rows, classes] with several a row
        if any(len(own) > 1 for own in chunks):
            batch["chunk_counts"] = torch.tensor([len(own) for own in chunks])
        return batch


def mean_of_chunks(logits: torch.Tensor, chunk_counts: torch.Tensor) -> torch.Tensor:
    """Average the logits of each row's chunks: [chunks, classes] -> [rows, classes]."""
    row = torch.arange(len(chunk_counts), device=logits.device).repeat_interleave(chunk_counts)
    total = logits.new_zeros(len(chunk_counts), logits.shape[1]).index_add(0, row, logits)
    return total / chunk_counts.unsqueeze(1)


def pool_chunks(model: PreTrainedModel) -> None:
    """Make a classifier called with `chunk_counts` return one row of logits per text, so that the loss and the
    trainer's evaluation see texts rather than chunks."""
    waiting: list[torch.Tensor | None] = []

    def take(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        waiting.append(kwargs.pop("chunk_counts", None))
        return args, kwargs

    def pool(module: torch.nn.Module, args: tuple, output: Any) -> Any:
        counts = waiting.pop()
        if counts is not None:
            output.logits = mean_of_chunks(output.logits.float(), counts)
        return output

    model.register_forward_pre_hook(take, with_kwargs=True)
    model.register_forward_hook(pool)


def split_chunks(ids: list[int], max_length: int) -> list[list[int]]:
    """Split a row's `input_ids` into its chunks."""
    return [ids[start : start + max_length] for start in range(0, len(ids), max_length)]


def pad(chunks: list[list[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right: `input_ids` and `attention_mask`, both int [chunks, longest chunk]."""
    width = max(map(len, chunks))
    ids = torch.tensor([chunk + [pad_token_id] * (width - len(chunk)) for chunk in chunks])
    lengths = torch.tensor([len(chunk) for chunk in chunks])
    return {"input_ids": ids, "attention_mask": (torch.arange(width) < lengths[:, None]).long()}
