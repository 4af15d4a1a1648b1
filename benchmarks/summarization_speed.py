"""Rows per second of `run_summarization.py` against transformers' example script, alternately on the same machine.

    python -m benchmarks.summarization_speed

Training uses the data and model of the quickstart, transformers' `Seq2SeqTrainer` and all weights:

- official: the defaults of transformers' `run_summarization.py` (float32, batches of 8 in random order, learning rate
  5e-5 with linear decay).
- official_batch: the same with the batch size of the recipe.
- ours: the recipe (bfloat16, batches grouped by length).

Evaluation uses the same weights and rows:

- official: `Seq2SeqTrainer.predict` with `predict_with_generate` in batches of 8 (loss and greedy summaries of at most
  128 tokens).
- official_batch: the same with the batch size of the recipe.
- ours: `write_summaries`, which sorts by length.

Needs `make quickstart-summarization` (data, model and fine-tuned model). Writes results/summarization_speed.json.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
import transformers
from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)

from benchmarks.classification_speed import Clock
from run_summarization import ARGUMENTS, make_task, to_pairs
from utils.arguments import parse_recipe
from utils.data.columns import Columns
from utils.data.load import load_splits
from utils.evaluation.summaries import predict_summaries
from utils.json_files import write_json
from utils.metrics.statistics import text_statistics
from utils.modeling import load_base_model, load_tokenizer
from utils.sampling import set_train_order
from utils.seq2seq import load_seq2seq_config, set_generation, token_loss

RECIPE, MODEL = "recipes/quickstart/summarization.yaml", "outputs/quickstart-summarization"
STEPS = {"official": 60, "official_batch": 12, "ours": 40}  # steps per round
ROUNDS, QUALITY_ROWS, TEST_ROWS = 3, 3000, 400


def make_trainer(way: str, parsed: tuple, model: Any, tokenizer: Any, rows: Dataset, **more: Any) -> Seq2SeqTrainer:
    """Return the trainer of a way. Training changes `model` in place."""
    recipe, ours = parsed[3], way == "ours"
    batch = recipe.per_device_train_batch_size
    eval_batch = recipe.per_device_eval_batch_size
    args = Seq2SeqTrainingArguments(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=ours, save_strategy="no", report_to="none", seed=recipe.seed,
        per_device_train_batch_size=8 if way == "official" else batch, disable_tqdm=True, logging_strategy="no",
        per_device_eval_batch_size=8 if way == "official" else eval_batch, predict_with_generate=True,
        generation_max_length=128, learning_rate=recipe.learning_rate if ours else 5e-5,
        lr_scheduler_type=recipe.lr_scheduler_type if ours else "linear",
        warmup_steps=recipe.warmup_steps if ours else 0,
        train_sampling_strategy="group_by_length" if ours else "random", **more,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        processing_class=tokenizer,
        compute_loss_func=token_loss(0.0) if ours else None,
    )
    if ours:
        set_train_order(trainer, rows, target_lengths=[len(ids) for ids in rows["labels"]])
    return trainer


def rouge1(texts: list[str], references: list[str]) -> float:
    return float(text_statistics(texts, references)["rouge1"][:, 0].mean())


def main() -> None:
    torch.set_num_threads(joblib.cpu_count())
    transformers.utils.logging.set_verbosity_error()
    parsed = parse_recipe(ARGUMENTS, [RECIPE])
    model_args, data_args, summary_args, recipe = parsed[:4]
    columns = Columns("text", "summary")
    splits, _ = load_splits(data_args, columns, cluster_columns=["text"], seed=recipe.seed)
    tokenizer = load_tokenizer(model_args)
    config = load_seq2seq_config(model_args, False)
    task = make_task(summary_args, config, recipe.seed, tokenizer, columns, splits["train"])
    _, pairs = to_pairs(splits["train"], tokenizer, task)
    train = Dataset.from_dict({key: pairs[key] for key in ("input_ids", "labels")}).shuffle(seed=0)
    table, test = to_pairs(splits["test"].take(TEST_ROWS), tokenizer, task)
    references = table["reference"]

    def load(way: str) -> Any:
        set_seed(recipe.seed)
        model_args.attn_implementation = parsed[-1]["attn_implementation"] if way == "ours" else None
        return load_base_model(model_args, AutoModelForSeq2SeqLM, None, torch.device("cpu"))

    found: dict[str, list[float]] = {way: [] for way in STEPS}
    for number in range(ROUNDS):
        for way, steps in STEPS.items():
            clock = Clock()
            trainer = make_trainer(way, parsed, load(way), tokenizer, train, max_steps=steps + 3)
            trainer.add_callback(clock)
            trainer.train()
            found[way].append(trainer.args.per_device_train_batch_size * clock.steps / clock.seconds)
            print(f"round {number}: training, {way}: {found[way][-1]:.1f} rows/s", flush=True)
    results = summary_of("train_rows_per_second", found)

    model = AutoModelForSeq2SeqLM.from_pretrained(MODEL)
    rows = Dataset.from_dict({key: test[key] for key in ("input_ids", "labels")})
    written: dict[str, list[str]] = {}
    found = {way: [] for way in STEPS}
    for number in range(ROUNDS):
        for way in STEPS:
            if way == "ours":
                set_generation(model, tokenizer, task["stop"], task["generation"])
                start = time.perf_counter()
                output = predict_summaries(model, tokenizer, test, task, recipe.per_device_eval_batch_size, "ours")
                written[way] = output["prediction"]
            else:
                trainer = make_trainer(way, parsed, model, tokenizer, rows, max_steps=1)
                start = time.perf_counter()
                ids = trainer.predict(rows).predictions
                ids = np.where(ids < 0, tokenizer.pad_token_id, ids)
                written[way] = tokenizer.batch_decode(ids, skip_special_tokens=True)
            found[way].append(len(rows) / (time.perf_counter() - start))
            print(f"round {number}: evaluation, {way}: {found[way][-1]:.1f} rows/s", flush=True)
    results |= summary_of("evaluation_rows_per_second", found)
    for way, texts in written.items():
        results[f"evaluation_rouge1_{way}"] = rouge1(texts, references)
    results["evaluation_different_summaries"] = sum(
        a.strip() != b.strip() for a, b in zip(written["official"], written["ours"], strict=True)
    )

    few = train.select(range(QUALITY_ROWS))
    for way in ("official", "ours"):
        trainer = make_trainer(way, parsed, load(way), tokenizer, few, num_train_epochs=1)
        trainer.train()
        set_generation(trainer.model, tokenizer, task["stop"], task["generation"])
        output = predict_summaries(trainer.model, tokenizer, test, task, recipe.per_device_eval_batch_size, way)
        results[f"rouge1_{way}_one_epoch_of_{QUALITY_ROWS}"] = rouge1(output["prediction"], references)
    results |= {
        "test_rows": TEST_ROWS,
        "cpu": torch.cpu.get_capabilities()["cpu_name"],
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "command": "python -m benchmarks.summarization_speed",
    }
    write_json(Path("benchmarks/results/summarization_speed.json"), results)
    print(results)


def summary_of(name: str, found: dict[str, list[float]]) -> dict[str, float]:
    """Return medians over the rounds, and medians of the ratios per round."""
    results = {f"{name}_{way}": statistics.median(values) for way, values in found.items()}
    for way in ("official", "official_batch"):
        ratios = [ours / other for ours, other in zip(found["ours"], found[way], strict=True)]
        results[f"{name}_ours_over_{way}"] = statistics.median(ratios)
    return results


if __name__ == "__main__":
    main()
