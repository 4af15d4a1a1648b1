"""Set up a run (output folder, logging, seed), find where to resume, check that it is the same run, describe it."""

import dataclasses
import hashlib
import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import datasets
import huggingface_hub
import joblib
import numpy as np
import torch
import transformers
from accelerate.utils import str_to_bool
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils.hub import cached_file, extract_commit_hash
from trl import ModelConfig

from utils.arguments import DataArguments, UserError, write_recipe
from utils.json_files import TASK_VERSION, hold, read_json, read_yaml, write_json, write_text
from utils.modeling import embeddings_sha256, has_bfloat16

logger = logging.getLogger(__name__)
CODE = Path(__file__).resolve().parents[1]
DATA_FACTS = (
    "dataset_name", "dataset_config_name", "dataset_revision", "train_file", "test_file", "language", "license",
)  # fmt: skip
PACKAGES = (
    "torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets", "huggingface-hub", "numpy",
    "scikit-learn", "rouge-score", "sacrebleu",
)  # fmt: skip
SUMS, SAVING = "SHA256SUMS", ".saving"  # files of a checkpoint; the second is there until the first is written
UNFINISHED = "it was not written to its end"
RECOMPUTATION = {"use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop"}  # torch's options
# Keys that may change when a run resumes: none of them affects a weight.
FREE_KEYS = {
    "output_dir", "logging_steps", "disable_tqdm", "report_to", "run_name", "save_total_limit", "push_to_hub",
    "hub_model_id", "hub_private_repo", "hub_revision", "max_predict_samples", "max_new_tokens",
    "per_device_eval_batch_size", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
    "ensemble", "max_risk", "top_k", "num_beams", "length_penalty", "no_repeat_ngram_size", "use_stemmer",
    "bertscore_model", "bertscore_layer", "evaluate_test", "language", "license",
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
        UserError: the folder is not writable or holds a run with another recipe, or a key cannot work on this machine.
    """
    if not 0 <= args.label_smoothing_factor < 1:
        raise UserError(f"`label_smoothing_factor` is {args.label_smoothing_factor}: give 0 or more, and below 1.")
    if args.n_gpu > 1:  # Trainer would use DataParallel, in which our losses are too large by the number of GPUs
        raise UserError(
            f"{args.n_gpu} GPUs are visible to one process: start the script with `accelerate launch --num_processes "
            f"{args.n_gpu}`, or set CUDA_VISIBLE_DEVICES=0 for one GPU."
        )
    if args.push_to_hub and not given.get("evaluate_test", True):
        raise UserError("`push_to_hub` needs test results for the model card: set `evaluate_test: true`.")
    patience = given.get("early_stopping_patience")
    if patience and (args.eval_strategy == "no" or not args.metric_for_best_model):
        raise UserError("`early_stopping_patience` needs `eval_strategy` (such as epoch) and `metric_for_best_model`.")
    if args.fp16 and args.device.type == "cpu":
        raise UserError("`fp16` is true, which needs a GPU: set `bf16: true`, or `fp16: false` alone.")
    if getattr(args, "activation_offloading", False) and args.device.type == "cpu":
        raise UserError("`activation_offloading` is true, which needs a GPU: set it to false.")
    if unknown := {*(args.gradient_checkpointing_kwargs or {})} - RECOMPUTATION:
        named = ", ".join(sorted(unknown))
        raise UserError(f"`gradient_checkpointing_kwargs` has {named}: give {', '.join(sorted(RECOMPUTATION))}.")
    check_launcher(args)
    check_trackers(args)
    output_dir = Path(str(args.output_dir))
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "_private").mkdir(exist_ok=True)
        holder = hold(output_dir / "_private" / ".lock") if args.process_index == 0 else None
    except OSError as error:
        raise UserError(f"`output_dir` {output_dir} cannot be written ({error.strerror}): choose another.") from error
    if holder:
        raise UserError(f"`output_dir` {output_dir} is in use by process {holder}: wait, stop it, or choose another.")

    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr,
        level=logging.INFO if args.process_index == 0 else logging.ERROR,
    )  # fmt: skip
    for name in ("httpx", "absl"):  # they log every request and every ROUGE scorer
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers.utils.logging.set_verbosity(args.get_process_log_level())
    args.disable_tqdm = args.disable_tqdm or ("disable_tqdm" not in given and not sys.stderr.isatty())
    if args.disable_tqdm:
        datasets.disable_progress_bars()  # and those of evaluations, see `progress`
        transformers.utils.logging.disable_progress_bar()  # of loading weights
    if "HF_HUB_DISABLE_TELEMETRY" not in os.environ:  # TRL reports each trainer; set the variable to 0 to allow it
        huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    if args.device.type == "cpu" and args.world_size == 1:
        torch.set_num_threads(joblib.cpu_count())  # `accelerate launch` sets OMP_NUM_THREADS=1
    if args.bf16 and not has_bfloat16(args.device):
        logger.warning("`bf16` is emulated on this %s, which is slow: set `bf16: false`", args.device.type)
    set_seed(args.seed)
    args.enable_jit_checkpoint = False  # `train_or_resume` saves at SIGTERM in any case, and at the end of a step

    checkpoint = newest_checkpoint(output_dir, args.load_best_model_at_end)
    recipe = output_dir / "recipe.yaml"
    if checkpoint and recipe.exists():
        defaults = {f.name: f.default for t in argument_types for f in dataclasses.fields(t)}
        _check_same_recipe(defaults | read_yaml(recipe), defaults | given, output_dir)
    if args.process_index == 0:
        write_recipe(recipe, given)
    if checkpoint:
        logger.info("resuming from %s", checkpoint)
    return checkpoint


def check_launcher(args: TrainingArguments) -> None:
    """Raise a UserError for settings of `accelerate launch` that are not supported, or that the recipe does not have:
    it says what was trained, also to the run that goes on and to serving."""
    for name in ("FSDP", "DEEPSPEED"):  # processes evaluate different numbers of batches: they would wait forever
        if str_to_bool(os.environ.get(f"ACCELERATE_USE_{name}", "false")):
            raise UserError(f"`accelerate launch` uses {name}, which is not supported: launch without it.")
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "no"
    compiler = args.torch_compile_backend
    for flag, own, key in (("mixed_precision", precision, "bf16"), ("dynamo_backend", compiler, "torch_compile")):
        found = os.environ.get(f"ACCELERATE_{flag.upper()}", "no").lower()
        if found not in ("no", own):
            raise UserError(
                f"`accelerate launch` sets `{flag}` {found}, and the recipe {own or 'no'}: launch with `--{flag} no`, "
                f"and write it into the recipe, such as `{key}: true`."
            )


def newest_checkpoint(output_dir: Path, needs_best: bool = False) -> str | None:
    """Return the newest whole `checkpoint-N` in `output_dir`, or None to train from the start.

    A checkpoint that was not written to its end, or is damaged, is passed over with a warning. Where another run
    cannot tell which weights are best (`needs_best`), the best checkpoint so far has to be whole, too.

    Raises:
        UserError: there are checkpoints, and each is damaged. Nothing is deleted.
    """
    found = [
        (int(m[1]), path) for path in output_dir.glob("checkpoint-*") if (m := re.fullmatch(r"\D+-(\d+)", path.name))
    ]
    damaged = []
    for _, path in sorted(found, reverse=True):
        reason = damage(path)
        if needs_best and not reason and (best := best_checkpoint(path)) and (reason := damage(best)):
            reason = f"the best checkpoint so far is {best.name}: {reason}"
        if reason is None:
            return str(path)
        logger.warning("%s cannot be used (%s): trying the previous checkpoint", path, reason)
        damaged += [f"{path.name}: {reason}"] if reason != UNFINISHED else []
    if damaged:
        raise UserError(
            f"`output_dir` {output_dir} has no whole checkpoint ({'; '.join(damaged[:3])}): bring one back from a "
            "backup, delete the checkpoints to train from the start, or choose another folder."
        )
    return None


def best_checkpoint(checkpoint: Path) -> Path | None:
    """Return the best checkpoint so far, as a whole one says, in the folder where it is now."""
    best = read_json(checkpoint / "trainer_state.json").get("best_model_checkpoint")
    return checkpoint.parent / Path(best).name if best else None


def seal(checkpoint: Path) -> None:
    """Write the sha256 of each file once all are on the disk, which says that the checkpoint is whole."""
    names = sorted(path.name for path in checkpoint.iterdir() if path.name not in (SUMS, SAVING))
    write_text(checkpoint / SUMS, "".join(f"{file_sha256(checkpoint / name)}  {name}\n" for name in names))
    (checkpoint / SAVING).unlink()


def damage(checkpoint: Path) -> str | None:
    """Return why a checkpoint is not as `seal` has left it, or None."""
    names = {path.name for path in checkpoint.iterdir()} if checkpoint.is_dir() else set()
    if SAVING in names or (checkpoint.is_dir() and not names):
        return UNFINISHED
    try:
        lines = (checkpoint / SUMS).read_text(encoding="ascii").splitlines()
        stated = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        return f"{SUMS} is missing or damaged"
    for name in sorted({*stated, *names} - {SUMS}):
        if name not in names or stated.get(name) != file_sha256(checkpoint / name):
            return f"{name} is {'not as it was written' if name in names else 'missing'}"
    return None


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, once it is on the disk."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


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


def check_same_run(trainer: Trainer, checkpoint: str | None) -> None:
    """Raise a UserError if `checkpoint` is of a run on other rows, another base model or another number of processes;
    else keep for the next start what this run trains on.

    Weights of other rows may have learned what is tested now, and with another number of processes each takes other
    rows.
    """
    path = Path(str(trainer.args.output_dir)) / "_private" / "run.json"
    now = {
        "processes": trainer.args.world_size,
        "training split": rows_sha256(trainer.train_dataset),
        "validation split": rows_sha256(trainer.eval_dataset),
        "base model": base_sha256(cast(nn.Module, trainer.model)),
    }
    earlier = read_json(path) if checkpoint else now
    if not earlier:
        logger.warning("%s was written by an earlier version: cannot tell whether its rows are the same", checkpoint)
    for name, value in now.items():
        if (before := earlier.get(name, value)) != value:
            what = f"{before} processes, not {value}" if name == "processes" else f"another {name} than now"
            raise UserError(
                f"`output_dir` {trainer.args.output_dir} holds a run with {what}: give it the same again, choose "
                "another `output_dir`, or delete this one."
            )
    if trainer.is_world_process_zero():
        write_json(path, now)


def rows_sha256(rows: Dataset) -> str:
    """Return a sha256 of rows as the model sees them, in their order: token ids and labels."""
    digest = hashlib.sha256()
    for batch in rows.with_format("numpy").iter(1000):
        for name in sorted(batch):
            cells = [np.atleast_1d(cell) for cell in batch[name]]
            digest.update(np.array([len(cell) for cell in cells]).tobytes() + np.concatenate(cells).tobytes())
    return digest.hexdigest()


def base_sha256(model: nn.Module) -> str:
    """Return a sha256 of some values of each weight that was loaded: not of new heads and adapters, which start at
    random, except for the half of an adapter that starts at zero or, when training goes on from it, as it was; and not
    of quantized weights, which may depend on the device."""
    lora = isinstance(model, PeftModel)
    loaded = model if lora else cast(nn.Module, getattr(model, "base_model", model))
    digest = hashlib.sha256()
    for name, parameter in loaded.named_parameters():
        is_new = lora and "lora_B" not in name and (parameter.requires_grad or ".original_module." in name)
        if parameter.is_floating_point() and not is_new:
            values = parameter.detach().flatten()
            digest.update(values[:: max(1, len(values) // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def base_model_commit(model_args: ModelConfig) -> str | None:
    """Return the commit that `model_revision` resolved to on the Hub; None for a local folder."""
    name = str(model_args.model_name_or_path)
    if Path(name).exists():
        return None
    config = cached_file(name, "config.json", revision=model_args.model_revision)
    return extract_commit_hash(config, None) or model_args.model_revision


def code_commit() -> str | None:
    """Return the git commit of this code; with `-dirty` if files that git tracks differ from it; None without git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
            cwd=CODE, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def describe_run(
    model_args: ModelConfig,
    data_args: DataArguments,
    given: Mapping[str, Any],
    model: PreTrainedModel,
    device: torch.device,
) -> dict[str, Any]:
    """Return what `task.json` holds for every task: what serving needs to load the same base model, and facts for the
    model card. `given` are the keys set by recipe and flags."""
    first = given.get("model_name_or_path")  # differs from that of `model_args` if it is an adapter
    quantization = getattr(model.config, "quantization_config", None)
    return {
        "version": TASK_VERSION,
        "base_model": model_args.model_name_or_path,
        "base_model_revision": base_model_commit(model_args),
        "base_model_sha256": embeddings_sha256(model),
        "first_adapter": None if first == model_args.model_name_or_path else first,
        "dtype": model_args.dtype,
        "quantization": quantization.to_diff_dict() if quantization else None,
        "data": {key: getattr(data_args, key) for key in DATA_FACTS if getattr(data_args, key)},
        "extra_metrics": data_args.extra_metrics,
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


def check_trackers(args: TrainingArguments) -> None:
    """Check before any work that the trackers in `report_to` can log: they would fail once training begins.

    Raises:
        UserError: a tracker is unknown, not installed, or has no login.
    """
    available, trackers = get_available_reporting_integrations(), set(args.report_to or ())
    for name in sorted(trackers - set(available)):
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"`report_to` is {name}: choose from {', '.join(sorted(INTEGRATION_TO_CALLBACK))}, none.")
        raise UserError(
            f"`report_to` is {name}, which is not installed: install it (requirements/trackers.txt has tensorboard, "
            f"trackio and wandb), or choose from {', '.join(sorted(available))}, none."
        )
    if "wandb" in trackers and args.process_index == 0:
        import wandb  # imported here: it takes a second, and few runs use it

        try:
            mode = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
            offline = mode in ("offline", "dryrun", "disabled")
            reason = "" if offline or wandb.login(prompt=False, verify=False) else "there is no login"
        except wandb.errors.Error as error:
            reason = str(error)
        if reason:
            raise UserError(
                f"`report_to` is wandb: {reason}. Run `wandb login` or set the environment variable WANDB_API_KEY; "
                "or set WANDB_MODE=offline to keep the log on this machine."
            )
    if "trackio" in trackers and args.trackio_space_id and huggingface_hub.get_token() is None:
        raise UserError(
            f"`trackio_space_id` is {args.trackio_space_id}, but there is no Hugging Face token: set the environment "
            "variable HF_TOKEN, or run `hf auth login`, or delete the key to keep the log on this machine."
        )
