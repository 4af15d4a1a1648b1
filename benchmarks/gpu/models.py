"""Models in their published shapes with random weights, a tokenizer and rows: nothing is downloaded.

Speed and memory depend on shapes and lengths, not on values. A random model's loss is about the logarithm of its
vocabulary; what the benchmark reads from loss and gradient norm is whether two ways compute the same.
"""

import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    DistilBertConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    T5Config,
)

from benchmarks.qlora_shapes import CONFIGS, PHI3_TEMPLATE

WORDS, TINY_WORDS = 28_000, 500  # below the smallest vocabulary, Bio_ClinicalBERT's 28,996
VOCABULARY = {"vocab_size": 512}
TINY = VOCABULARY | {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
TINY_DISTILBERT = VOCABULARY | {"n_layers": 2, "dim": 64, "hidden_dim": 128, "n_heads": 4}
T5_KEYS = ("vocab_size", "num_layers", "num_decoder_layers", "d_model", "d_kv", "d_ff", "num_heads")


def make_config(name: str, tiny: bool) -> PreTrainedConfig:
    """Return the published configuration of a model, or the same architecture in tiny."""
    if name == "phi3":  # the defaults are Phi-3-mini-4k's
        return Phi3Config(pad_token_id=0, bos_token_id=0, eos_token_id=0, **TINY if tiny else {})
    if name == "phi2":
        sizes = TINY if tiny else {key: getattr(CONFIGS["phi2_qlora"], key) for key in TINY}
        return PhiConfig(partial_rotary_factor=0.4, resid_pdrop=0.0 if tiny else 0.1, **sizes)
    if name == "qwen3":  # Qwen/Qwen3-4B
        sizes = {"num_hidden_layers": 36, "hidden_size": 2560, "intermediate_size": 9728, "num_attention_heads": 32}
        return Qwen3Config(
            **(TINY if tiny else sizes | {"vocab_size": 151_936}), num_key_value_heads=2 if tiny else 8,
            head_dim=16 if tiny else 128, tie_word_embeddings=True, max_position_embeddings=40_960,
        )  # fmt: skip
    if name == "distilbert":
        return DistilBertConfig(**TINY_DISTILBERT if tiny else {})
    if name == "bioclinicalbert":
        return BertConfig(**TINY if tiny else {"vocab_size": 28_996})
    sizes = (512, 2, 2, 64, 16, 128, 4) if tiny else (32_128, 12, 12, 768, 64, 2048, 12)  # google/flan-t5-base
    return T5Config(
        **dict(zip(T5_KEYS, sizes, strict=True)), feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        decoder_start_token_id=0,
    )  # fmt: skip


# Encoders without a head, as their checkpoints are: scripts add a random one
AUTO = {"flan_t5": AutoModelForSeq2SeqLM, "distilbert": AutoModel, "bioclinicalbert": AutoModel}


def model_folder(name: str, folder: Path, tiny: bool) -> Path:
    """Save a model with random weights and its tokenizer unless an earlier case has, and return the folder. Weights
    are drawn on the GPU, in bfloat16 (encoders: float32), which takes seconds."""
    path = folder / name
    if (path / "done").exists():
        return path
    torch.manual_seed(0)
    auto = AUTO.get(name, AutoModelForCausalLM)
    dtype = torch.bfloat16 if auto is AutoModelForCausalLM else torch.float32
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = auto.from_config(make_config(name, tiny), dtype=dtype)
    model.save_pretrained(path)
    make_tokenizer(TINY_WORDS if tiny else WORDS, chat=name in ("phi3", "qwen3")).save_pretrained(path)
    (path / "done").touch()
    return path


def make_tokenizer(words: int, chat: bool) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words (`w0`, `w1`, ...), so that lengths in words are lengths in tokens."""
    special = ["<|endoftext|>", "<unk>", "<|end|>", "<|user|>", "<|assistant|>"]
    vocabulary = special + [f"w{i}" for i in range(words - len(special))]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<unk>",
        model_max_length=4096,
    )  # fmt: skip
    if chat:
        tokenizer.chat_template = PHI3_TEMPLATE
    return tokenizer


def text(rng: random.Random, words: int) -> str:
    return " ".join(f"w{rng.randrange(TINY_WORDS - 5)}" for _ in range(words))


def random_length(rng: random.Random, most: int) -> int:
    """Return a length as answers on health pages have it: log-normal, median 300 and mean about 390 tokens, cut at
    1,024. `most` scales it."""
    return max(4, min(most, int(rng.lognormvariate(5.7, 0.8) * most / 1024)))


def question_rows(n_rows: int, max_length: int, choices: bool, full: bool = False) -> Dataset:
    """Return rows of a QA recipe: a short question with a long answer, or with `choices` a long question with four
    options. `full` makes every row `max_length` tokens once it is cut."""
    rng, rows = random.Random(0), []
    for i in range(n_rows):
        length = max_length if full else random_length(rng, max_length - 29)
        if choices:  # the template, four options and the answer are 29 tokens
            row = {"question": text(rng, min(length, max_length - 29)), "options": [text(rng, 4) for _ in range(4)]}
            rows.append(row | {"cop": i % 4})
        else:
            rows.append({"question": text(rng, 10), "answer": text(rng, length)})
    return Dataset.from_list(rows)


def encoder_rows(n_rows: int, most: int, most_target: int | None, n_classes: int) -> Dataset:
    """Return tokenized rows of random lengths; `labels` are classes or, with `most_target`, target tokens."""
    rng = random.Random(0)

    def ids(length: int) -> list[int]:
        return [rng.randrange(5, TINY_WORDS) for _ in range(length)]

    rows: list[dict[str, Any]] = []
    for i in range(n_rows):
        labels: Any = ids(random_length(rng, most_target)) if most_target else i % n_classes
        rows.append({"input_ids": ids(random_length(rng, most)), "labels": labels})
    return Dataset.from_list(rows)
