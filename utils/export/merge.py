"""Merge an adapter into its base model, layer by layer and in float32."""

from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from utils.seq2seq import set_generation


def merge(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Merge the adapter of a run into its base model, which is changed in place, and return that with plain layers.

    Weights of 4 or 8 bits become the numbers that they stand for, which are those that the adapter was trained on;
    those before quantization are others. One layer at a time is in float32 beside the model.

    Args:
        model: from `load_trained` and `in_float32`.
        dtype: of the merged weights.
    """
    quantized = getattr(model.config, "quantization_config", None) is not None
    if isinstance(model, PeftModel):
        base = model.get_base_model()
        untie(base)
        for name, layer in list(base.named_modules()):
            if isinstance(layer, LoraLayer) and _is_quantized(layer.get_base_layer()):
                base.set_submodule(name, _plain(layer, dtype))
        # layers that are not quantized, and modules that were trained in full
        model = cast(PreTrainedModel, model.merge_and_unload(safe_merge=True))
    if quantized and any(_is_quantized(module) for module in model.modules()):
        model = model.dequantize(dtype)
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    vars(model).update(is_quantized=False, hf_quantizer=None)  # else transformers would save it as a quantized one
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return model.eval()


def untie(base: PreTrainedModel) -> None:
    """Give input and output embeddings weights of their own where an adapter changes one of them alone: merged into
    shared weights, it would change both."""
    config = base.config.get_text_config(decoder=True)
    ends: list[Any] = [base.get_input_embeddings(), base.get_output_embeddings()]
    changed = [isinstance(module, LoraLayer | ModulesToSaveWrapper) for module in ends]
    if not getattr(config, "tie_word_embeddings", False) or ends[1] is None or not any(changed):
        return
    layer = getattr(ends[1], "original_module", getattr(ends[1], "base_layer", ends[1]))  # below the adapter
    layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    base.config.tie_word_embeddings = config.tie_word_embeddings = False
    base.all_tied_weights_keys = {}


def _is_quantized(module: nn.Module) -> bool:
    return type(getattr(module, "weight", None)).__name__ in ("Params4bit", "Int8Params")


def _plain(layer: LoraLayer, dtype: torch.dtype) -> nn.Linear:
    """Return a plain layer with the merged weights of a quantized one."""
    base: Any = layer.get_base_layer()
    (name,) = layer.active_adapters
    weight = dequantize_module_weight(base).float()
    variant = layer.lora_variant.get(name)  # DoRA scales the columns, too
    if variant:
        merged = variant.merge_safe(layer, name, weight)
    else:
        merged = weight + cast(Any, layer).get_delta_weight(name).float()  # each kind of layer has its own
    plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    plain.weight = nn.Parameter(merged.detach().to(dtype), requires_grad=False)
    if base.bias is not None:
        plain.bias = nn.Parameter(base.bias.detach().to(dtype), requires_grad=False)
    return plain


def write_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: dict[str, Any]) -> None:
    """Let plain transformers and vLLM generate as the run did: greedily, up to its stop token, not with the sampling
    of the base model."""
    if model.config.is_encoder_decoder and task["task"] == "summarization":
        set_generation(model, tokenizer, task["stop"], task["generation"])
    elif task["task"] == "qa":
        ends = {tokenizer.convert_tokens_to_ids(task["stop"]), tokenizer.eos_token_id} - {None}
        model.generation_config = GenerationConfig(
            **task["generation"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
