"""The models that an evaluation compares: the trained one, and what came before it."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from utils.adapters import upcast_trainable_weights
from utils.generation import generate_answers


def trained_model(trainer: Trainer) -> PreTrainedModel:
    """Return the model as it is served: without the wrappers of processes, without the autocast that accelerate puts
    around `forward`, under which a pass in float32 would be one in bfloat16, and with its adapter in float32, as PEFT
    loads one (TRL trains that of a quantized model in bfloat16)."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    # Not `unwrap_model(keep_fp32_wrapper=False)`: it also takes off the decorators that the class's method needs
    for name in ("forward", "_original_forward"):
        vars(model).pop(name, None)
    if isinstance(model, PeftModel):
        upcast_trainable_weights(model)
    return cast(PreTrainedModel, model)


STAGES = {"base_test": "base model", "first_adapter_test": "first adapter"}  # name in the results -> in the log


def earlier_models(
    tuned: nn.Module, load: Callable[[], PreTrainedModel], first_adapter: Path | None
) -> Iterator[tuple[str, PreTrainedModel]]:
    """Yield what to compare the trained model with, each under its name in the results: `base_test` is the base model,
    `tuned` with its adapter switched off or, after full fine-tuning, a fresh copy; `first_adapter_test` the base model
    with the adapter that training went on from, if there is one.

    Args:
        tuned: the trained model; each other model is valid until the next one is taken.
        load: loads the base model as for training.
        first_adapter: folder from `find_adapter`.
    """
    if not isinstance(tuned, PeftModel):
        yield "base_test", load()
        return
    with tuned.disable_adapter():
        yield "base_test", cast(PreTrainedModel, tuned)  # PeftModel forwards its attributes and calls
    if first_adapter:
        # Not PEFT's `load_adapter`: it reads all weights, at which bitsandbytes unpacks 4-bit ones with a loss
        own = get_peft_model_state_dict(tuned, dict(tuned.named_parameters()), save_embedding_layers=False)
        trained = {name: weight.detach().clone() for name, weight in own.items()}
        for name, weight in load_peft_weights(str(first_adapter), device="cpu").items():
            own[name].data.copy_(weight)
        yield "first_adapter_test", cast(PreTrainedModel, tuned)
        for name, weight in trained.items():
            own[name].data.copy_(weight)


def measure_latency(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], task: Mapping[str, Any]
) -> dict[str, float]:
    """Measure P50 and P95 latency in milliseconds of complete answers to single prompts."""
    milliseconds = []
    for prompt in prompts:
        start = time.perf_counter()
        generate_answers(model, tokenizer, [prompt], task["stop"], task["generation"], 1, None)
        milliseconds.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(milliseconds, [50, 95]).tolist()
    return {"latency_p50_ms": p50, "latency_p95_ms": p95}
