"""Support for summarizers, encoder-decoders and decoders: limits of the model, source and summary pairs, generation,
and a loss per token."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from sacrebleu import corpus_bleu
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    EvalPrediction,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
)

from utils.arguments import UserError
from utils.chat import answer_delimiters, tokenize_pairs
from utils.chunking import cut_sources, source_prompts, split_summary
from utils.control_tokens import plain_text, special_tokens, text_ids
from utils.modeling import architecture, load_base_model, load_config
from utils.overlap import choose_tokenizers, rouge_scorer, split_lines
from utils.positions import check_positions, empty_model, position_limit, warn_if_longer

if TYPE_CHECKING:
    from trl import ModelConfig  # takes a second, and serving needs none

OVERFLOWS = ("t5", "mt5", "umt5", "longt5", "switch_transformers")  # activations exceed the range of float16
BATCH = 1000  # rows that are tokenized at once
TRAINING_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum", "bleu")


def load_seq2seq_config(args: "ModelConfig", fp16: bool, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Load the model's configuration before any work on the data.

    Raises:
        UserError: the model cannot be loaded, writes no text, or is a T5 that `fp16` or `dtype` would compute in
            float16.
    """
    config = load_config(args, trust_remote_code)
    name = f"`model_name_or_path` {args.model_name_or_path} ({config.model_type})"
    if architecture(config) in ("encoder", None):
        raise UserError(f"{name} writes no text: choose T5, BART or a decoder, or use run_classification.py.")
    if (fp16 or args.dtype == "float16") and config.model_type in OVERFLOWS:
        raise UserError(
            f"{name} overflows in float16: its loss becomes 0 or nan (transformers#23918). Set `bf16: true`, "
            "`fp16: false`, and no `dtype: float16`."
        )
    return config


def load_for_generation(
    args: "ModelConfig",
    quantization: BitsAndBytesConfig | None,
    device: torch.device,
    tokenizer: PreTrainedTokenizerBase,
    task: Mapping[str, Any],
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a model as `load_base_model` does, and an encoder-decoder with `stop` and `generation` of `task.json`."""
    if "chat" in task:
        return load_base_model(args, AutoModelForCausalLM, quantization, device, trust_remote_code)
    model = load_base_model(args, AutoModelForSeq2SeqLM, quantization, device, trust_remote_code)
    set_generation(model, tokenizer, task["stop"], task["generation"])
    return model


def set_generation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: str, generation: Mapping[str, Any]
) -> None:
    """Replace an encoder-decoder's generation defaults with `generation`, keeping only its special tokens. A base
    model's own settings (BART-CNN: `min_length: 56`, a forced end token) would otherwise be merged into every call."""
    own = model.generation_config
    model.generation_config = GenerationConfig(
        **with_max_length(generation),
        eos_token_id=tokenizer.convert_tokens_to_ids(stop),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        forced_bos_token_id=own.forced_bos_token_id,  # the language token of mBART
    )


def with_max_length(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return `max_length`, which counts the decoder start token, instead of `max_new_tokens`: `Seq2SeqTrainer` fills
    in the default of whichever is missing, and then both are set."""
    values = {key: value for key, value in generation.items() if key != "max_new_tokens"}
    return values | {"max_length": generation["max_new_tokens"] + 1}


def decoder_settings(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    text_template: str,
    no_repeat_ngram_size: int,
    predict_with_generate: bool,
) -> dict[str, Any]:
    """Return `stop`, the token that ends a summary, and of a decoder `chat`, whether it has a chat template.

    Raises:
        UserError: a decoder has neither a chat template nor a `text_template`, or cannot do what another key asks for.
    """
    if architecture(config) == "encoder-decoder":
        return {"stop": end_token(tokenizer)}
    chat = tokenizer.chat_template is not None
    if not chat and text_template == "{text}":
        raise UserError(
            "`text_template` is {text}, and the model has no chat template: give the full prompt, for example "
            'text_template: "Dialogue: {text}\\n\\nNote:".'
        )
    if no_repeat_ngram_size:  # for a decoder, the text itself is what was written before
        raise UserError("`no_repeat_ngram_size` would keep a decoder from repeating words of the text: delete it.")
    if predict_with_generate:  # from inputs that hold the summary
        raise UserError("`predict_with_generate` is for encoder-decoders: delete it; the loss chooses the checkpoint.")
    return {"chat": chat, "stop": answer_delimiters(tokenizer, chat)[1]}


def check_lengths(config: PreTrainedConfig, trust_remote_code: bool = False, **lengths: int) -> None:
    """Raise a UserError if `max_source_length`, `max_target_length` or `max_new_tokens` exceeds the model's positions,
    which of a decoder source and summary share. T5 uses relative positions and has no limit."""
    source = "max_source_length"
    if not config.is_encoder_decoder:
        for key in lengths.keys() - {source}:
            check_positions(config, trust_remote_code, {source: lengths[source], key: lengths[key]})
    model = empty_model(config, trust_remote_code)
    for key, length in lengths.items():
        side = ("encoder" if key == source else "decoder") if config.is_encoder_decoder else ""
        limit = position_limit(model, side) if model else None
        least = 8 if key == source else 2
        if length < least or (limit and length > limit):
            allowed = f"{least} to {limit}" if limit else f"{least} or more"
            longer = "; for longer texts set `long_texts: chunks`" if key == source else ""
            raise UserError(f"`{key}` is {length}: this model supports {allowed} tokens{longer}.")
        warn_if_longer(config, length, f"`{key}`")


def end_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token that ends a text and hence a summary, such as </s> (T5) or [SEP] (BERT)."""
    _, ends = special_tokens(tokenizer)
    if not ends:
        raise UserError("`model_name_or_path`: its tokenizer adds no token at the end of a text: choose another.")
    return str(tokenizer.convert_ids_to_tokens(ends[-1]))


def check_seq2seq_training(args: Seq2SeqTrainingArguments) -> None:
    """Raise a UserError for a metric that evaluations during training do not compute."""
    best = (args.metric_for_best_model or "loss").removeprefix("eval_")
    known = ("loss", *(TRAINING_METRICS if args.predict_with_generate else ()))
    if best not in known:
        raise UserError(
            f"`metric_for_best_model` is {best}: evaluations during training compute {', '.join(known)}"
            + ("." if args.predict_with_generate else "; for ROUGE set `predict_with_generate: true`.")
        )


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    summaries: Sequence[str],
    task: Mapping[str, Any],
) -> tuple[list[list[str]], list[int], Dataset, int]:
    """Fill and cut the sources of rows, and tokenize them with their summaries.

    With several chunks, each sentence of the summary goes to the chunk that contains most of its words, and a chunk
    without a sentence is dropped (Gidiotis and Tsoumakas 2020, A divide-and-conquer approach to the summarization of
    long documents).

    Args:
        tokenizer: the model's tokenizer.
        rows: as for `cut_sources`.
        summaries: one per row.
        task: as for `cut_sources`, and `max_target_length`, the maximum tokens of a summary with its end token.

    Returns:
        chunks and lost tokens of each row, from `cut_sources`; a dataset with one row per chunk that has a part of the
        summary: `input_ids`, `labels` and `row`; and the number of parts that were cut.
    """
    chunks: list[list[str]] = []
    lost: list[int] = []
    parts, cut = [], 0
    for start in range(0, len(rows), BATCH):  # a token takes 8 bytes in Arrow, and 36 or more in a list
        own, missing = cut_sources(tokenizer, rows[start : start + BATCH], task)
        columns, n = _tokenize(tokenizer, own, summaries[start : start + BATCH], task)
        columns["row"] = [start + row for row in columns["row"]]
        parts.append(Dataset.from_dict(columns))
        chunks += own
        lost += missing
        cut += n
    return chunks, lost, concatenate_datasets(parts), cut


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, chunks: list[list[str]], summaries: Sequence[str], task: Mapping[str, Any]
) -> tuple[dict[str, list], int]:
    """Return the columns of `encode_pairs` for its chunks, and the number of parts that were cut."""
    parts = [
        (row, chunk, part)
        for row, (own, summary) in enumerate(zip(chunks, summaries, strict=True))
        for chunk, part in zip(own, split_summary(summary, own), strict=True)
        if part
    ]
    rows, texts, targets = zip(*parts, strict=True)
    chat, most = task.get("chat"), task["max_target_length"]
    if chat is None:  # an encoder-decoder
        inputs = text_ids(tokenizer, texts)
        labels = text_ids(tokenizer, [plain_text(target) for target in targets], target=True)
    else:
        inputs, labels = tokenize_pairs(tokenizer, source_prompts(tokenizer, texts, chat), list(targets), chat)
    short = [ids if len(ids) <= most else [*ids[: most - 1], ids[-1]] for ids in labels]
    cut = sum(len(a) < len(b) for a, b in zip(short, labels, strict=True))
    return {"input_ids": inputs, "labels": short, "row": list(rows)}, cut


def training_rows(tokens: Dataset, chat: bool | None) -> Dataset:
    """Return the rows of `encode_pairs` for the trainer. A decoder reads source and summary in one; its labels are
    what each position predicts: the next token of the summary, and -100 within the source."""

    def join(batch: dict[str, list]) -> dict[str, list]:
        both = list(zip(batch["input_ids"], batch["labels"], strict=True))
        labels = [[-100] * (len(source) - 1) + summary for source, summary in both]
        return {"input_ids": [(source + summary)[:-1] for source, summary in both], "labels": labels}

    if chat is None:
        return tokens.remove_columns("row")
    return tokens.map(join, batched=True, remove_columns="row", keep_in_memory=True)  # no copy of notes on the disk


class DecoderCollator(DataCollatorForSeq2Seq):
    """Collates rows of a decoder as its parent does, and asks for logits only at positions where a row has a label:
    those of the source would take memory as wide as the vocabulary, and a fifth of a step of a small model."""

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> dict[str, torch.Tensor]:
        batch = super().__call__(features, return_tensors)
        kept = (batch["labels"] != -100).any(dim=0).nonzero().squeeze(1)
        return {**batch, "labels": batch["labels"][:, kept], "logits_to_keep": kept}


def token_loss(label_smoothing: float) -> Callable[..., torch.Tensor]:
    """Return a loss for `Trainer(compute_loss_func=...)`: the cross-entropy summed over summary tokens and divided by
    the tokens of the full optimizer step, `num_items_in_batch`. Every token then counts the same for any gradient
    accumulation and number of processes; T5's own loss scales with both (transformers#47688).

    Args:
        label_smoothing: probability mass spread evenly over the vocabulary (Szegedy et al. 2016).
    """

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
        labels = labels.flatten()
        kept = (labels != -100).nonzero().squeeze(1)  # skip the vocabulary-wide logits of padding
        logits = outputs.logits.flatten(0, 1).index_select(0, kept).float()
        total = nn.functional.cross_entropy(logits, labels[kept], reduction="sum", label_smoothing=label_smoothing)
        return total / (len(kept) if num_items_in_batch is None else num_items_in_batch)

    return loss


def generation_metrics(tokenizer: PreTrainedTokenizerBase, use_stemmer: bool) -> Callable[[EvalPrediction], dict]:
    """Return `Trainer(compute_metrics=...)` for evaluations with `predict_with_generate`: mean F1 of each ROUGE
    (rouge-score) and corpus BLEU in 0..1 (sacrebleu)."""

    def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
        generated, labels = np.asarray(evaluation.predictions), np.asarray(evaluation.label_ids)
        ids = [np.where(i < 0, tokenizer.pad_token_id, i) for i in (generated, labels)]
        predictions, references = (tokenizer.batch_decode(i, skip_special_tokens=True) for i in ids)
        tokenizers = choose_tokenizers(references)  # the same references at every evaluation, so the same choice
        scorer = rouge_scorer(TRAINING_METRICS[:-1], tokenizers, use_stemmer)
        lines = [[split_lines(text, tokenizers) for text in texts] for texts in (references, predictions)]
        scores = [scorer.score(reference, text) for reference, text in zip(*lines, strict=True)]
        means = {name: float(np.mean([row[name].fmeasure for row in scores])) for name in TRAINING_METRICS[:-1]}
        return means | {"bleu": corpus_bleu(predictions, [references], tokenize=tokenizers.bleu).score / 100}

    return compute_metrics
