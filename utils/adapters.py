"""LoRA adapters: add one to a model or go on from one, and count what is trained."""

import dataclasses
import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
)
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import find_adapter_config_file
from trl import ModelConfig

from utils.arguments import UserError, library_checks
from utils.json_files import read_json
from utils.modeling import all_finite, check_name
from utils.weights import load_adapter

logger = logging.getLogger(__name__)
TASK_TYPES = {
    "qa": "CAUSAL_LM", "classification": "SEQ_CLS", "hierarchical": "SEQ_CLS", "summarization": "SEQ_2_SEQ_LM",
}  # fmt: skip
LORA_KEYS = {
    "lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "use_rslora": "use_rslora",
    "use_dora": "use_dora", "lora_target_parameters": "target_parameters",
}  # fmt: skip
SAME_KEYS = (
    "task",
    "problem_type",
    "labels",
    "tree",
    "pooling",
)  # of `task.json`: what the head of an adapter was trained for
ADAPTER_FILES = ["adapter_*", "task.json", "*token*", "*.jinja", "vocab*", "merges.txt", "*.model"]


def find_adapter(args: ModelConfig, given: Mapping[str, Any]) -> tuple[ModelConfig, Path | None]:
    """Return the folder of the adapter that `model_name_or_path` names, and the arguments of its base model; for any
    other model None and the arguments as they are.

    An adapter is the output folder of a run with LoRA, another folder with `adapter_config.json`, or such a repository
    on the Hub. Training goes on from its weights.

    Args:
        args: the model arguments.
        given: the keys set by recipe and flags; those about LoRA have to be as the adapter has them.

    Raises:
        UserError: the adapter is not LoRA, names no base model, or contradicts `given` or `use_peft`.
    """
    name = check_name(args)
    try:
        found = find_adapter_config_file(name, revision=args.model_revision)
    except (OSError, ValueError):  # no such repository: `load_tokenizer` says so
        found = None
    if found is None:
        return args, None
    folder = Path(found).parent
    if not Path(name).is_dir():
        folder = Path(snapshot_download(name, revision=args.model_revision, allow_patterns=ADAPTER_FILES))
    with library_checks(f"`model_name_or_path` {name}"):
        config = PeftConfig.from_pretrained(str(folder))
    task = read_json(folder / "task.json")
    base = task.get("base_model") or config.base_model_name_or_path
    if not isinstance(config, LoraConfig) or not base:
        what = "names no base model" if isinstance(config, LoraConfig) else f"is {config.peft_type.value}, not LoRA"
        raise UserError(f"`model_name_or_path` {name} is an adapter that {what}: choose a LoRA adapter or a model.")
    if not args.use_peft:
        raise UserError(
            f"`use_peft` is false, but `model_name_or_path` {name} is an adapter of {base}: set `use_peft: true` to "
            "go on from it, or give the base model."
        )
    for key, attribute in LORA_KEYS.items():
        if given.get(key, getattr(config, attribute)) != getattr(config, attribute):
            raise UserError(
                f"`{key}` is {given[key]}, but the adapter `model_name_or_path` {name} has "
                f"{getattr(config, attribute)}: delete `{key}` to go on from the adapter, or set `model_name_or_path: "
                f"{base}` for a new one."
            )
    logger.info("going on from the adapter %s of %s", name, base)
    own = {key: getattr(config, attribute) for key, attribute in LORA_KEYS.items()}
    revision = task.get("base_model_revision") or config.revision
    values: dict[str, Any] = {"model_name_or_path": base, "model_revision": revision} | own
    return dataclasses.replace(args, **values), folder


def add_adapter(
    model: PreTrainedModel,
    args: ModelConfig,
    task: Mapping[str, Any],
    heads: Sequence[str] = (),
    first_adapter: Path | None = None,
) -> PreTrainedModel | PeftModel:
    """Return `model` with a new LoRA adapter, or with `first_adapter` to go on from; as it is if `use_peft` is false.

    Args:
        model: the base model.
        args: the model arguments.
        task: the content of `task.json`.
        heads: modules that are trained in full and saved.
        first_adapter: folder from `find_adapter`.

    Raises:
        UserError: as `get_lora_config`; or `first_adapter` is of another task, other classes or other modules.
    """
    kind = "CAUSAL_LM" if "chat" in task else TASK_TYPES[task["task"]]
    targets = args.lora_target_modules or args.lora_target_parameters
    config = get_lora_config(args, model, kind, heads) if targets or first_adapter is None else None
    if first_adapter is None:
        with library_checks("LoRA"):
            return get_peft_model(model, config) if config else model
    _check_purpose(first_adapter, task, kind, heads)
    try:
        tuned = load_adapter(model, first_adapter, is_trainable=True)
    except (ValueError, RuntimeError) as error:  # other modules, or another number of classes
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"`model_name_or_path` {first_adapter} does not fit the base model: {reason}") from error
    if not all_finite(tuned, only_trainable=True):
        raise UserError(f"`model_name_or_path` {first_adapter} has weights that are not finite: choose another.")
    # PEFT finds the modules that the recipe names, but takes a single adapter with `target_parameters`
    if config and not config.target_parameters:
        tuned.add_adapter("recipe", config)
        names = [name for name, _ in tuned.named_parameters()]
        own, asked = ({n.replace(key, "") for n in names if key in n} for key in (".default", ".recipe"))
        tuned.delete_adapter("recipe")
        if own != asked:
            raise UserError(
                "`lora_target_modules` or `lora_modules_to_save` name other modules than the adapter "
                f"`model_name_or_path` {first_adapter} has: delete them to go on from it."
            )
    return tuned


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
    # bitsandbytes' quantized layers subclass nn.Linear; those of GPT-2 are Conv1D, with weights the other way round
    layers = [name for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D | nn.Embedding)]
    linear = sorted({name.rsplit(".", 1)[-1] for name in layers if not isinstance(modules[name], nn.Embedding)})
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
    # Parts for images and sound (Gemma 3) would get no gradient from text
    own = getattr(model, "config", None)
    parts = [type(getattr(own, key)) for key in ("vision_config", "audio_config") if hasattr(own, key)]
    towers = [name for name, module in modules.items() if type(getattr(module, "config", None)) in parts]
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
            exclude_modules="|".join(rf"{re.escape(name)}\..*" for name in towers) or None,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in modules.values()),
            bias="none",
        )


def upcast_trainable_weights(model: nn.Module) -> None:
    """Cast trainable weights to float32 for fp16 training: TRL creates the adapters of a quantized model in bfloat16,
    which the fp16 gradient scaler cannot unscale."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


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


def _check_purpose(folder: Path, task: Mapping[str, Any], kind: str, heads: Sequence[str]) -> None:
    """Raise a UserError if the adapter in `folder` is of another task, other classes or without one of the heads."""
    config, earlier = PeftConfig.from_pretrained(str(folder)), read_json(folder / "task.json")
    name = f"`model_name_or_path` {folder}"
    for key in SAME_KEYS if earlier else ():
        if (before := earlier.get(key)) != task.get(key):
            raise UserError(f"{name} is an adapter for another `{key}`: {_difference(before, task.get(key))}.")
    if config.task_type not in (kind, None):
        raise UserError(f"{name} is an adapter for {config.task_type}, and this script trains {kind}: choose another.")
    if missing := set(heads) - set(getattr(config, "modules_to_save", None) or []):
        raise UserError(f"{name} has no weights of {', '.join(sorted(missing))}: train a new adapter.")
    if heads and not earlier:
        logger.warning("%s has no task.json: its classes have to be those of the data, in the same order", name)


def _difference(before: Any, now: Any) -> str:
    """Describe two values of `task.json`; of long lists, such as classes, only the size and what one of them lacks."""
    if isinstance(before, list) and isinstance(now, list):
        only = [f"`{name}`" for name in [*before, *now] if (name in before) != (name in now)]
        found = f"of these only one has {', '.join(only[:3])}" if only else "in another order"
        return f"{len(before)} and now {len(now)}, {found}"
    return f"{before} and now {now}" if len(f"{before} {now}") < 80 else "they differ"
