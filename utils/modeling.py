"""Load the tokenizer and the (quantized) base model, and set up LoRA, classification heads and the optimizer."""

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from trl import ModelConfig

from utils.arguments import UserError, library_checks

AutoClass = type[AutoModelForCausalLM] | type[AutoModelForSeq2SeqLM] | type[AutoModelForSequenceClassification]


def load_tokenizer(args: ModelConfig, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `model_name_or_path`; a missing pad token is set to the end-of-sequence token.

    Raises:
        UserError: no model is given, or it cannot be loaded.
    """
    name = _checked_name(args)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=args.model_revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # safe: TRL masks padding by position, so the end token is learned
    return tokenizer


def load_config(args: ModelConfig, trust_remote_code: bool = False, **values: Any) -> PreTrainedConfig:
    """Load the configuration of `model_name_or_path`, with `values` as overrides.

    Raises:
        UserError: no model is given, or it cannot be loaded.
    """
    name = _checked_name(args)
    try:
        return AutoConfig.from_pretrained(
            name, revision=args.model_revision, trust_remote_code=trust_remote_code, **values
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error


def get_quantization_config(
    args: ModelConfig, device: torch.device, skip_modules: list[str] | None = None
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
    args: ModelConfig,
    auto_class: AutoClass,
    quantization: BitsAndBytesConfig | None,
    device: torch.device,
    trust_remote_code: bool = False,
    labels: list[str] | None = None,
) -> PreTrainedModel:
    """Load the model of `model_name_or_path` in `dtype`, on this process's own device.

    Args:
        args: the model arguments.
        auto_class: e.g. `transformers.AutoModelForCausalLM`.
        quantization: from `get_quantization_config`.
        device: device of this process.
        trust_remote_code: run code from the model repository; only if the recipe allows it.
        labels: class names, for a classifier.

    Raises:
        UserError: the model cannot be loaded.
    """
    name = _checked_name(args)
    classes = class_config(labels) if labels else {}
    try:
        return auto_class.from_pretrained(
            name,
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
        raise _not_loaded(name, error) from error


def class_config(labels: list[str]) -> dict[str, Any]:
    """Return the configuration entries that name a classifier's classes."""
    index = {name: i for i, name in enumerate(labels)}
    return {"num_labels": len(labels), "id2label": dict(enumerate(labels)), "label2id": index}


def autocast_dtype(args: ModelConfig, training_args: TrainingArguments) -> str | None:
    """Return the trainer's autocast dtype, "bfloat16" or "float16"; None computes in the dtype of the weights.

    Raises:
        UserError: half-precision weights without autocast, which the float32 heads need, or without LoRA.
    """
    found = "bfloat16" if training_args.bf16 else "float16" if training_args.fp16 else None
    if args.dtype != "float32" and (found is None or not args.use_peft):
        why = "training all weights needs float32" if found else "neither `bf16` nor `fp16` is true"
        raise UserError(f"`dtype` is {args.dtype}, but {why}: set `dtype: float32`, or `bf16: true` with LoRA.")
    return found


def head_names(
    args: ModelConfig, auto_class: AutoClass, labels: list[str], trust_remote_code: bool = False
) -> list[str]:
    """Return the modules on top of the base model that have weights, such as `classifier`. They are newly initialized,
    so they are trained in full and never quantized (bitsandbytes would: peft#1720). Reads a model on the meta device,
    which allocates no memory."""
    config = load_config(args, trust_remote_code, **class_config(labels))
    try:
        with torch.device("meta"):
            model = auto_class.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _not_loaded(str(args.model_name_or_path), error) from error
    own = {child: module for child, module in model.named_children() if child != model.base_model_prefix}
    return [child for child, module in own.items() if any(True for _ in module.parameters())]


def prepare_classifier(
    model: PreTrainedModel, heads: list[str], pooling: str, dropout: float | None = None
) -> PreTrainedModel:
    """Apply the settings that a configuration cannot express, for training and serving alike, and return the model.

    Args:
        model: a loaded classifier.
        heads: from `head_names`; cast to float32 for stable training whatever the base model's `dtype`.
        pooling: "mean" feeds the heads the mean of the last hidden states over the tokens instead of the first token's
            state, as sentence encoders such as MiniLM were trained.
        dropout: overrides the model's own probability.
    """
    for head in heads:
        model.get_submodule(head).float()
    for module in model.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
    if pooling == "mean":
        if hasattr(model.base_model, "pooler"):
            model.base_model.register_module("pooler", None)  # it reads the first token and would get no gradient
        model.base_model.register_forward_hook(_pool_mean, with_kwargs=True)
    return model


def _pool_mean(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
    """Put the mean over the tokens where heads read: pooled output (BERT), first position (DistilBERT, RoBERTa)."""
    hidden = output.last_hidden_state
    mask = kwargs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    output.last_hidden_state = torch.cat([mean.unsqueeze(1), hidden[:, 1:]], dim=1)
    if "pooler_output" in output or hasattr(module, "pooler"):
        output.pooler_output = mean
    return output


def get_lora_config(
    args: ModelConfig, model: nn.Module, task_type: str, heads: Sequence[str] = ()
) -> LoraConfig | None:
    """Return the LoRA configuration of the recipe, or None if `use_peft` is false.

    PEFT silently skips a target that matches no module if another one does: Phi-2's attention output is `dense`, so a
    recipe that lists `o_proj` would train less than it says. Here every name has to match. `heads` are trained in full
    and saved.

    Raises:
        UserError: no target is given, or a name matches no module of the model.
    """
    if not args.use_peft:
        return None
    modules = dict(model.named_modules())
    # bitsandbytes' quantized layers subclass nn.Linear
    layers = [name for name, module in modules.items() if isinstance(module, nn.Linear | nn.Embedding)]
    linear = sorted({name.rsplit(".", 1)[-1] for name in layers if isinstance(modules[name], nn.Linear)})
    parameters = args.lora_target_parameters  # weights that no linear layer holds, such as experts
    targets = args.lora_target_modules or ([] if parameters else None)
    if targets is None:
        raise UserError(f"`lora_target_modules` is not set: choose from {', '.join(linear)}.")
    if isinstance(targets, str) and targets != "all-linear":
        targets = [targets]  # ModelConfig unwraps a single name, which PEFT would take for a regex
    for key, names, known in (
        ("lora_target_modules", targets if isinstance(targets, list) else [], layers),
        ("lora_modules_to_save", args.lora_modules_to_save or [], list(modules)),
        ("lora_target_parameters", parameters or [], [name for name, _ in model.named_parameters()]),
    ):
        for name in names:
            if not any(module == name or module.endswith("." + name) for module in known):
                near = difflib.get_close_matches(name, {module.rsplit(".", 1)[-1] for module in known}, n=1)
                advice = f"did you mean `{near[0]}`? " if near else ""
                raise UserError(
                    f"`{key}`: `{name}` matches no layer of {type(model).__name__}: {advice}"
                    f"It has {', '.join(linear)}."
                )
    with library_checks("LoRA"):
        return LoraConfig(
            task_type=task_type,
            r=args.lora_r,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
            target_modules=targets,
            target_parameters=parameters,
            modules_to_save=list(dict.fromkeys([*heads, *(args.lora_modules_to_save or [])])) or None,
            use_rslora=args.use_rslora,
            use_dora=args.use_dora,
            bias="none",
        )


def get_optimizer(
    model: nn.Module, args: TrainingArguments, heads: Sequence[str], head_learning_rate: float | None
) -> tuple[type, dict[str, Any]]:
    """Return the recipe's optimizer for `Trainer(optimizer_cls_and_kwargs=...)`, with `head_learning_rate` for the
    heads if given. As in `Trainer`, biases and norms have no weight decay."""
    optimizer, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, cast(PreTrainedModel, model))
    if head_learning_rate is None:
        return optimizer, kwargs
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head = any(part in heads for part in name.split("."))
            groups.setdefault((is_head, parameter.ndim > 1), []).append(parameter)
    rates = {True: head_learning_rate, False: args.learning_rate}
    params = [
        {"params": own, "weight_decay": args.weight_decay * decays, "lr": rates[is_head]}
        for (is_head, decays), own in groups.items()
    ]
    return optimizer, kwargs | {"params": params}


def upcast_trainable_weights(model: nn.Module) -> None:
    """Cast trainable weights to float32 for fp16 training: TRL creates the adapters of a quantized model in bfloat16,
    which the fp16 gradient scaler cannot unscale."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextlib.contextmanager
def base_model(tuned: nn.Module, load: Callable[[], PreTrainedModel]) -> Iterator[PreTrainedModel]:
    """Yield the model before fine-tuning: `tuned` with its adapter disabled or, after full fine-tuning, a fresh copy.

    Args:
        tuned: the trained model.
        load: loads the base model as for training.
    """
    if isinstance(tuned, PeftModel):
        with tuned.disable_adapter():
            yield cast(PreTrainedModel, tuned)  # PeftModel forwards its attributes and calls
    else:
        yield load()


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Count `trainable_parameters`, of which `lora_parameters` and `saved_module_parameters` (heads and
    `lora_modules_to_save`), and `total_parameters`. A 4-bit tensor packs two weights per byte, and both are counted.
    """
    if isinstance(model, PeftModel):
        trainable, total = model.get_nb_trainable_parameters()
    else:
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
    lora = sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and "lora_" in name)
    return {
        "trainable_parameters": trainable,
        "lora_parameters": lora,
        "saved_module_parameters": trainable - lora if isinstance(model, PeftModel) else 0,
        "total_parameters": total,
    }


def _checked_name(args: ModelConfig) -> str:
    name = args.model_name_or_path
    if not name:
        raise UserError("`model_name_or_path` is not set: give a Hub id or a local folder.")
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local and "/" in name and not Path(name).expanduser().exists():
        raise UserError(f"`model_name_or_path`: there is no folder `{name}`: give an existing folder or a Hub id.")
    return name


def _not_loaded(name: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(f"`model_name_or_path` {name} cannot be loaded: {reason}")
