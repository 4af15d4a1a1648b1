"""Tokenizer, base model in 4 bits, 8 bits or none, LoRA, and how much of it is trained."""

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import (
    AutoConfig,
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


def load_tokenizer(args: ModelConfig, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `model_name_or_path`; a missing pad token becomes the end-of-text token.

    Raises:
        UserError: the model is not named, or there is none of that name.
    """
    name = _checked_name(args)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=args.model_revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # TRL masks padding by position, so the end token is still learnt
    return tokenizer


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids of the tokens that the tokenizer writes before and after a text, such as [CLS] and [SEP]."""
    plain, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]


def load_config(args: ModelConfig, trust_remote_code: bool = False, **values: Any) -> PreTrainedConfig:
    """Load the configuration of `model_name_or_path`; `values` replace what it says.

    Raises:
        UserError: the model is not named, or there is none of that name.
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
    """Return the bitsandbytes configuration that the recipe asks for, or None.

    4 bits: NF4 by default, computing in `dtype` (Dettmers et al. 2023, QLoRA). TRL's own helper computes in float32
    unless `dtype` is set, and quantizes classifier heads.

    Args:
        args: the model arguments.
        device: where the model will be.
        skip_modules: names of modules to leave as they are, such as classifier heads.

    Raises:
        UserError: both bit widths are asked for, or a `dtype` that this device should not compute in.
    """
    if args.load_in_4bit and args.load_in_8bit:
        raise UserError("`load_in_4bit` and `load_in_8bit` are both true: choose one.")
    if (args.load_in_4bit or args.load_in_8bit) and not args.use_peft:
        raise UserError("`use_peft` is false, but quantized weights cannot be trained: write `use_peft: true`.")
    if args.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip_modules)
    if not args.load_in_4bit:
        return None
    allowed = ("bfloat16", "float32")
    if device.type == "cuda":  # in float32 a GPU is several times slower
        allowed = ("bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16",)
    if args.dtype not in allowed:
        raise UserError(
            f"`dtype` is {args.dtype}: 4-bit weights compute in {' or '.join(allowed)} on this {device.type}."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=args.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=getattr(torch, args.dtype),
        bnb_4bit_quant_storage=args.bnb_4bit_quant_storage,
        llm_int8_skip_modules=skip_modules,
    )


def load_base_model(
    args: ModelConfig,
    auto_class: type,
    quantization: BitsAndBytesConfig | None,
    device: torch.device,
    trust_remote_code: bool = False,
    labels: list[str] | None = None,
) -> PreTrainedModel:
    """Load the model of `model_name_or_path` in `dtype`, each process on its own device.

    Args:
        args: the model arguments.
        auto_class: for example `transformers.AutoModelForCausalLM`.
        quantization: from `get_quantization_config`.
        device: of this process.
        trust_remote_code: run code that comes with the model; only where the recipe asks for it.
        labels: names of the classes, for a classifier.

    Raises:
        UserError: there is no model of that name.
    """
    name = _checked_name(args)
    classes = class_config(labels) if labels else {}
    try:
        return auto_class.from_pretrained(
            name,
            revision=args.model_revision,
            dtype=args.dtype if args.dtype == "auto" else getattr(torch, args.dtype),
            attn_implementation=args.attn_implementation,
            quantization_config=quantization,
            # "auto" would spread it over all GPUs, which stops under `accelerate launch` (accelerate#2713)
            device_map={"": device},
            trust_remote_code=trust_remote_code,
            **classes,
        )
    except ImportError as error:
        raise UserError(f"`attn_implementation` {args.attn_implementation} is not installed: {error}") from error
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error


def class_config(labels: list[str]) -> dict[str, Any]:
    """What a classifier's config says about its classes."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {v: i for i, v in enumerate(labels)},
    }


def autocast_dtype(args: ModelConfig, training_args: TrainingArguments) -> str | None:
    """What the trainer computes in: "bfloat16", "float16" or, as the weights are, None.

    Raises:
        UserError: for weights in half precision whose heads, in float32, could not follow, or that are all trained.
    """
    found = "bfloat16" if training_args.bf16 else "float16" if training_args.fp16 else None
    if args.dtype != "float32" and (found is None or not args.use_peft):
        why = "all weights are trained, which needs float32" if found else "neither `bf16` nor `fp16` is true"
        raise UserError(f"`dtype` is {args.dtype} and {why}: write `dtype: float32`, or `bf16: true` with LoRA.")
    return found


def head_names(args: ModelConfig, auto_class: type, labels: list[str], trust_remote_code: bool = False) -> list[str]:
    """Names of the modules with weights beside the base model, such as `classifier`: they are new, so they are trained
    whole and never quantized (bitsandbytes would: peft#1720). Read off a model without memory for its weights."""
    config = load_config(args, trust_remote_code, **class_config(labels))
    try:
        with torch.device("meta"):
            model = auto_class.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _not_loaded(args.model_name_or_path, error) from error
    own = {child: module for child, module in model.named_children() if child != model.base_model_prefix}
    return [child for child, module in own.items() if any(True for _ in module.parameters())]


def prepare_classifier(
    model: PreTrainedModel, heads: list[str], pooling: str, dropout: float | None = None
) -> PreTrainedModel:
    """Set what a configuration cannot say, in training as in serving, and return the model.

    Args:
        model: a loaded classifier.
        heads: from `head_names`; they become float32, which trains them well whatever the base model's `dtype`.
        pooling: "mean" shows them the mean of the last hidden states over the tokens, as sentence encoders such as
            MiniLM were trained, in place of the first token's.
        dropout: in place of the model's own.
    """
    for head in heads:
        model.get_submodule(head).float()
    for module in model.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
    if pooling == "mean":
        if hasattr(model.base_model, "pooler"):
            model.base_model.pooler = None  # it would see the first token, and get no gradient
        model.base_model.register_forward_hook(_pool_mean, with_kwargs=True)
    return model


def _pool_mean(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
    """Put the mean over the tokens where heads look: the pooled output (BERT), the first position (DistilBERT,
    RoBERTa)."""
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
    """Return the LoRA configuration of the recipe, or None where `use_peft` is false.

    PEFT leaves out a target that matches nothing as long as another one does. Phi-2's attention output is `dense`, so
    a recipe that says `o_proj` would train less than it says: every name has to match here. `heads` are trained and
    saved whole.

    Raises:
        UserError: no target, or a target or module to save that the model does not have.
    """
    if not args.use_peft:
        return None
    modules = dict(model.named_modules())
    # quantized layers are subclasses of nn.Linear
    layers = [name for name, module in modules.items() if isinstance(module, nn.Linear | nn.Embedding)]
    linear = sorted({name.rsplit(".", 1)[-1] for name in layers if isinstance(modules[name], nn.Linear)})
    targets = args.lora_target_modules
    if not targets:
        raise UserError(f"`lora_target_modules` is not set: name some of {', '.join(linear)}.")
    if isinstance(targets, str) and targets != "all-linear":
        targets = [targets]  # ModelConfig unwraps a single name, and PEFT would take that for a pattern of whole names
    for key, names, known in (
        ("lora_target_modules", targets if isinstance(targets, list) else [], layers),
        ("lora_modules_to_save", args.lora_modules_to_save or [], list(modules)),
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
            modules_to_save=list(dict.fromkeys([*heads, *(args.lora_modules_to_save or [])])) or None,
            use_rslora=args.use_rslora,
            use_dora=args.use_dora,
            bias="none",
        )


def get_optimizer(
    model: nn.Module, args: TrainingArguments, heads: Sequence[str], head_learning_rate: float | None
) -> tuple[type, dict[str, Any]]:
    """Return the optimizer of the recipe for `Trainer(optimizer_cls_and_kwargs=...)`, with another learning rate for
    the heads if one is given; biases and norms without weight decay, as `Trainer` has it."""
    optimizer, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    if head_learning_rate is None:
        return optimizer, kwargs
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head = any(part in heads for part in name.split("."))
            groups.setdefault((is_head, parameter.ndim > 1), []).append(parameter)
    params = [
        {
            "params": own,
            "weight_decay": args.weight_decay * decays,
            "lr": head_learning_rate if is_head else args.learning_rate,
        }
        for (is_head, decays), own in groups.items()
    ]
    return optimizer, kwargs | {"params": params}


def upcast_trainable_weights(model: nn.Module) -> None:
    """Make trainable weights float32, for training in fp16: TRL makes the adapters of a quantized model bfloat16, and
    the gradient scaler of fp16 cannot unscale that."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextlib.contextmanager
def base_model(tuned: nn.Module, load: Callable[[], PreTrainedModel]) -> Iterator[nn.Module]:
    """The model before tuning: `tuned` with its adapter switched off or, where all weights were trained, loaded anew.

    Args:
        tuned: the trained model.
        load: loads the base model as training did.
    """
    if isinstance(tuned, PeftModel):
        with tuned.disable_adapter():
            yield tuned
    else:
        yield load()


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Count parameters: `trainable_parameters`, of which `lora_parameters` and `saved_module_parameters` (heads and
    `lora_modules_to_save`), and `total_parameters`. A 4-bit tensor holds two weights a byte and counts as such."""
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
        raise UserError("`model_name_or_path` is not set: give a Hub id or a folder.")
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local and "/" in name and not Path(name).expanduser().exists():
        raise UserError(f"`model_name_or_path`: there is no folder `{name}`: give a folder that exists, or a Hub id.")
    return name


def _not_loaded(name: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(f"`model_name_or_path` {name} cannot be loaded: {reason}")
