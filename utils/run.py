"""Set up a run (output folder, logging, seed), find where to resume, train, and describe the run."""

import dataclasses
import json
import logging
import math
import os
import re
import resource
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import joblib
import torch
import transformers
import yaml
from datasets import Dataset
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerState, TrainingArguments, set_seed
from transformers.integrations import get_available_reporting_integrations
from transformers.utils.hub import cached_file, extract_commit_hash
from trl import ModelConfig

from utils.arguments import DataArguments, UserError, write_recipe

logger = logging.getLogger(__name__)
DATA_FACTS = ("dataset_name", "dataset_config_name", "dataset_revision", "train_file", "test_file", "language")
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets", "huggingface-hub")

TASK_VERSION = 2  # of `task.json`: raised when code of before would read it wrongly

# Keys that may change when a run resumes: none of them affects a weight.
FREE_KEYS = {
    "output_dir", "logging_steps", "disable_tqdm", "report_to", "run_name", "save_total_limit", "push_to_hub",
    "hub_model_id", "hub_private_repo", "max_predict_samples", "max_new_tokens", "per_device_eval_batch_size",
    "ensemble", "max_risk", "top_k", "num_beams", "length_penalty", "no_repeat_ngram_size", "use_stemmer",
    "bertscore_model", "bertscore_layer", "evaluate_test", "language",
}  # fmt: skip


def start_run(args: TrainingArguments, given: dict[str, Any], argument_types: tuple[type, ...]) -> str | None:
    """Prepare `args.output_dir`, logging and the seed.

    Args:
        args: the training arguments.
        given: the keys set by recipe and flags, from `parse_recipe`; written to `recipe.yaml`.
        argument_types: the script's dataclasses, for the defaults of all other keys.

    Returns:
        the newest complete checkpoint in `output_dir`, or None to start from scratch.

    Raises:
        UserError: the folder is not writable or holds checkpoints of a different recipe, a push is requested without
            a test evaluation, early stopping without evaluations, or a tracker is not installed.
    """
    if args.learning_rate < 0:
        raise UserError(f"`learning_rate` is {args.learning_rate}: give 0 or more.")
    if args.push_to_hub and not given.get("evaluate_test", True):
        raise UserError("`push_to_hub` needs test results for the model card: set `evaluate_test: true`.")
    patience = given.get("early_stopping_patience")
    if patience is not None and patience < 1:
        raise UserError(f"`early_stopping_patience` is {patience}: give 1 or more.")
    if patience and (args.eval_strategy == "no" or not args.metric_for_best_model):
        raise UserError("`early_stopping_patience` needs `eval_strategy` (such as epoch) and `metric_for_best_model`.")
    if missing := sorted(set(args.report_to or ()) - set(get_available_reporting_integrations())):
        raise UserError(f"`report_to` is {missing[0]}, which is not installed: see requirements/trackers.txt.")
    output_dir = Path(str(args.output_dir))
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "_private").mkdir(exist_ok=True)
        test = output_dir / "_private" / f".write_test_{args.process_index}"
        test.touch()
        test.unlink()
    except OSError as error:
        raise UserError(f"`output_dir` {output_dir} cannot be written ({error.strerror}): choose another.") from error

    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr,
        level=logging.INFO if args.process_index == 0 else logging.ERROR,
    )  # fmt: skip
    for name in ("httpx", "absl"):  # they log every request and every ROUGE scorer
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers.utils.logging.set_verbosity(args.get_process_log_level())
    if "HF_HUB_DISABLE_TELEMETRY" not in os.environ:  # TRL reports each trainer; set the variable to 0 to allow it
        huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    if args.device.type == "cpu" and args.world_size == 1:
        torch.set_num_threads(joblib.cpu_count())  # `accelerate launch` sets OMP_NUM_THREADS=1
    if args.bf16 and not has_bfloat16(args.device):
        logger.warning("`bf16` is emulated on this %s, which is slow: set `bf16: false`", args.device.type)
    set_seed(args.seed)

    checkpoint = newest_checkpoint(output_dir)
    recipe = output_dir / "recipe.yaml"
    if checkpoint and recipe.exists():
        defaults = {f.name: f.default for t in argument_types for f in dataclasses.fields(t)}
        earlier = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        _check_same_recipe(defaults | earlier, defaults | given, output_dir)
    if args.process_index == 0:
        write_recipe(recipe, given)
    if checkpoint:
        logger.info("resuming from %s", checkpoint)
    return checkpoint


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes bfloat16 in hardware (CPU: AMX, AVX512-BF16, Arm BF16). Emulation is slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def train_or_resume(trainer: Trainer, checkpoint: str | None) -> dict[str, float]:
    """Train to the end, from `checkpoint` if given, and return the metrics with the prefix `train_`.

    `Trainer.train` takes one extra step when it resumes from the last checkpoint. A run that had finished or stopped
    early is therefore not trained again: its weights (the best ones with `load_best_model_at_end`) and metrics are
    loaded instead.

    Raises:
        UserError: the evaluation does not compute `metric_for_best_model`.
    """
    output_dir = Path(str(trainer.args.output_dir))
    state = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json") if checkpoint else None
    control = state.stateful_callbacks.get("TrainerControl", {}) if state else {}
    stopped_early = control.get("args", {}).get("should_training_stop", False)
    if checkpoint and state and (state.global_step >= state.max_steps or stopped_early):
        best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
        # Private: no public method loads every kind of checkpoint (adapter, shards, FSDP) without a training step
        trainer._load_from_checkpoint(best or checkpoint)
        trainer.state = state
        saved = output_dir / "train_results.json"
        return json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    try:
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    except KeyError as error:  # raised after the first evaluation
        if "metric_for_best_model" not in str(error):
            raise
        found = str(error).split("metrics are: ")[-1].split(". Consider")[0]
        raise UserError(
            f"`metric_for_best_model` is {trainer.args.metric_for_best_model}: an evaluation computes {found}."
        ) from error
    metrics = {f"train_{key.removeprefix('train_')}": value for key, value in metrics.items()}
    if checkpoint is None and "train_num_tokens" in metrics:  # a resumed run times only some of its tokens
        metrics["train_tokens_per_second"] = metrics["train_num_tokens"] / metrics["train_runtime"]
    metrics |= {f"train_{key}": value for key, value in peak_memory().items()}
    trainer.save_metrics("train", metrics, combined=False)
    return metrics


def make_readable(folder: Path) -> None:
    """Give weights the default permissions: safetensors makes them readable by the owner only, not by other users
    of the disk or a container."""
    mask = os.umask(0)
    os.umask(mask)
    for path in Path(folder).glob("*.safetensors"):
        path.chmod(0o666 & ~mask)


def newest_checkpoint(output_dir: Path) -> str | None:
    """Return the newest complete `checkpoint-N` in `output_dir`, or None.

    A crash while saving leaves a truncated checkpoint that `Trainer` fails to load (transformers#35782). Such a
    checkpoint is skipped with a warning.
    """
    found = [
        (int(m[1]), path) for path in output_dir.glob("checkpoint-*") if (m := re.fullmatch(r"\D+-(\d+)", path.name))
    ]
    for _, path in sorted(found, reverse=True):
        reason = _broken(path)
        if reason is None:
            return str(path)
        logger.warning("%s is incomplete (%s): trying the previous checkpoint", path, reason)
    return None


def _broken(checkpoint: Path) -> str | None:
    """Return why a checkpoint is incomplete, or None. `Trainer` writes `trainer_state.json` last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "trainer_state.json is missing or truncated"
    weights = [*checkpoint.glob("adapter_model*.safetensors"), *checkpoint.glob("model*.safetensors")]
    if not weights:
        return "no weights"
    for path in weights:
        # Layout of safetensors: 8 bytes of header length, a JSON header with offsets, the tensors
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            try:
                header = json.loads(stream.read(length))
            except ValueError:
                return f"{path.name} is truncated"
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if path.stat().st_size != 8 + length + max(ends, default=0):
            return f"{path.name} is truncated"
    for name in ("optimizer.pt", "scheduler.pt"):
        if not (checkpoint / name).exists() or not zipfile.is_zipfile(checkpoint / name):
            return f"{name} is missing or truncated"
    return None


def _check_same_recipe(earlier: dict[str, Any], now: dict[str, Any], output_dir: Path) -> None:
    changed = [
        f"`{key}` was {earlier.get(key)} and is {now[key]}"
        for key in now
        if key not in FREE_KEYS and earlier.get(key) != now[key]
    ]
    if changed:
        raise UserError(
            f"`output_dir` {output_dir} holds a run with another recipe ({'; '.join(changed[:3])}): choose another "
            "`output_dir`, or delete this one."
        )


def base_model_commit(model_args: ModelConfig) -> str | None:
    """Return the commit that `model_revision` resolved to on the Hub; None for a local folder."""
    name = str(model_args.model_name_or_path)
    if Path(name).exists():
        return None
    config = cached_file(name, "config.json", revision=model_args.model_revision)
    return extract_commit_hash(config, None) or model_args.model_revision


def describe_run(
    model_args: ModelConfig, data_args: DataArguments, model: PreTrainedModel, device: torch.device
) -> dict[str, Any]:
    """Return what `task.json` holds for every task: what serving needs to load the same base model, and facts for the
    model card."""
    quantization = getattr(model.config, "quantization_config", None)
    return {
        "version": TASK_VERSION,
        "base_model": model_args.model_name_or_path,
        "base_model_revision": base_model_commit(model_args),
        "dtype": model_args.dtype,
        "quantization": quantization.to_diff_dict() if quantization else None,
        "data": {key: getattr(data_args, key) for key in DATA_FACTS if getattr(data_args, key)},
        "command": " ".join(["accelerate launch", *sys.argv]),
        "versions": {name: version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
    }


def peak_memory() -> dict[str, float]:
    """Peak memory of this process so far, in GB: RAM and, with CUDA, GPU memory."""
    peak = {"peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}  # Linux counts in KiB
    if torch.cuda.is_available():
        peak["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return peak


def add_early_stopping(trainer: Trainer, patience: int | None, checkpoint: str | None) -> None:
    """Let training stop after `patience` evaluations in a row without a better `metric_for_best_model`; None never
    does. Transformers begins to count anew when a run resumes; here it goes on, so that both runs stop at one step.

    Args:
        trainer: its training rows and arguments tell how often it evaluates.
        patience: evaluations.
        checkpoint: from which the run resumes.
    """
    if patience is None:
        return
    callback = EarlyStoppingCallback(patience)
    if checkpoint:
        saved = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json").stateful_callbacks
        counted = saved.get(EarlyStoppingCallback.__name__, {}).get("attributes", {})
        callback.early_stopping_patience_counter = counted.get("early_stopping_patience_counter", 0)
    trainer.add_callback(callback)
    args, rows = trainer.args, len(cast(Dataset, trainer.train_dataset))
    steps_per_epoch = math.ceil(rows / (args.train_batch_size * args.world_size) / args.gradient_accumulation_steps)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)
    every = steps_per_epoch if args.eval_strategy == "epoch" else args.eval_steps or 1
    evaluations = int(steps / math.ceil(every * steps if every < 1 else every))
    if evaluations <= patience:  # the first evaluation is the first best one
        logger.warning(
            "`early_stopping_patience` is %d, and a run of %d steps evaluates %d times: it cannot stop early",
            patience, steps, evaluations,
        )  # fmt: skip
