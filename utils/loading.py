"""Load the model of a finished run: its base model with the adapter, or a model of its own."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from utils.arguments import UserError
from utils.control_tokens import keep_control_tokens
from utils.heads import prepare_classifier
from utils.hierarchy import LabelTree
from utils.hub import why_not_loaded
from utils.modeling import check_packing, class_config, embeddings_sha256
from utils.runtimes.llama_cpp import load_llama_cpp
from utils.runtimes.onnx import load_onnx
from utils.seq2seq import set_generation
from utils.weights import check_weights, load_adapter

logger = logging.getLogger(__name__)
OTHER_BASE = "give the model that it was trained on as `--base_model`"
AUTO_CLASSES = {
    "qa": AutoModelForCausalLM,
    "classification": AutoModelForSequenceClassification,
    "hierarchical": AutoModelForSequenceClassification,
    "summarization": AutoModelForSeq2SeqLM,
}


def load_run_tokenizer(folder: Path, task: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a run. In `task`, mark the control tokens of templates, as earlier versions did not."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for key in task.keys() & {"prompt_template", "text_template"}:
        task[key] = keep_control_tokens(tokenizer, task[key])
    return tokenizer


def load_trained(
    folder: Path,
    task: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Return the model of a run on this process's device, with its adapter beside the weights of the base model.

    Args:
        folder: the output folder of the run.
        task: the content of its `task.json`.
        tokenizer: of the run.
        base_model: location of the base model, if it has moved since training.
        trust_remote_code: run code that comes with the base model.

    Raises:
        UserError: the base model cannot be loaded, or the adapter is of another one.
    """
    if (runtime := task.get("export", {}).get("format")) in ("onnx", "gguf"):  # takes the place of a PyTorch model
        own = load_onnx(folder) if runtime == "onnx" else load_llama_cpp(folder, task)
        return cast(PreTrainedModel, own)
    quantization = BitsAndBytesConfig.from_dict(task["quantization"]) if task["quantization"] else None
    is_adapter = (folder / "adapter_config.json").exists()
    source = (base_model or task["base_model"]) if is_adapter else str(folder)
    if base_model and not is_adapter:
        logger.warning("`base_model` has no effect on %s, which has all its weights", folder)
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    names = LabelTree.from_dict(task["tree"]).node_names if "tree" in task else task.get("labels")
    classes = class_config(names) if names else {}
    try:
        auto_class = AutoModelForCausalLM if "chat" in task else AUTO_CLASSES[task["task"]]
        model, found_weights = auto_class.from_pretrained(
            source,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_weights` names them
            revision=task["base_model_revision"] if is_adapter and not base_model else None,
            dtype=task["dtype"] if task["dtype"] == "auto" else getattr(torch, task["dtype"]),
            quantization_config=quantization,
            device_map={"": device},
            trust_remote_code=trust_remote_code,
            **classes,
        )
    except (OSError, ValueError) as error:
        reason = why_not_loaded(error)
        raise UserError(f"base model `{source}` cannot be loaded ({reason}): give `--base_model`.") from error
    new = list(task.get("heads", [])) if is_adapter else []  # which the adapter brings
    new += ["pooler"] if task.get("pooling") == "mean" else []
    check_weights("base_model" if is_adapter else "model", source, model, found_weights, new)
    check_packing(model)
    found = embeddings_sha256(model)
    if is_adapter and task.get("base_model_sha256", found) != found:  # an adapter of equal sizes would load in silence
        raise UserError(f"the adapter of `model` {folder} is of another model than `{source}`: {OTHER_BASE}.")
    if "heads" in task:
        model = prepare_classifier(model, task["heads"], task["pooling"])
    if model.config.is_encoder_decoder and task["task"] == "summarization":
        set_generation(model, tokenizer, task["stop"], task["generation"])
    if is_adapter:
        try:
            model = cast(PreTrainedModel, load_adapter(model, folder))  # forwards attributes and calls
        except (RuntimeError, ValueError) as error:  # other layers or sizes
            raise UserError(f"the adapter of `model` {folder} does not fit `{source}`: {OTHER_BASE}.") from error
    return model.eval()
