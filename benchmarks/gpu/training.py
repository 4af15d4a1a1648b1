"""Steps of QLoRA training: a recipe as `run_qa_sft.py` runs it, and TRL's command with the same model, LoRA and rows.

An epoch is one optimizer step over the same rows, however a way batches them: loss and gradient norm of the first step
are comparable, and the time of a step is that of the same work.
"""

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainerCallback, set_seed
from trl import SFTTrainer
from trl.scripts.sft import make_parser

from benchmarks.gpu.models import model_folder, question_rows
from run_qa_sft import ARGUMENTS, make_task, to_training_rows
from utils.adapters import get_lora_config
from utils.arguments import parse_recipe
from utils.data.columns import Columns
from utils.modeling import get_quantization_config, load_base_model, load_tokenizer

RECIPES = {"phi3": "phi3_qlora", "phi2": "phi2_qlora", "qwen3": "phi3_qlora"}
QWEN3_LORA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROWS, STEPS = 16, 5  # rows per step, as in the recipes; steps, of which the first warms up
LENGTH, TINY_LENGTH = 1024, 64
ONE_STEP = 1000  # accumulate more batches than an epoch has: one step per epoch
Row = tuple[str, dict[str, Any]]


class Clock(TrainerCallback):
    """Record when training begins and when each step ends, with all kernels done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times = [time.perf_counter()]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Seconds of each step. The first, in which memory is allocated and kernels are compiled, counts only if it is
        the only one."""
        each = [b - a for a, b in pairwise(self.times)]
        return each[1:] or each


def as_flags(values: dict[str, Any]) -> list[str]:
    lists = {key: value if isinstance(value, list) else [value] for key, value in values.items()}
    return [part for key, value in lists.items() for part in (f"--{key}", *map(str, value))]


def run_flags(folder: Path, length: int, steps: int) -> dict[str, Any]:
    """Flags of both ways: no evaluation, no checkpoints, one step per epoch."""
    return {
        "model_name_or_path": folder, "output_dir": tempfile.mkdtemp(), "max_length": length,
        "num_train_epochs": steps, "gradient_accumulation_steps": ONE_STEP, "eval_strategy": "no",
        "save_strategy": "no", "logging_steps": 1, "report_to": "none", "disable_tqdm": True, "warmup_steps": 0,
        "seed": 42,
    }  # fmt: skip


def recipe_parts(name: str, folder: Path, rows: Dataset, length: int, switches: dict[str, Any], steps: int) -> tuple:
    """Parse the recipe with its switches as flags, and tokenize the rows as `run_qa_sft.py` does."""
    flags = run_flags(folder, length, steps) | {"load_best_model_at_end": False}
    if not torch.cuda.is_available():
        flags |= {"use_cpu": True, "optim": "adamw_torch"}
    if name == "qwen3":
        flags["lora_target_modules"] = QWEN3_LORA
    parsed = parse_recipe(ARGUMENTS, [f"recipes/{RECIPES[name]}.yaml", *as_flags(flags | switches)])
    model_args, _, qa_args, args, _ = parsed
    if qa_args.options_column:  # `load_splits` joins the recipe's four columns
        columns = Columns("question", lists=("options",), index=qa_args.answer_index_column)
    else:
        columns = Columns("question", target="answer")
    tokenizer = load_tokenizer(model_args)
    train, _ = to_training_rows(rows, tokenizer, make_task(qa_args, args, tokenizer, columns, rows))
    return model_args, args, tokenizer, train


def recipe_trainer(
    name: str, folder: Path, rows: Dataset, length: int, switches: dict[str, Any], steps: int
) -> SFTTrainer:
    """Return the trainer of sections 3 and 4 of `run_qa_sft.py`."""
    model_args, args, tokenizer, train = recipe_parts(name, folder, rows, length, switches, steps)
    quantization = get_quantization_config(model_args, args.device)
    base = load_base_model(model_args, AutoModelForCausalLM, quantization, args.device)
    peft_config = get_lora_config(model_args, base, "CAUSAL_LM")
    set_seed(args.seed)
    return SFTTrainer(model=base, args=args, train_dataset=train, processing_class=tokenizer, peft_config=peft_config)


def trl_trainer(
    recipe: trl.ModelConfig, folder: Path, train: Dataset, length: int, switches: dict[str, Any], steps: int
) -> SFTTrainer:
    """Return the trainer of the command `trl sft`, with the recipe's quantization and LoRA, and its tokenized rows."""
    same = ("load_in_4bit", "use_bnb_nested_quant", "use_peft", "lora_r", "lora_alpha", "lora_dropout")
    flags = {key: getattr(recipe, key) for key in (*same, "lora_target_modules")} | run_flags(folder, length, steps)
    if not torch.cuda.is_available():
        flags["use_cpu"] = True
    _, args, model_args, _ = make_parser().parse_args_and_config(as_flags(flags | switches))
    args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    set_seed(args.seed)
    return SFTTrainer(
        model=str(folder),
        args=args,
        train_dataset=train,
        quantization_config=trl.get_quantization_config(model_args),
        peft_config=trl.get_peft_config(model_args),
    )


def useful_flops(model: PreTrainedModel, rows: Dataset) -> float:
    """Count the floating-point operations that a LoRA step over the rows has to do. A multiply-add is two operations.

    - Frozen weights: 2 per weight and token forward, and 2 backward, for the gradient of the activations alone.
    - LoRA: 2 forward, 4 backward.
    - Attention: scores and values of the tokens before each token, once forward and twice backward.
    - The language-model head: frozen, and only for tokens with a label.

    Not counted: what checkpointing computes again, padding, dequantization, and everything that is no matrix product.
    """
    head, frozen, trained = model.get_output_embeddings(), 0, 0
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            size = module.in_features * module.out_features  # of a 4-bit layer, too
            if module.weight.requires_grad:
                trained += size
            else:
                frozen += size
    config = model.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    lengths = [len(ids) for ids in rows["input_ids"]]
    labelled = sum(label != -100 for labels in rows["labels"] for label in labels)
    attention = 6 * config.num_hidden_layers * config.num_attention_heads * head_size * sum(n * n for n in lengths)
    weights = (4 * frozen + 6 * trained) * sum(lengths)
    return weights + attention + 4 * config.vocab_size * config.hidden_size * labelled


def gpu_memory() -> dict[str, float]:
    """Peak GPU memory of this process since the last reset, in GB: tensors, and what PyTorch held for them."""
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9,
        "peak_reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
    }


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def train(trainer: Trainer) -> list[float]:
    """Train, and return the seconds of each step after the first."""
    clock = Clock()
    trainer.add_callback(clock)
    free_memory()
    try:
        trainer.train()
    finally:
        trainer.remove_callback(clock)
    return clock.seconds()


def measure_training(
    folder: Path, tiny: bool, name: str, way: str, switches: dict[str, Any], steps: int = STEPS
) -> Iterator[Row]:
    """Measure the steps of one way: "recipe" or "trl", with `switches` as further flags."""
    start = time.perf_counter()
    path = model_folder(name, folder, tiny)
    built = time.perf_counter()
    length = TINY_LENGTH if tiny else LENGTH
    rows = question_rows(ROWS, length, choices=name == "phi2")
    model_args, _, _, plain = recipe_parts(name, path, rows, length, {}, steps)
    if way == "recipe":
        trainer = recipe_trainer(name, path, rows, length, switches, steps)
    else:
        trainer = trl_trainer(model_args, path, plain, length, switches, steps)
    loaded = time.perf_counter()
    each = train(trainer)
    seconds = statistics.median(each)
    history = [log for log in trainer.state.log_history if "grad_norm" in log]
    tokens = sum(len(ids) for ids in plain["input_ids"])
    model = trainer.accelerator.unwrap_model(trainer.model)
    yield (
        "",
        {
            "tokens_per_second": tokens / seconds,
            "tflops": useful_flops(model, plain) / seconds / 1e12,
            **gpu_memory(),
            "loss": history[0]["loss"],
            "grad_norm": history[0]["grad_norm"],
            "losses": [log["loss"] for log in history],
            "tokens_per_step": tokens,
            "seconds_per_step": each,
            "batch": trainer.args.per_device_train_batch_size,
            "attention": model.config._attn_implementation,
            "make_model_seconds": built - start,
            "load_seconds": loaded - built,
        },
    )
