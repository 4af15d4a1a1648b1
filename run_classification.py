"""Fine-tune an encoder to sort clinical notes into classes, and say whether it beats a linear model.

    accelerate launch run_classification.py recipes/distilbert_lora.yaml
    accelerate launch run_classification.py recipes/distilbert_lora.yaml --train_file notes.csv --label_column ward

To use your own data name its columns in the recipe. To change what the model sees edit `text_template` in the recipe,
or `to_text` below.
"""

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import get_peft_model
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, EvalPrediction, Trainer, TrainingArguments
from trl import ModelConfig

from utils.arguments import DataArguments, UserError, library_checks, parse_recipe, user_errors
from utils.data.load import load_splits
from utils.encoding import (
    ChunkCollator,
    EncoderArguments,
    check_max_length,
    encode_rows,
    load_classifier,
    pool_chunks,
)
from utils.evaluation.classification import calibrate, evaluate
from utils.evaluation.encoders import add_linear_scores, predict_encoders
from utils.evaluation.outputs import save_outputs, write_results
from utils.hub import check_push_access, push
from utils.losses import CLASS_IMBALANCE, classification_loss
from utils.metrics.baselines import classification_baselines
from utils.modeling import (
    autocast_dtype,
    count_parameters,
    get_lora_config,
    get_optimizer,
    head_names,
    load_tokenizer,
)
from utils.prompts import check_adapted, fill_template
from utils.reporting.card import write_card
from utils.reporting.class_report import write_report
from utils.reporting.tables import results_table
from utils.run import describe_run, peak_memory, start_run, train_or_resume
from utils.sampling import set_train_order

logger = logging.getLogger(__name__)


@dataclass
class ClassificationArguments:
    """What this task adds."""

    label_column: str = field(default="label", metadata={"help": "The class: text or a number."})
    class_imbalance: str = field(
        default="none",
        metadata={"help": "How the loss or the sampling makes up for rare classes.", "choices": CLASS_IMBALANCE},
    )
    focal_gamma: float = field(
        default=2.0, metadata={"help": "Focusing parameter of the focal loss; 0 is cross-entropy."}
    )
    top_k: int = field(default=3, metadata={"help": "Report the accuracy of the k likeliest classes, too."})

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise UserError(f"`top_k` is {self.top_k}: give 1 or more.")
        if self.focal_gamma < 0:
            raise UserError(f"`focal_gamma` is {self.focal_gamma}: give 0 or more.")


ARGUMENTS = (ModelConfig, DataArguments, EncoderArguments, ClassificationArguments, TrainingArguments)


# ----- ADAPT HERE: one row of your data -> the text that the model sees
def to_text(row: dict[str, Any], task: dict[str, Any]) -> str:
    """Return the text of a row. `predict.py` knows `text_template` alone (`task.json` keeps it), so what the model
    sees has to come from there; a check in section 2 holds you to that."""
    return fill_template(task["text_template"], task["columns"], row, "text_template")


def make_task(
    encoder_args: EncoderArguments, args: ClassificationArguments, seed: int, tokenizer: Any, train: Dataset
) -> dict[str, Any]:
    """Return what serving needs to read a text as training did, for `task.json`."""
    check_max_length(encoder_args.max_length, tokenizer)
    shared = ("text_template", "max_length", "long_texts", "max_chunks", "pooling")
    task = {
        "task": "classification",
        "columns": {"text": encoder_args.text_column, "label": args.label_column},
        "labels": train.features[args.label_column].names,
        **{key: getattr(encoder_args, key) for key in shared},
        "ensemble": {"method": encoder_args.ensemble},
        "abstention": {"max_risk": encoder_args.max_risk},
        "evaluation": {"seed": seed, "top_k": args.top_k},
    }
    check_adapted(lambda row: to_text(row, task), task, train, "text_template")
    return task


def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
    """Score an evaluation during training: what `metric_for_best_model` can name beside the loss."""
    labels, predictions = evaluation.label_ids, evaluation.predictions.argmax(axis=1)
    scores = {f"{a}_f1": f1_score(labels, predictions, average=a, zero_division=0) for a in ("macro", "weighted")}
    return scores | {"accuracy": accuracy_score(labels, predictions)}


def main(
    model_args: ModelConfig,
    data_args: DataArguments,
    encoder_args: EncoderArguments,
    class_args: ClassificationArguments,
    training_args: TrainingArguments,
    given: dict[str, Any],
) -> None:
    # ----- 1. Setup
    checkpoint = start_run(training_args, given, ARGUMENTS)
    output_dir = Path(training_args.output_dir)
    # Trainer pushes at every save: hold that back until the evaluation is done
    push_to_hub, training_args.push_to_hub = training_args.push_to_hub, False
    repo_id = training_args.hub_model_id or output_dir.name
    if push_to_hub:
        repo_id = check_push_access(repo_id, private=training_args.hub_private_repo)

    # ----- 2. Data
    splits, results = load_splits(
        data_args,
        input_column=encoder_args.text_column,
        target_column=class_args.label_column,
        cluster_columns=[encoder_args.text_column],
        label_column=class_args.label_column,
        seed=training_args.seed,
    )
    tokenizer = load_tokenizer(model_args, encoder_args.trust_remote_code)
    task = make_task(encoder_args, class_args, training_args.seed, tokenizer, splits["train"])
    names = task["labels"]
    rows, datasets = {}, {}
    for split, table in splits.items():
        labels, texts = np.array(table[class_args.label_column]), [to_text(row, task) for row in table]
        rows[split], datasets[split] = encode_rows(table, texts, labels, tokenizer, task)
        results[f"data_{split}_cut_texts"] = sum(rows[split]["cut"])
    class_counts = np.bincount(rows["train"]["label"], minlength=len(names))

    # ----- 3. Model
    device = training_args.device
    # New layers are trained whole and stay out of quantization; LoRA adapts the rest
    heads = head_names(model_args, AutoModelForSequenceClassification, names, encoder_args.trust_remote_code)
    load_model = partial(load_classifier, model_args, encoder_args, device, names, heads)
    model = load_model()
    peft_config = get_lora_config(model_args, model, "SEQ_CLS", heads)
    task |= describe_run(model_args, data_args, model, device) | {"heads": heads}
    task["autocast"] = autocast_dtype(model_args, training_args)
    if encoder_args.long_texts == "chunks":
        pool_chunks(model)
    if peft_config:
        model = get_peft_model(model, peft_config)

    # ----- 4. Trainer
    with library_checks("Trainer"):
        trainer = Trainer(
            model=model,
            args=training_args,
            train_dataset=datasets["train"],
            eval_dataset=datasets["validation"],
            data_collator=ChunkCollator(tokenizer.pad_token_id, encoder_args.max_length),
            processing_class=tokenizer,
            # divides by the rows of the whole step, so gradient accumulation does not scale the gradient
            compute_loss_func=classification_loss(class_counts, class_args.class_imbalance, class_args.focal_gamma),
            compute_metrics=compute_metrics,
            optimizer_cls_and_kwargs=get_optimizer(model, training_args, heads, encoder_args.head_learning_rate),
        )
    balanced = class_args.class_imbalance == "balanced_sampling"
    set_train_order(trainer, datasets["train"], labels=rows["train"]["label"] if balanced else None)
    results |= count_parameters(trainer.model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    trainer.save_model()
    trainer.save_state()

    # ----- 6. Evaluate
    outputs, latency = predict_encoders(trainer, load_model, datasets, task, data_args.evaluate_test)
    results |= latency
    if encoder_args.ensemble == "linear":  # a linear model on words is wrong on other rows than the encoder
        folder = output_dir if trainer.is_world_process_zero() else None
        add_linear_scores(outputs, rows, len(names), training_args.seed, folder)
    if data_args.evaluate_test:
        train, test = rows["train"], rows["test"]
        baselines = classification_baselines(train["text"], train["label"], test["text"], training_args.seed)
        if encoder_args.ensemble != "none":
            baselines["encoder_alone"] = outputs["test"]["logits"].argmax(axis=1)
        outputs |= {f"baseline_{name}_test": {"prediction": guesses} for name, guesses in baselines.items()}
    task |= calibrate(outputs["validation"], rows["validation"]["label"], class_counts, task)
    rows["train"] = {"class_counts": class_counts}
    measured = results | peak_memory()
    found, files = evaluate(rows, outputs, task)
    results = measured | found

    # ----- 7. Report
    if trainer.is_world_process_zero():
        save_outputs(output_dir, rows, outputs, measured, repo_id)
        write_results(output_dir, task, results, files)
        if data_args.evaluate_test:
            card, report = write_card(output_dir, repo_id), write_report(output_dir)
            print(results_table(results), f"report: {report}", f"model card: {card}", sep="\n")

    # ----- 8. Hub
    if push_to_hub and trainer.is_world_process_zero():
        logger.info("pushed to %s", push(output_dir, repo_id, training_args.hub_private_repo))
    trainer.accelerator.wait_for_everyone()  # no process may leave the group while another still writes
    trainer.end()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe(ARGUMENTS, description=__doc__))
