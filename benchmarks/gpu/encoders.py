"""Training steps of the encoder and encoder-decoder recipes, against transformers' example scripts on the same rows.

- recipe: the recipe, with the functions of its script (LoRA, bfloat16, batches grouped by length).
- official: the defaults of the example script (float32, all weights, batches of 8 in random order, texts padded to the
  recipe's maximum length; the summarizer pads to the longest of a batch, as its script does).
- official_best: the same with the recipe's batch size, bfloat16 and padding to the longest of a batch.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
    set_seed,
)

import run_classification
import run_hierarchical
import run_summarization
from benchmarks.gpu.models import encoder_rows, model_folder
from benchmarks.gpu.training import Row, as_flags, gpu_memory, train
from utils.adapters import get_lora_config
from utils.arguments import parse_recipe
from utils.encoding import ChunkCollator, load_classifier
from utils.heads import get_optimizer, head_names
from utils.hierarchy import LabelTree, hierarchical_loss
from utils.losses import classification_loss
from utils.modeling import get_quantization_config, load_base_model
from utils.sampling import set_train_order
from utils.seq2seq import token_loss

RECIPES = {"distilbert": "distilbert_lora", "bioclinicalbert": "bioclinicalbert_qlora", "flan_t5": "flan_t5_lora"}
SCRIPTS = {"distilbert": run_classification, "bioclinicalbert": run_hierarchical, "flan_t5": run_summarization}
CLASSES = {"distilbert": 40, "bioclinicalbert": 5, "flan_t5": 0}  # of the recipes' data
TREE = [("General", "General"), *(("Specific", f"Specific {i}") for i in range(4))]  # as Bio_ClinicalBERT's recipe has


def parse(name: str, path: Path, steps: int) -> tuple[Any, ...]:
    flags = {
        "model_name_or_path": path, "output_dir": tempfile.mkdtemp(), "max_steps": steps, "eval_strategy": "no",
        "save_strategy": "no", "load_best_model_at_end": False, "report_to": "none", "disable_tqdm": True,
        "logging_steps": 1, "use_cpu": not torch.cuda.is_available(),
    }  # fmt: skip
    return parse_recipe(SCRIPTS[name].ARGUMENTS, [f"recipes/{RECIPES[name]}.yaml", *as_flags(flags)])


def recipe_trainer(name: str, path: Path, parsed: tuple[Any, ...], rows: Dataset) -> Trainer:
    """Return the trainer of sections 3 and 4 of the script."""
    model_args, args, tokenizer = parsed[0], parsed[-2], AutoTokenizer.from_pretrained(path)
    set_seed(args.seed)
    if name == "flan_t5":
        quantization = get_quantization_config(model_args, args.device)
        base = load_base_model(model_args, AutoModelForSeq2SeqLM, quantization, args.device)
        model = get_peft_model(base, get_lora_config(model_args, base, "SEQ_2_SEQ_LM"))
        trainer = Seq2SeqTrainer(
            model=model,
            args=args,
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model),
            compute_loss_func=token_loss(args.label_smoothing_factor),
        )
        set_train_order(trainer, rows, target_lengths=[len(ids) for ids in rows["labels"]])
        return trainer
    encoder_args, task_args = parsed[2:4]
    tree = LabelTree.from_paths(TREE, list(range(len(TREE))))
    names = tree.node_names if name == "bioclinicalbert" else [f"class {i}" for i in range(CLASSES[name])]
    heads = head_names(model_args, AutoModelForSequenceClassification, names)
    base = load_classifier(model_args, encoder_args, args.device, names, heads)
    model = get_peft_model(base, get_lora_config(model_args, base, "SEQ_CLS", heads))
    counts, imbalance, gamma = np.bincount(rows["labels"]), task_args.class_imbalance, task_args.focal_gamma
    loss = classification_loss(counts, imbalance, gamma)
    if name == "bioclinicalbert":
        loss = hierarchical_loss(tree, counts, task_args.level_weights, gamma, imbalance)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=rows,
        data_collator=ChunkCollator(tokenizer.pad_token_id, encoder_args.max_length),
        compute_loss_func=loss,
        optimizer_cls_and_kwargs=get_optimizer(model, args, heads, encoder_args.head_learning_rate),
    )
    set_train_order(trainer, rows)
    return trainer


def official_trainer(name: str, path: Path, recipe: Any, rows: Dataset, width: int, best: bool) -> Trainer:
    """Return the trainer of transformers' `run_classification.py` or `run_summarization.py`."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    options: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(), "max_steps": recipe.max_steps, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "logging_steps": 1, "use_cpu": not torch.cuda.is_available(), "seed": recipe.seed,
    }  # fmt: skip
    if best:
        options |= {"bf16": True, "per_device_train_batch_size": recipe.per_device_train_batch_size}
    set_seed(recipe.seed)
    if name == "flan_t5":
        model = AutoModelForSeq2SeqLM.from_pretrained(path)
        collator = DataCollatorForSeq2Seq(tokenizer, model)
        return Seq2SeqTrainer(model, Seq2SeqTrainingArguments(**options), collator, rows)

    def pad(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return dict(tokenizer.pad(batch, "longest" if best else "max_length", max_length=width, return_tensors="pt"))

    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=CLASSES[name])
    return Trainer(model, TrainingArguments(**options), pad, rows)


def measure_encoder(folder: Path, tiny: bool, name: str, way: str, steps: int) -> Iterator[Row]:
    """Measure the steps of one way: "recipe", "official" or "official_best"."""
    path = model_folder(name, folder, tiny)
    parsed = parse(name, path, 3 if tiny else steps)
    target = parsed[2].max_target_length if name == "flan_t5" else None
    width = parsed[2].max_source_length if name == "flan_t5" else parsed[2].max_length
    rows = encoder_rows(512, 32 if tiny else width, target and (8 if tiny else target), CLASSES[name])
    if way == "recipe":
        trainer = recipe_trainer(name, path, parsed, rows)
    else:
        trainer = official_trainer(name, path, parsed[-2], rows, 32 if tiny else width, way == "official_best")
    each = train(trainer)
    history = [log for log in trainer.state.log_history if "grad_norm" in log]
    batch = trainer.args.per_device_train_batch_size
    yield (
        "",
        {
            "rows_per_second": batch * len(each) / sum(each),  # lengths differ from step to step: a mean, not a median
            **gpu_memory(),
            "loss": history[0]["loss"],
            "grad_norm": history[0]["grad_norm"],
            "batch": batch,
            "steps": len(each),
        },
    )
