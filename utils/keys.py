"""What becomes of a key that a script does not simply use: another name for a key, a key that is refused and what to
write instead, a key with only one value, and a key that needs another.

The names are those of earlier versions, of transformers, TRL and its `trl sft`, and of transformers' example scripts.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def split_columns(value: Any) -> Any:
    """Split `premise,hypothesis` as transformers' run_classification.py does; a single name stays as it is."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else []
    return names if len(names) > 1 else value


def prefix_template(value: Any) -> Any:
    """Return the `text_template` that puts a prefix before each text."""
    return value.replace("{", "{{").replace("}", "}}") + "{text}" if isinstance(value, str) else value


def percent_to_share(value: Any) -> Any:
    """Return 5 (percent) as 0.05; what is not a number stays as it is, for the parser to refuse."""
    try:
        return float(value) / 100
    except (TypeError, ValueError):
        return value


def same(value: Any) -> Any:
    return value


# Other names -> keys of which a script has one at most, and what becomes of the value
ALIASES: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    # transformers' run_classification.py, run_glue.py, run_summarization.py and run_clm.py
    "text_column_names": (("text_column",), split_columns),
    "text_column_name": (("text_column",), split_columns),
    "label_column_name": (("label_column",), same),
    "max_seq_length": (("max_length", "max_source_length"), same),
    "metric_name": (("metric_for_best_model",), same),
    "source_prefix": (("text_template",), prefix_template),
    "preprocessing_num_workers": (("dataset_num_proc",), same),
    "validation_split_percentage": (("validation_fraction",), percent_to_share),
    "do_predict": (("evaluate_test",), same),
    # trl sft
    "dataset_config": (("dataset_config_name",), same),
    "dataset_train_split": (("train_split_name",), same),
    "dataset_streaming": (("streaming",), same),
    "test_split_size": (("test_fraction",), same),
}
_TOKEN = "set the environment variable HF_TOKEN; a token does not belong in a recipe"
_ONE_MODEL = "delete it; configuration and tokenizer are those of `model_name_or_path`"
_GENERATION = "set `max_new_tokens`, `num_beams`, `length_penalty` and `no_repeat_ngram_size`"
_COLUMNS = "name the columns, with `question_column` and `answer_column` or the keys of another script"
_SHARDED = (
    "delete it; processes evaluate different numbers of batches, which a sharded model cannot: several GPUs each hold "
    "the model, which `load_in_4bit` makes small"
)
_PRECISION = "delete it; evaluations compute as training and serving do: set `bf16` or `dtype`"
_SIZES = (
    "set `per_device_train_batch_size` and `gradient_accumulation_steps`, so that the recipe says what was trained"
)

# Names that no script has -> keys that mean the same, in other words or by another value
RENAMED = {
    "evaluation_strategy": "eval_strategy", "torch_dtype": "dtype", "no_cuda": "use_cpu", "blend": "ensemble",
    "bnb_4bit_compute_dtype": "dtype", "bnb_4bit_use_double_quant": "use_bnb_nested_quant",
    "target_modules": "lora_target_modules", "modules_to_save": "lora_modules_to_save",
    "base_model": "model_name_or_path", "micro_batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size", "batch_size": "per_device_train_batch_size",
    "num_epochs": "num_train_epochs", "max_windows": "max_chunks", "lr_scheduler": "lr_scheduler_type",
    "lr": "learning_rate", "push_to_hub_model_id": "hub_model_id", "max_train_steps": "max_steps",
    "num_warmup_steps": "warmup_steps", "checkpointing_steps": "save_steps", "with_tracking": "report_to",
}  # fmt: skip
_LANGUAGES = "delete it; multilingual models that need a language are not supported"
_SPANS = "delete it; answers are generated, not marked in a text: write `max_length` and `max_new_tokens`"

# Names that no script has -> what to do. Checked before the closest known key is suggested.
REPLACED = {
    **{name: f"write `{key}`" for name, key in RENAMED.items()},
    # earlier versions and other tools
    "config": "give the recipe as the first argument, without a flag",
    "warmup_ratio": "write `warmup_steps`, where a value below 1 is a ratio",
    "group_by_length": "write `train_sampling_strategy: group_by_length`",
    "overwrite_output_dir": "delete it; a run resumes by itself, and a new `output_dir` starts from scratch",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "delete it, it is always on",
    "half_precision_backend": "write `bf16` or `fp16`",
    "push_to_hub_token": _TOKEN,
    # transformers' example scripts
    "token": _TOKEN,
    "use_auth_token": _TOKEN,
    "cache_dir": "set the environment variable HF_HOME",
    **dict.fromkeys(("config_name", "tokenizer_name", "use_slow_tokenizer"), _ONE_MODEL),
    **dict.fromkeys(("lang", "source_lang", "target_lang", "forced_bos_token"), _LANGUAGES),
    **dict.fromkeys(("doc_stride", "max_answer_length", "n_best_size", "null_score_diff_threshold"), _SPANS),
    "version_2_with_negative": _SPANS,
    "model_type": "set `model_name_or_path`; models are fine-tuned here, not trained from scratch",
    "config_overrides": "delete it; models are fine-tuned here, not trained from scratch",
    "task_name": "write `dataset_name: nyu-mll/glue`, and the task as `dataset_config_name`",
    "shuffle_seed": "write `data_seed` for the order of training, or `split_seed` for splits and samples",
    "remove_splits": "delete it; only `train_split_name`, `validation_split_name` and `test_split_name` are read",
    "remove_columns": "delete it; only the columns that the recipe names are read",
    "val_max_target_length": "write `max_target_length` for references, `max_new_tokens` for generated summaries",
    "block_size": "write `max_length`, and `packing: true` to fill it with several rows",
    # trl sft
    "dataset_test_split": "write `validation_split_name` for evaluations during training, or `test_split_name`",
    "datasets": "give one data set as `dataset_name`, or one file as `train_file`",
}  # fmt: skip

# Fields of the libraries' dataclasses that would have no effect here, or a harmful one -> what to do
REFUSED = {
    "hub_token": _TOKEN,
    "length_column_name": "delete it, it has no effect",
    "label_names": "delete it; the scripts name the labels",
    "include_for_metrics": "delete it; no metric reads inputs or losses",
    "parallelism_config": _SHARDED,
    "fsdp": _SHARDED,
    "fsdp_config": _SHARDED,
    "deepspeed": _SHARDED,
    "liger_kernel_config": "delete it; Liger's kernels are not used",
    "resume_from_checkpoint": "delete it; the same command resumes from the newest complete checkpoint",
    "local_rank": "delete it; `accelerate launch` sets it",
    "generation_config": _GENERATION,
    "generation_max_length": "write `max_new_tokens`",
    "generation_num_beams": "write `num_beams`",
    "lora_task_type": "delete it; each script sets its own",
    "model_init_kwargs": "write `dtype`, `attn_implementation` or `model_revision`",
    "dataset_text_field": _COLUMNS,
    "dataset_kwargs": _COLUMNS,
    "pad_token": "delete it; padding is masked, so any token serves",
}

# Fields of the libraries, and flags of the example scripts, of which only these values say what is done here -> why
FIXED: dict[str, tuple[Sequence[Any], str]] = {
    "do_train": ((True,), "a run always trains; `num_train_epochs: 0` only evaluates"),
    "do_eval": ((True,), "a run always evaluates"),
    "restore_callback_states_from_checkpoint": ((True,), "a resumed run always restores them"),
    "ignore_data_skip": ((False,), "a resumed run would train on the same rows twice"),
    "save_only_model": ((False,), "such a checkpoint cannot be resumed: set `save_total_limit` to need less space"),
    "hub_strategy": (("end",), "a run is pushed once, after its evaluation"),
    "hub_always_push": ((False,), "a run is pushed once, after its evaluation"),
    "bf16_full_eval": ((False,), _PRECISION),
    "fp16_full_eval": ((False,), _PRECISION),
    "auto_find_batch_size": ((False,), _SIZES),
    "use_cache": ((False,), "training reads whole rows at once; generation uses a cache by itself"),
    "use_liger_kernel": ((False,), "TRL has deprecated it, and its kernels have no effect on encoders"),
    "eval_do_concat_batches": ((True,), "metrics need all batches together"),
    "eval_use_gather_object": ((False,), "outputs are tensors"),
    "batch_eval_metrics": ((False,), "metrics need all batches together"),
    "remove_unused_columns": ((True,), "the trainer gets only the columns that the model reads"),
    "sortish_sampler": ((False,), "transformers ignores it: write `train_sampling_strategy: group_by_length`"),
    "truncation_mode": (("keep_start",), "answers are cut at their end, and prompts at their start"),
    "packing_strategy": (("bfd", "wrapped"), "rows are cut to `max_length` before they are packed"),
    "padding_free": ((False,), "write `packing: true`, which needs no padding"),
    "completion_only_loss": ((True,), "the loss covers the answers, never the questions"),
    "assistant_only_loss": ((True,), "the loss covers the answers, never the questions"),
    # transformers' example scripts and trl sft
    "preprocessing_num_workers": (range(1, 1 << 16), "texts are tokenized by all processors"),
    "overwrite_cache": ((True, False), "rows are read anew in each run, and no cache is kept"),
    "pad_to_max_length": ((True, False), "batches are padded to their longest row, with equal results"),
    "low_cpu_mem_usage": ((True, False), "weights are always loaded so"),
    "keep_linebreaks": ((True,), "line breaks are kept"),
    "use_fast_tokenizer": ((True,), "transformers has no other tokenizers"),
    "shuffle_train_dataset": ((True,), "rows are shuffled: write `train_sampling_strategy: sequential` if not"),
    "ignore_pad_token_for_loss": ((True,), "padding has no loss"),
    "ignore_mismatched_sizes": ((True,), "a classification head is always new"),
    "do_regression": ((False,), "classes are predicted, not numbers"),
    "resize_position_embeddings": ((False,), "the model's positions are its limit: set `long_texts: chunks`"),
    "ignore_bias_buffers": ((False,), "set `ddp_broadcast_buffers: false`"),
}  # fmt: skip

# The least value of numbers, below which they have no effect or a library fails in the middle of a run
LEAST = dict.fromkeys((
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_steps",
    "save_total_limit", "eval_accumulation_steps", "dataset_num_proc", "early_stopping_patience", "lora_alpha",
    "max_chunks", "max_new_tokens", "augmentation_factor", "num_beams", "top_k",
), 1) | dict.fromkeys((
    "learning_rate", "head_learning_rate", "weight_decay", "max_grad_norm", "num_train_epochs", "seed", "data_seed",
    "split_seed", "neftune_noise_alpha", "eval_delay", "focal_gamma", "no_repeat_ngram_size", "retrieve_examples",
    "dataloader_num_workers", "min_input_words", "min_target_words",
), 0)  # fmt: skip
MORE_THAN_0 = ("save_steps", "eval_steps", "logging_steps", "repetition_penalty")

_LORA = ("use_peft", (True,))
_4BIT = ("load_in_4bit", (True,))
_HUB = ("push_to_hub", (True,))
_TRACKIO = ("report_to", ("trackio", "all"))
_GALORE = ("galore_adamw", "galore_adamw_8bit", "galore_adafactor")
_WARMED = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
)  # fmt: skip
_PROJECTED = tuple(name + end for name in (*_GALORE, "apollo_adamw") for end in ("", "_layerwise"))

# Optimizers that read `optim_args`, Adam's epsilon, and its betas, as transformers' trainer_optimizer.py builds them
_LION = ("lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit")
_TUNED = (
    "adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "ademamix_8bit", "paged_ademamix_32bit",
    "paged_ademamix_8bit", "apollo_adamw", "apollo_adamw_layerwise", "schedule_free_radam", "schedule_free_adamw",
    "stable_adamw",
)  # fmt: skip
_ADAM = (
    "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adamw_bnb_8bit", "adamw_8bit",
    "paged_adamw_32bit", "paged_adamw_8bit", *_TUNED,
)  # fmt: skip
_OTHERS = (
    "sgd", "adagrad", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "grokadamw",
    "schedule_free_sgd", *(name + end for name in _GALORE for end in ("", "_layerwise")),
)  # fmt: skip

# Fields of the libraries' dataclasses -> the key, and its values, without which they have no effect. For our own
# fields it is `needs` in their metadata.
NEEDS: dict[str, tuple[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters"), _LORA),
    **dict.fromkeys(("lora_modules_to_save", "use_rslora", "use_dora"), _LORA),
    **dict.fromkeys(("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"), _4BIT),
    **dict.fromkeys(("hub_private_repo", "hub_revision"), _HUB),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), _TRACKIO),
    **dict.fromkeys(
        ("eval_delay", "metric_for_best_model", "greater_is_better"), ("eval_strategy", ("steps", "epoch"))
    ),
    "eval_steps": ("eval_strategy", ("steps",)),
    "optim_target_modules": ("optim", _PROJECTED),
    "optim_args": ("optim", (*_TUNED, *_OTHERS)),
    "adam_epsilon": ("optim", _ADAM),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), ("optim", (*_ADAM, *_LION))),
    "label_smoothing_factor": ("loss_type", ("nll", "chunked_nll")),
    "warmup_steps": ("lr_scheduler_type", _WARMED),
    "dataloader_persistent_workers": ("dataloader_num_workers", tuple(range(1, 1024))),
    "save_steps": ("save_strategy", ("steps",)),
    "save_total_limit": ("save_strategy", ("steps", "epoch", "best")),
    "logging_steps": ("logging_strategy", ("steps",)),
    "activation_checkpointing_kwargs": ("activation_checkpointing", (True,)),
    "gradient_checkpointing_kwargs": ("gradient_checkpointing", (True,)),
    "packing_strategy": ("packing", (True,)),
}


def resolve_alias(key: str, value: Any, known: Iterable[str]) -> tuple[str, Any]:
    """Return the key that `key` stands for in a script that has the `known` ones, and the value for it."""
    targets, convert = ALIASES.get(key, ((), same))
    found = [target for target in targets if target in known]
    return (found[0], convert(value)) if found else (key, value)


def why_refused(key: str, known: Iterable[str]) -> str | None:
    """Return what to do instead of giving `key` to a script that has the `known` ones; None if it may be given."""
    if key in REFUSED:
        return f"is not supported: {REFUSED[key]}."
    if key in known or resolve_alias(key, None, known)[0] != key or key in FIXED:
        return None
    # Advice that names a key of another script is none
    replaced = {name: text for name, text in REPLACED.items() if {*re.findall(r"`(\w+)[:`]", text)} <= {*known}}
    if key in replaced:
        return f"is not supported: {replaced[key]}."
    names = {*known, *ALIASES, *replaced, *REFUSED, *FIXED} - {key}
    near = difflib.get_close_matches(key, sorted(names), n=1, cutoff=0.75)
    meant = resolve_alias(near[0], None, known)[0] if near else ""
    if meant in known and meant not in {*REFUSED, *FIXED}:
        return f"is not a known key: did you mean `{meant}`?"
    if meant in known or meant in replaced:
        advice = FIXED[meant][1] if meant in FIXED else {**replaced, **REFUSED}[meant]
        return f"is not a known key, and `{meant}` is not supported: {advice}."
    return "is not a known key: run with --help for the list of keys."


def why_fixed(key: str, value: Any) -> str | None:
    """Return why `key` may not have this value; None if it may."""
    allowed, reason = FIXED.get(key, ((value,), ""))
    if value in allowed:
        return None
    values = "a number above 0" if isinstance(allowed, range) else " or ".join(str(one).lower() for one in allowed)
    return f"can only be {values}: {reason}."


def too_small(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a number that is too small, infinite or none; None if nothing is."""
    for key, value in given.items():
        if key in {*LEAST, *MORE_THAN_0} and value not in (None, defaults.get(key)):
            fits = value > 0 if key in MORE_THAN_0 else value >= LEAST[key]
            if not (fits and value < math.inf):
                return f"`{key}` is {value}: give {'more than 0' if key in MORE_THAN_0 else f'{LEAST[key]} or more'}."
    return None


def without_effect(given: Mapping[str, Any], values: Mapping[str, Any], needs: Mapping[str, tuple]) -> dict[str, list]:
    """Return the keys that have no effect, by the key that they need.

    Args:
        given: the keys that recipe and flags set.
        values: the values of all keys.
        needs: as `NEEDS`.
    """
    found: dict[str, list[str]] = {}
    for key in [key for key in given if key in needs and needs[key][0] in values]:
        switch, allowed = needs[key]
        current = values[switch]
        named = [getattr(value, "value", value) for value in (current if isinstance(current, list) else [current])]
        if current is None if allowed is None else not set(named) & set(allowed):
            found.setdefault(switch, []).append(key)
    return found
