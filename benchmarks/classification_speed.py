"""Texts per second of `run_classification.py` against alternatives, measured alternately on the same machine.

    python -m benchmarks.classification_speed

Training uses the data and model of the quickstart, the batch size of the recipe, transformers' `Trainer` and all
weights:

- official: as in transformers' `run_classification.py` (float32, every text padded to 128 tokens, random order).
- long: the same, padded to 512 tokens.
- ours: the recipe.

Prediction compares `transformers.pipeline` with `Predictor`, on the same weights and texts in batches of 32.

Needs `make quickstart-classification` (data, model and fine-tuned model). Writes results/classification_speed.json.
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
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments, set_seed

from run_classification import ARGUMENTS
from utils.arguments import parse_recipe
from utils.data.columns import Columns
from utils.data.load import load_splits
from utils.encoding import ChunkCollator, encode_texts
from utils.heads import get_optimizer, head_names, prepare_classifier
from utils.inference import Predictor
from utils.json_files import write_json
from utils.logits import predict_logits
from utils.losses import classification_loss
from utils.modeling import load_base_model, load_tokenizer
from utils.sampling import set_train_order

RECIPE, MODEL = "recipes/quickstart/classification.yaml", "outputs/quickstart-classification"
STEPS = {"official": 10, "long": 4, "ours": 60}  # steps per round, chosen for a similar duration
ROUNDS, QUALITY_ROWS = 3, 3000


class Clock(TrainerCallback):
    """Measure the seconds from the end of the third step, when memory is allocated, to the end of the last step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - getattr(self, "start", time.perf_counter())
        self.steps = state.global_step - 3


def make_trainer(way: str, rows: Dataset, labels: np.ndarray, names: list[str], parsed: tuple, **more: Any) -> Trainer:
    model_args, _, encoder_args, class_args, recipe = parsed[:5]
    set_seed(recipe.seed)
    ours = way == "ours"
    heads = head_names(model_args, AutoModelForSequenceClassification, names)
    model_args.attn_implementation = parsed[-1]["attn_implementation"] if ours else None
    tokenizer = load_tokenizer(model_args)
    kind, device = AutoModelForSequenceClassification, torch.device("cpu")
    model = load_base_model(model_args, kind, None, device, False, names, heads)
    width = {"official": 128, "long": 512, "ours": None}[way]

    def padded(batch: list[dict]) -> dict[str, torch.Tensor]:
        return dict(tokenizer.pad(batch, padding="max_length", max_length=width, return_tensors="pt"))

    args = TrainingArguments(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=ours, save_strategy="no", report_to="none", seed=recipe.seed,
        per_device_train_batch_size=recipe.per_device_train_batch_size, disable_tqdm=True, logging_strategy="no",
        learning_rate=recipe.learning_rate if ours else 5e-5, lr_scheduler_type=recipe.lr_scheduler_type,
        train_sampling_strategy="group_by_length" if ours else "random", **more,
    )  # fmt: skip
    if not ours:
        return Trainer(model=model, args=args, train_dataset=rows, data_collator=padded)
    prepare_classifier(model, heads, encoder_args.pooling, encoder_args.dropout)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=rows,
        data_collator=ChunkCollator(tokenizer.pad_token_id, encoder_args.max_length),
        compute_loss_func=classification_loss(np.bincount(labels).tolist(), class_args.class_imbalance),
        optimizer_cls_and_kwargs=get_optimizer(model, args, heads, encoder_args.head_learning_rate),
    )
    set_train_order(trainer, rows)
    return trainer


def training_speed(parsed: tuple, splits: Any) -> dict[str, Any]:
    model_args, _, encoder_args, class_args, recipe = parsed[:5]
    tokenizer = load_tokenizer(model_args)
    names = splits["train"].features["label"].names
    encoded = {}
    for split in ("train", "test"):
        ids, _ = encode_texts(tokenizer, splits[split]["text"], encoder_args.max_length)
        encoded[split] = Dataset.from_dict({"input_ids": ids, "labels": splits[split]["label"]})
    rows = encoded["train"].shuffle(seed=0)
    found: dict[str, list[float]] = {way: [] for way in STEPS}
    for number in range(ROUNDS):
        for way, steps in STEPS.items():
            clock = Clock()
            trainer = make_trainer(way, rows, np.array(rows["labels"]), names, parsed, max_steps=steps + 3)
            trainer.add_callback(clock)
            trainer.train()
            found[way].append(recipe.per_device_train_batch_size * clock.steps / clock.seconds)
            print(f"round {number}: {way}: {found[way][-1]:.1f} texts/s", flush=True)
    results: dict[str, Any] = {f"train_texts_per_second_{way}": statistics.median(f) for way, f in found.items()}
    for way in ("official", "long"):
        ratios = [ours / other for ours, other in zip(found["ours"], found[way], strict=True)]
        results[f"train_ours_over_{way}"] = statistics.median(ratios)
    few = rows.select(range(QUALITY_ROWS))
    for way in ("official", "ours"):
        trainer = make_trainer(way, few, np.array(few["labels"]), names, parsed, num_train_epochs=1)
        trainer.train()
        logits = predict_logits(trainer.model, encoded["test"]["input_ids"], tokenizer.pad_token_id, 128, 32)
        score = f1_score(encoded["test"]["labels"], logits.argmax(axis=1), average="macro")
        results[f"macro_f1_{way}_one_epoch_of_{QUALITY_ROWS}"] = score
        print(f"{way}: macro F1 {score:.3f}", flush=True)
    return results


def predicting_speed(texts: list[str]) -> dict[str, Any]:
    predictor = Predictor.from_pretrained(MODEL)
    predictor.linear, predictor.task["ensemble"] = None, {"prior": 0.0, "linear": 0.0}  # encoder only, as there
    model = AutoModelForSequenceClassification.from_pretrained(MODEL)
    prepare_classifier(model, predictor.task["heads"], predictor.task["pooling"])
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=predictor.tokenizer, device="cpu")
    found: dict[str, list[float]] = {"pipeline": [], "ours": []}
    for number in range(ROUNDS):
        start = time.perf_counter()
        theirs = pipeline(texts, batch_size=32, truncation=True, max_length=predictor.task["max_length"])
        middle = time.perf_counter()
        ours = predictor(texts, batch_size=32)
        found["pipeline"].append(len(texts) / (middle - start))
        found["ours"].append(len(texts) / (time.perf_counter() - middle))
        print(f"round {number}: {found['pipeline'][-1]:.1f} and {found['ours'][-1]:.1f} texts/s", flush=True)
    different = sum(a["label"] != b["prediction"] for a, b in zip(theirs, ours, strict=True))
    ratios = [ours / other for ours, other in zip(found["ours"], found["pipeline"], strict=True)]
    return {
        **{f"predict_texts_per_second_{way}": statistics.median(values) for way, values in found.items()},
        "predict_ours_over_pipeline": statistics.median(ratios),
        "predict_texts": len(texts),
        "predict_different_labels": different,
    }


def main() -> None:
    torch.set_num_threads(joblib.cpu_count())
    transformers.utils.logging.set_verbosity_error()
    parsed = parse_recipe(ARGUMENTS, [RECIPE])
    _, data_args, _, _, recipe = parsed[:5]
    columns = Columns("text", "label", label="label")
    splits, _ = load_splits(data_args, columns, cluster_columns=["text"], seed=recipe.seed)
    results = predicting_speed(splits["test"]["text"][:]) | training_speed(parsed, splits)
    results |= {
        "cpu": torch.cpu.get_capabilities()["cpu_name"],
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "command": "python -m benchmarks.classification_speed",
    }
    write_json(Path("benchmarks/results/classification_speed.json"), results)
    print(results)


if __name__ == "__main__":
    main()
