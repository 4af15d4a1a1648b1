"""Tokens per second of `run_qa_sft.py` against the command `trl sft`, alternately on the same machine.

    python -m benchmarks.qa_speed

All ways train SmolLM2 with the LoRA of the quickstart on the same tokenized rows of its data. A step is the same rows
in every way, however a way batches them, so loss and gradient norm of the first step have to agree, but for rounding.

- ours: recipes/quickstart/qa.yaml. ours_4bit: with `--load_in_4bit`.
- trl: the defaults of `trl sft` (float32 weights, bfloat16 autocast, 8 rows per batch, checkpointing).
- trl_best: the fastest flags that were found for it here, which are those of the recipe: bfloat16 weights, no
  checkpointing, batches of 6 rows of similar length. Packing was slower: a row fills most of the recipe's length.

Tokens are those of the rows, without padding. Each measurement has a process of its own, for its peak memory. Needs
the folder `quickstart/`. Writes results/qa_speed.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import utils  # noqa: F401  # as the scripts do

# isort: split
import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM
from trl import SFTTrainer

from benchmarks.gpu.cases import matmul_peak
from benchmarks.gpu.training import as_flags, run_flags, train, trl_trainer, useful_flops
from run_qa_sft import ARGUMENTS, make_task, to_training_rows
from utils.adapters import add_adapter
from utils.arguments import parse_recipe
from utils.chat_tokenizer import load_chat_tokenizer
from utils.data.load import load_splits
from utils.data.questions import question_columns
from utils.evaluation.identity import machine
from utils.examples import add_examples
from utils.json_files import write_json
from utils.modeling import get_quantization_config, load_base_model
from utils.run import peak_memory
from utils.sampling import set_train_order

RECIPE, ROWS, STEPS, ROUNDS = "recipes/quickstart/qa.yaml", 18, 2, 3
GROUPED = {"per_device_train_batch_size": 6, "train_sampling_strategy": "group_by_length"}
WAYS: dict[str, dict[str, Any]] = {
    "ours": {},
    "trl": {},
    "ours_4bit": {"load_in_4bit": True},
    "trl_best": GROUPED | {"dtype": "bfloat16", "gradient_checkpointing": False},
}


def prepare(flags: dict[str, Any]) -> tuple[Any, ...]:
    """Parse the recipe with `flags`, and tokenize `ROWS` training rows as `run_qa_sft.py` does."""
    parsed = parse_recipe(ARGUMENTS, [RECIPE, *as_flags(flags)])
    model_args, data_args, qa_args, args, _ = parsed
    data_args.max_train_samples = 2000  # enough to draw from; the rest would only be tokenized
    tokenizer = load_chat_tokenizer(model_args, args, None)
    columns = question_columns(data_args, "auto", None, qa_args.answer_column, None, None, None, None)
    splits, _ = load_splits(data_args, columns, cluster_columns=[columns.input], seed=args.seed)
    task = make_task(qa_args, args, tokenizer, columns, splits["train"])
    splits, _, _ = add_examples(splits, task, tokenizer)
    rows, _ = to_training_rows(splits["train"].shuffle(seed=0).take(ROWS), tokenizer, task)
    return model_args, args, tokenizer, task, rows


def measure(way: str) -> dict[str, Any]:
    """Train `STEPS` steps, and return the speed, the peak memory, and loss and gradient norm of the first step."""
    transformers.utils.logging.set_verbosity_error()
    disable_progress_bars()
    torch.set_num_threads(os.cpu_count() or 1)
    folder = Path("quickstart/models/smollm2-135m-instruct")
    flags = run_flags(folder, 256, STEPS) | {"max_steps": STEPS}  # the recipe has 100
    own = WAYS[way] if way.startswith("ours") else {}
    model_args, args, tokenizer, task, rows = prepare(flags | own)
    if way.startswith("ours"):
        quantization = get_quantization_config(model_args, args.device)
        base = load_base_model(model_args, AutoModelForCausalLM, quantization, args.device, False)
        model = add_adapter(base, model_args, task, first_adapter=None)
        trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
        set_train_order(trainer, trainer.train_dataset)
    else:
        trainer = trl_trainer(model_args, folder, rows, 1024, WAYS[way], STEPS)
    seconds = statistics.median(train(trainer))
    first = next(log for log in trainer.state.log_history if "grad_norm" in log)
    tokens = sum(len(ids) for ids in rows["input_ids"])
    flops = useful_flops(trainer.accelerator.unwrap_model(trainer.model), Dataset.from_dict(rows[:]))
    return {
        "tokens_per_second": tokens / seconds, "seconds_per_step": seconds, "loss": first["loss"],
        "grad_norm": first["grad_norm"], "peak_memory_gb": peak_memory()["peak_memory_gb"],
        "share_of_matmul_peak": flops / seconds / matmul_peak(2048), "tokens_per_step": tokens,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, help="measure one way once, and print it")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way)))
        return
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(ROUNDS):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.qa_speed", "--way", way]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number}: {way}: {found[way][-1]}", flush=True)
    medians = {
        way: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for way, rows in found.items()
    }
    results: dict[str, Any] = {"command": "python -m benchmarks.qa_speed", "machine": machine(torch.device("cpu"))}
    results |= {"versions": {module.__name__: module.__version__ for module in (torch, transformers, trl)}}
    results |= {"rounds": ROUNDS, "ways": medians}
    for way in ("trl", "trl_best"):
        ratios = [
            ours["tokens_per_second"] / other["tokens_per_second"]
            for ours, other in zip(found["ours"], found[way], strict=True)
        ]
        results[f"ours_over_{way}"] = statistics.median(ratios)
    write_json(Path("benchmarks/results/qa_speed.json"), results)


if __name__ == "__main__":
    main()
