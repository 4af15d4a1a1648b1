"""Fine-tune an encoder to classify clinical notes, and compare it with linear models on words.

    accelerate launch --quiet run_classification.py recipes/distilbert_lora.yaml
    accelerate launch --quiet run_classification.py recipes/distilbert_lora.yaml \
        --no_dataset_name --no_test_split_name --train_file notes.csv --label_column ward

To use your own data, name its columns in the recipe. To change what the model reads, edit `text_template` in the
recipe, or `to_text` below.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import utils  # noqa: F401  # before torch and bitsandbytes, whose threads and messages it settles

# isort: split
import numpy as np
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    EvalPrediction,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from trl import ModelConfig

from utils.adapters import add_adapter, count_parameters, find_adapter
from utils.arguments import DataArguments, library_checks, parse_recipe, user_errors
from utils.data.columns import Columns
from utils.data.load import load_splits
from utils.encoding import (
    ChunkCollator,
    EncoderArguments,
    encode_rows,
    encoder_settings,
    load_classifier,
    pool_chunks,
    text_columns,
)
from utils.evaluation.classification import baseline_outputs, calibrate, evaluate
from utils.evaluation.encoders import add_linear_scores, calibrate_head, predict_encoders
from utils.evaluation.identity import run_identity
from utils.evaluation.outputs import save_outputs, write_results
from utils.extra_metrics import check_extra_metrics
from utils.heads import get_optimizer, head_names
from utils.hub import check_push_access
from utils.losses import CLASS_IMBALANCE, classification_loss
from utils.modeling import autocast_dtype, load_tokenizer
from utils.multilabel import (
    MULTI_LABEL,
    PROBLEM_TYPES,
    check_names,
    class_names,
    count_classes,
    find_problem_type,
    label_array,
    multi_label_loss,
    prepare_labels,
)
from utils.privacy.identifiers import warn_of_identifiers
from utils.push import push
from utils.reporting.card import write_card
from utils.reporting.class_report import write_report
from utils.reporting.console import closing
from utils.run import describe_run, peak_memory, start_run
from utils.sampling import set_train_order
from utils.templates import check_adapted, fill_template
from utils.training import add_early_stopping, save_model, train_or_resume

logger = logging.getLogger(__name__)


@dataclass
class ClassificationArguments:
    """Arguments of this task, in addition to those in `utils`."""

    label_column: str = field(default="label", metadata={"help": "Column of the class, or of lists of labels."})
    problem_type: str | None = field(
        default=None,
        metadata={
            "help": "One label a text or several. Default: several if they are lists.",
            "choices": PROBLEM_TYPES,
        },
    )
    class_imbalance: str = field(
        default="none",
        metadata={"help": "Loss or sampling that compensates for rare classes.", "choices": CLASS_IMBALANCE},
    )
    focal_gamma: float = field(
        default=2.0,
        metadata={
            "help": "Focusing parameter of the focal loss; 0 is cross-entropy.",
            "needs": ("class_imbalance", ("focal",)),
        },
    )
    top_k: int = field(default=3, metadata={"help": "Also report the accuracy of the k most likely classes."})


ARGUMENTS = (ModelConfig, DataArguments, EncoderArguments, ClassificationArguments, TrainingArguments)


# ----- ADAPT HERE: one row of your data -> the text that the model reads
def to_text(row: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """Return the text of a row. `predict.py` knows only `text_template`, which `task.json` stores, so everything
    that the model reads has to come from there; section 2 checks this."""
    return fill_template(task["text_template"], task["columns"], row, "text_template")


def make_task(
    encoder_args: EncoderArguments,
    args: ClassificationArguments,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    columns: Columns,
    train: Dataset,
) -> dict[str, Any]:
    """Return the content of `task.json`: what serving needs to read a text exactly as training did."""
    task = {
        "task": "classification",
        "columns": {"text": columns.input, "label": args.label_column},
        "raw_columns": columns.to_dict(),
        "labels": class_names(train.features, args.label_column),  # position = index of the logit
        **({"problem_type": MULTI_LABEL} if columns.label_list else {}),
        **encoder_settings(encoder_args, tokenizer),
        "ensemble": {"method": encoder_args.ensemble},
        "abstention": {"max_risk": encoder_args.max_risk},
        "evaluation": {"seed": seed, "top_k": args.top_k},
    }
    check_adapted(lambda row: to_text(row, task), task, train, "text_template")
    return task


def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
    """Score an evaluation during training; `metric_for_best_model` can name any of these metrics or the loss."""
    labels, logits = np.asarray(evaluation.label_ids), np.asarray(evaluation.predictions)
    if labels.ndim == 2:  # several labels a text; their thresholds are chosen after training
        averages = ("micro", "macro", "weighted", "samples")
        scores = {f"{a}_f1": f1_score(labels, logits > 0, average=a, zero_division=0) for a in averages}
        return scores | {"accuracy": accuracy_score(labels, logits > 0)}
    predictions = logits.argmax(axis=1)
    # Macro F1 weights all classes equally: accuracy alone hides that a model never predicts a rare class
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
    output_dir = Path(str(training_args.output_dir))
    # Trainer would push at every save: held back so that nothing is published before it is evaluated
    push_to_hub, training_args.push_to_hub = training_args.push_to_hub, False
    repo_id = training_args.hub_model_id or output_dir.name
    if push_to_hub:  # a missing token is noticed now, not after hours of training
        repo_id = check_push_access(repo_id, private=training_args.hub_private_repo)
    model_args, first_adapter = find_adapter(model_args, given)  # an adapter is trained further, on its base model

    # ----- 2. Data
    tokenizer = load_tokenizer(model_args, encoder_args.trust_remote_code, first_adapter)  # before the slow data
    # Near-duplicate texts stay in one split: otherwise the test would reward memorization
    several = find_problem_type(class_args.problem_type, data_args, class_args.label_column, given) == MULTI_LABEL
    columns = text_columns(encoder_args, data_args, class_args.label_column, several)
    splits, results = load_splits(data_args, columns, cluster_columns=[columns.input], seed=training_args.seed)
    task = make_task(encoder_args, class_args, training_args.seed, tokenizer, columns, splits["train"])
    names = task["labels"]
    results |= check_names(names, class_args.label_column, class_args.problem_type)
    check_extra_metrics(data_args.extra_metrics, encoder_args.trust_remote_code, range(len(names)))
    rows, datasets = {}, {}
    for split, table in splits.items():
        labels, texts = label_array(table[columns.target], len(names)), [to_text(row, task) for row in table]
        rows[split], datasets[split], counts = encode_rows(table, texts, labels, tokenizer, task)
        results |= {f"data_{split}_{key}": n for key, n in counts.items()}  # many cut texts need `long_texts: chunks`
    class_counts = count_classes(rows["train"]["label"], len(names))

    # ----- 3. Model
    device = training_args.device
    # The head starts at random: LoRA could only correct it by a low-rank update, and 4 bits would freeze it. So it is
    # trained in full, in float32, and LoRA adapts the pretrained layers.
    heads = head_names(model_args, AutoModelForSequenceClassification, names, encoder_args.trust_remote_code)
    load_model = partial(load_classifier, model_args, encoder_args, device, names, heads)
    base = load_model()
    task |= describe_run(model_args, data_args, given, base, device) | {"heads": heads}
    task["autocast"] = autocast_dtype(model_args, training_args)  # serving uses it too, for the same predictions
    if several:
        prepare_labels(base, task, class_counts, len(datasets["train"]))
    if encoder_args.long_texts == "chunks":
        pool_chunks(base)  # averages chunk logits inside the model, so that the loss counts texts, not chunks
    model = add_adapter(base, model_args, task, heads, first_adapter)

    # ----- 4. Trainer
    with library_checks("Trainer"):
        trainer = Trainer(
            model=model,
            args=training_args,
            train_dataset=datasets["train"],
            eval_dataset=datasets["validation"],
            data_collator=ChunkCollator(tokenizer.pad_token_id, encoder_args.max_length),
            processing_class=tokenizer,
            # Sums over rows and divides by the rows of the full optimizer step. The model's own loss averages each
            # micro-batch, so its gradient changes with gradient accumulation (transformers#47688).
            compute_loss_func=(multi_label_loss if several else classification_loss)(
                class_counts,
                class_args.class_imbalance,
                class_args.focal_gamma,
                label_smoothing=training_args.label_smoothing_factor,
            ),
            compute_metrics=compute_metrics,
            # A random head needs a larger learning rate, one that would damage the pretrained layers
            optimizer_cls_and_kwargs=get_optimizer(model, training_args, heads, encoder_args.head_learning_rate),
        )
    balanced = class_args.class_imbalance == "balanced_sampling"
    # Grouping by length saves padding; the order depends on seed and epoch only, so a resumed run repeats it
    set_train_order(trainer, datasets["train"], labels=rows["train"]["label"] if balanced else None)
    add_early_stopping(trainer, encoder_args.early_stopping_patience, checkpoint)
    results |= count_parameters(model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    save_model(trainer)  # with LoRA only the adapter and the head, a few MB

    # ----- 6. Evaluate
    # The base model is frozen, with the adapter disabled, and read by a linear probe: a new head would guess
    outputs, measured = predict_encoders(
        trainer, load_model, datasets, len(names), task, data_args.evaluate_test, first_adapter
    )
    results |= measured
    if encoder_args.ensemble == "linear":  # it errs on other rows than the encoder, so their sum can beat both
        folder = output_dir if trainer.is_world_process_zero() else None
        add_linear_scores(outputs, rows, len(names), training_args.seed, folder)
    # Temperature and abstention threshold come from validation rows: on test rows they would look too good
    task["abstention"]["best_checkpoint"] = training_args.load_best_model_at_end  # chosen on these rows, too
    validation = rows["validation"]
    task |= calibrate(outputs["validation"], validation["label"], validation["cluster"], class_counts, task)
    task |= calibrate_head(trainer, task)  # so that plain transformers gives the same probabilities, where it can
    if trainer.is_world_process_zero():  # once, since baselines of many classes need memory
        if data_args.evaluate_test:
            outputs |= baseline_outputs(rows, outputs, encoder_args.ensemble, training_args.seed)
        rows["train"] = {"class_counts": class_counts}  # all that the evaluation needs of training rows
        measured = results | peak_memory() | run_identity(output_dir, device) | warn_of_identifiers(splits["train"])
        found, files = evaluate(rows, outputs, task)  # from arrays alone; `python -m utils.evaluation` repeats it
        results = measured | found

    # ----- 7. Report
    if trainer.is_world_process_zero():
        save_outputs(output_dir, rows, outputs, measured, repo_id)  # to `_private/`, never pushed: texts of patients
        write_results(output_dir, task, results, files)
        if data_args.evaluate_test:
            print(closing(write_card(output_dir, repo_id), write_report(output_dir)))

    # ----- 8. Hub
    if push_to_hub and trainer.is_world_process_zero():  # files of an allow-list, in one commit
        private, revision = training_args.hub_private_repo, training_args.hub_revision
        logger.info("pushed to %s", push(output_dir, repo_id, private, revision))
    trainer.accelerator.wait_for_everyone()  # no process may leave the group while another still writes
    trainer.end()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe(ARGUMENTS, description=__doc__))
