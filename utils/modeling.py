"""Load the tokenizer and the (quantized) base model."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from utils.arguments import UserError
from utils.hub import why_not_loaded
from utils.tokenizers import complete_tokenizer
from utils.weights import check_weights

if TYPE_CHECKING:
    from trl import ModelConfig  # takes a second, and serving needs none

PACKS = "support_avx512bf16_for_cpu"  # of bitsandbytes' `Linear4bit`: whether an evaluation repacks its weights
AutoClass = type[AutoModelForCausalLM] | type[AutoModelForSeq2SeqLM] | type[AutoModelForSequenceClassification]


def load_tokenizer(
    args: "ModelConfig", trust_remote_code: bool = False, first_adapter: Path | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `first_adapter`, if it has one, or of `model_name_or_path`. What its repository leaves out
    is set: maximum length, case, and the pad token, which is the end-of-sequence token.

    Raises:
        UserError: no model is given, it cannot be loaded, or it is one of images or sound.
    """
    name = check_name(args)
    config = load_config(args, trust_remote_code)
    if architecture(config) is None:
        raise UserError(f"`model_name_or_path` {name} ({config.model_type}) does not read text alone: choose another.")
    own = first_adapter if first_adapter and (first_adapter / "tokenizer_config.json").is_file() else None
    given: dict[str, Any] = {"revision": None if own else args.model_revision, "trust_remote_code": trust_remote_code}
    try:
        stated = get_tokenizer_config(str(own or name), **given)
        load = partial(AutoTokenizer.from_pretrained, own or name, **given)
        tokenizer = complete_tokenizer(load, stated, config, trust_remote_code)
    except (OSError, ValueError) as error:
        raise not_loaded(name, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # safe: TRL masks padding by position, so the end token is learned
    return tokenizer


def load_config(args: "ModelConfig", trust_remote_code: bool = False, **values: Any) -> PreTrainedConfig:
    """Load the configuration of `model_name_or_path`, with `values` as overrides.

    Raises:
        UserError: no model is given, or it cannot be loaded.
    """
    name = check_name(args)
    try:
        return AutoConfig.from_pretrained(
            name, revision=args.model_revision, trust_remote_code=trust_remote_code, **values
        )
    except (OSError, ValueError) as error:
        raise not_loaded(name, error) from error


def architecture(config: PreTrainedConfig) -> str | None:
    """Return `encoder-decoder`, `encoder`, `decoder` (also Gemma 3, without its images), `other` for code of the
    model's repository, or None for a model that does not read text alone."""
    kind = type(config)
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        return "encoder-decoder"
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder:
        bidirectional = kind in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
        return "encoder" if bidirectional else "decoder"
    known = kind in MODEL_FOR_MASKED_LM_MAPPING or kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return "encoder" if known else "other" if getattr(config, "auto_map", None) else None


def get_quantization_config(
    args: "ModelConfig", device: torch.device, skip_modules: list[str] | None = None
) -> BitsAndBytesConfig | None:
    """Return the bitsandbytes configuration that the recipe requests, or None.

    4-bit weights use NF4 by default and compute in `dtype` (QLoRA, Dettmers et al. 2023). TRL's own helper computes in
    float32 unless `dtype` is set, and quantizes classification heads.

    Args:
        args: the model arguments.
        device: device of the model.
        skip_modules: modules to keep unquantized, such as classification heads.

    Raises:
        UserError: both bit widths are requested, `use_peft` is false, or the device does not suit `dtype`.
    """
    if args.load_in_4bit and args.load_in_8bit:
        raise UserError("`load_in_4bit` and `load_in_8bit` are both true: set only one.")
    if (args.load_in_4bit or args.load_in_8bit) and not args.use_peft:
        raise UserError("`use_peft` is false, but quantized weights cannot be trained: set `use_peft: true`.")
    if args.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip_modules)
    if not args.load_in_4bit:
        return None
    allowed: tuple[str, ...] = ("bfloat16", "float32")
    if device.type == "cuda":  # float32 would be several times slower
        allowed = ("bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16",)
    if args.dtype not in allowed:
        raise UserError(f"`dtype` is {args.dtype}: 4-bit weights on this {device.type} need {' or '.join(allowed)}.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=args.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=getattr(torch, str(args.dtype)),
        bnb_4bit_quant_storage=args.bnb_4bit_quant_storage,
        llm_int8_skip_modules=skip_modules,
    )


def load_base_model(
    args: "ModelConfig",
    auto_class: AutoClass,
    quantization: BitsAndBytesConfig | None,
    device: torch.device,
    trust_remote_code: bool = False,
    labels: list[str] | None = None,
    new: Sequence[str] = (),
) -> PreTrainedModel:
    """Load the model of `model_name_or_path` in `dtype`, on this process's own device.

    Args:
        args: the model arguments.
        auto_class: e.g. `transformers.AutoModelForCausalLM`.
        quantization: from `get_quantization_config`.
        device: device of this process.
        trust_remote_code: run code from the model repository; only if the recipe allows it.
        labels: class names, for a classifier.
        new: modules that its files need not have, such as heads.

    Raises:
        UserError: the model cannot be loaded.
    """
    name = check_name(args)
    classes = class_config(labels) if labels else {}
    try:
        model, found = cast(Any, auto_class).from_pretrained(
            name,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_weights` names them
            revision=args.model_revision,
            dtype=args.dtype if args.dtype == "auto" else getattr(torch, str(args.dtype)),
            attn_implementation=args.attn_implementation,
            quantization_config=quantization,
            # "auto" splits the model over all GPUs, which fails under `accelerate launch` (accelerate#2713)
            device_map={"": device},
            trust_remote_code=trust_remote_code,
            **classes,
        )
    except ImportError as error:
        raise UserError(f"`attn_implementation` {args.attn_implementation} is not installed: {error}") from error
    except (OSError, ValueError) as error:
        raise not_loaded(name, error) from error
    check_weights("model_name_or_path", name, model, found, new)
    if not all_finite(model):
        raise UserError(f"`model_name_or_path` {name} has weights that are not finite: choose another model.")
    check_packing(model)
    return model


def class_config(labels: list[str]) -> dict[str, Any]:
    """Return the configuration entries that name a classifier's classes."""
    index = {name: i for i, name in enumerate(labels)}
    return {"num_labels": len(labels), "id2label": dict(enumerate(labels)), "label2id": index}


def check_float16(model: PreTrainedModel, args: "ModelConfig", training_args: TrainingArguments) -> None:
    """Raise a UserError for float16 weights that would all be trained, or pass gradients on without loss scaling:
    small gradients become 0, and small updates are lost."""
    if model.dtype == torch.float16 and not (args.use_peft and (training_args.fp16 or training_args.bf16)):
        raise UserError(
            f"`dtype` is {args.dtype}, and the weights are float16: set `dtype: bfloat16` or `dtype: float32`, or "
            "train with LoRA and `fp16: true` or `bf16: true`."
        )


def autocast_dtype(args: "ModelConfig", training_args: TrainingArguments) -> str | None:
    """Return the trainer's autocast dtype, "bfloat16" or "float16"; None computes in the dtype of the weights.

    Raises:
        UserError: half-precision weights without autocast, which the float32 heads need, or without LoRA.
    """
    found = "bfloat16" if training_args.bf16 else "float16" if training_args.fp16 else None
    if args.dtype != "float32" and (found is None or not args.use_peft):
        why = "training all weights needs float32" if found else "neither `bf16` nor `fp16` is true"
        raise UserError(f"`dtype` is {args.dtype}, but {why}: set `dtype: float32`, or `bf16: true` with LoRA.")
    return found


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes bfloat16 in hardware (CPU: AMX, AVX512-BF16, Arm BF16). Emulation is slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def embeddings_sha256(model: PreTrainedModel) -> str:
    """Return a sha256 of some values of a model's input embeddings, which tell it from another model of its shape.
    They are never quantized, and never new like a head or a pooler; if they are trained, these are those before."""
    embeddings = cast(nn.Module, model.get_input_embeddings())
    embeddings = getattr(embeddings, "original_module", embeddings)  # of `lora_modules_to_save`
    values = cast(torch.Tensor, embeddings.weight).detach().flatten()
    some = values[:: max(1, len(values) // 4096)].float().cpu().numpy()
    return hashlib.sha256(some.tobytes()).hexdigest()


def all_finite(model: nn.Module, only_trainable: bool = False) -> bool:
    """Return whether all weights, or all that are trained, are finite."""
    weights = [p.detach() for p in model.parameters() if p.requires_grad or not only_trainable]
    # The largest absolute value is not finite if one of them is not; the quadratic norm could overflow by itself
    largest = nn.utils.get_total_norm([w for w in weights if w.is_floating_point()], norm_type=torch.inf)
    return bool(largest.isfinite())


@contextlib.contextmanager
def unpacked(model: nn.Module) -> Iterator[None]:
    """Keep bitsandbytes from repacking 4-bit weights in evaluations, as it does on a CPU with AVX512-BF16.

    The kernel that reads packed weights has no gradient, and unpacking does not restore them: it rounds their scales,
    and without nested quantization puts them in the wrong order.
    """
    layers = [module for module in model.modules() if getattr(module, PACKS, False)]
    for module in layers:
        setattr(module, PACKS, False)
    try:
        yield
    finally:
        for module in layers:
            setattr(module, PACKS, True)


def check_packing(model: nn.Module) -> None:
    """Let bitsandbytes pack only layers of a size that its kernel takes: an evaluation would fail at another."""
    layers: list[Any] = [module for module in model.modules() if getattr(module, PACKS, False)]
    for layer in layers:
        rows, columns = layer.weight.quant_state.shape
        setattr(layer, PACKS, rows % 32 == 0 and columns % layer.weight.quant_state.blocksize == 0)


def check_name(args: "ModelConfig") -> str:
    """Return `model_name_or_path`, or raise a UserError if it is not set, or a folder that does not exist."""
    name = args.model_name_or_path
    if not name:
        raise UserError("`model_name_or_path` is not set: give a Hub id or a local folder.")
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local and "/" in name and not Path(name).expanduser().exists():
        raise UserError(f"`model_name_or_path`: there is no folder `{name}`: give an existing folder or a Hub id.")
    return name


def not_loaded(name: str, error: Exception) -> UserError:
    return UserError(f"`model_name_or_path` {name} cannot be loaded: {why_not_loaded(error)}.")
