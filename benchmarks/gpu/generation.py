"""Tokens per second of `generate_answers`, the code that evaluation, `predict.py` and the app answer with."""

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from trl import ModelConfig

from benchmarks.gpu.models import TINY_WORDS, model_folder
from benchmarks.gpu.training import Row, free_memory, gpu_memory
from utils.generation import generate_answers
from utils.modeling import get_quantization_config, load_base_model, load_tokenizer

PROMPT, NEW = 128, 64  # tokens


def measure_generation(
    folder: Path, tiny: bool, name: str, load_in_4bit: bool, batches: Sequence[int]
) -> Iterator[Row]:
    """Measure greedy answers of exactly 64 tokens to prompts of 128, for each batch size."""
    path = model_folder(name, folder, tiny)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args = ModelConfig(
        str(path), dtype="bfloat16", load_in_4bit=load_in_4bit, use_peft=True, use_bnb_nested_quant=True
    )
    model = load_base_model(args, AutoModelForCausalLM, get_quantization_config(args, device), device)
    tokenizer, rng = load_tokenizer(args), random.Random(0)
    new = 4 if tiny else NEW

    def answer(batch: int, tokens: int) -> float:
        # A random model may say anything: the end of the answer is held back, so that the work is known
        generation: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        prompts = [[rng.randrange(5, TINY_WORDS) for _ in range(PROMPT)] for _ in range(batch)]
        start = time.perf_counter()  # the answers are text when it returns, so no kernel is left
        generate_answers(model, tokenizer, prompts, "<|end|>", generation, batch, None)
        return time.perf_counter() - start

    for batch in batches:
        answer(batch, 4)
        free_memory()
        seconds = answer(batch, new)
        yield (
            f"batch {batch}",
            {
                "batch": batch,
                "tokens_per_second": batch * new / seconds,
                "ms_per_token": 1000 * seconds / new,
                **gpu_memory(),
            },
        )
