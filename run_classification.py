"""Fine-tune an encoder to sort clinical notes into classes, and say whether it beats a linear model.

    accelerate launch run_classification.py recipes/distilbert_lora.yaml
    accelerate launch run_classification.py recipes/distilbert_lora.yaml --train_file notes.csv --label_column ward

To use your own data name its columns in the recipe. To change what the model sees edit `text_template` in the recipe,
or `to_text` below.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import get_peft_model
from safetensors.numpy import save_file
from sklearn.metrics import classification_report
from transformers import AutoModelForSequenceClassification, EvalPrediction, Trainer, TrainingArguments
from trl import ModelConfig

from utils.arguments import DataArguments, UserError, library_checks, parse_recipe, user_errors
from utils.data.labels import frequency_groups
from utils.data.load import load_splits
from utils.encoding import (
    ChunkCollator,
    EncoderArguments,
    check_max_length,
    encode_texts,
    measure_latency,
    pool_chunks,
    predict_logits,
)
from utils.evaluation.calibration import (
    abstention_statistics,
    abstention_threshold,
    area_under_risk_coverage,
    calibration_curves,
    calibration_statistics,
    fit_temperature,
    softmax,
)
from utils.evaluation.class_analysis import (
    PATTERN_ADVICE,
    analyse_classes,
    class_error_patterns,
    label_conflicts,
    write_class_files,
)
from utils.evaluation.ensemble import ensemble, linear_scores, train_ensemble
from utils.evaluation.error_analysis import write_predictions
from utils.hub import check_push_access, push
from utils.json_files import write_json
from utils.losses import CLASS_IMBALANCE, classification_loss
from utils.metrics.baselines import classification_baselines
from utils.metrics.intervals import evaluate_statistics, mcnemar, paired_difference, resampling_weights
from utils.metrics.statistics import accuracy_statistics, classification_statistics
from utils.modeling import (
    autocast_dtype,
    count_parameters,
    get_lora_config,
    get_quantization_config,
    head_names,
    load_base_model,
    load_tokenizer,
    optimizer_of,
    prepare_classifier,
)
from utils.prompts import check_adapted, fill_template
from utils.reporting.card import write_card
from utils.reporting.report import write_report
from utils.reporting.tables import results_table
from utils.run import describe_run, end_on_validation, make_readable, peak_memory, start_run, train_or_resume
from utils.sampling import EpochSampler, set_train_order

logger = logging.getLogger(__name__)
COMPARED = ("accuracy", "macro_f1", "weighted_f1")  # with each baseline, paired


@dataclass
class ClassificationArguments:
    """What this task adds."""

    label_column: str = field(default="label", metadata={"help": "The class: text or a number."})
    class_imbalance: str = field(
        default="none", metadata={"help": "What to do for rare classes.", "choices": CLASS_IMBALANCE}
    )
    focal_gamma: float = field(default=2.0, metadata={"help": "Of the focal loss; 0 is cross-entropy."})
    top_k: int = field(default=3, metadata={"help": "Also count as right what is among the k likeliest."})

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


def to_training_rows(
    split: Dataset, tokenizer: Any, task: dict[str, Any]
) -> tuple[list[str], np.ndarray, Dataset, list[bool]]:
    """Texts, labels, tokenized rows for the trainer, and whether each text was cut."""
    texts = [to_text(row, task) for row in split]
    labels = np.array(split[task["columns"]["label"]])
    rows, cut = encode_texts(tokenizer, texts, task["max_length"], task["long_texts"], task["max_chunks"])
    return texts, labels, Dataset.from_dict({"input_ids": rows, "labels": labels}), cut


def make_task(
    encoder_args: EncoderArguments, args: ClassificationArguments, tokenizer: Any, train: Dataset
) -> dict[str, Any]:
    """Return what serving needs to see a text as training did, for `task.json`."""
    check_max_length(encoder_args.max_length, tokenizer)
    shared = ("text_template", "max_length", "long_texts", "max_chunks", "pooling")
    task = {
        "task": "classification",
        "columns": {"text": encoder_args.text_column, "label": args.label_column},
        "labels": train.features[args.label_column].names,
        **{key: getattr(encoder_args, key) for key in shared},
    }
    check_adapted(lambda row: to_text(row, task), task, train, "text_template")
    return task


def row_statistics(
    logits: np.ndarray, labels: np.ndarray, temperature: float, groups: dict[str, list[int]], top_k: int
) -> dict[str, Any]:
    """Row statistics of a model: right or wrong by class, among the k likeliest, and its probabilities' quality."""
    rank = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    statistics = classification_statistics(logits.argmax(axis=1), labels, range(logits.shape[1]), groups)
    statistics |= accuracy_statistics(rank < top_k, f"top_{top_k}_accuracy")
    return statistics | calibration_statistics(softmax(logits, temperature), labels)


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
    task = make_task(encoder_args, class_args, tokenizer, splits["train"])
    names = task["labels"]
    train_texts, train_labels, train_dataset, train_cut = to_training_rows(splits["train"], tokenizer, task)
    eval_texts, eval_labels, eval_dataset, eval_cut = to_training_rows(splits["validation"], tokenizer, task)
    texts, labels, test_dataset, cut = to_training_rows(splits["test"], tokenizer, task)
    class_counts = np.bincount(train_labels, minlength=len(names)).tolist()
    conflicts = label_conflicts(texts, labels)
    results |= {"data_classes": len(names), "data_accuracy_ceiling": conflicts["accuracy_ceiling"]}
    results |= {"data_train_cut_texts": sum(train_cut), "data_validation_cut_texts": sum(eval_cut)}
    results |= {"data_test_cut_texts": sum(cut)}

    # ----- 3. Model
    device, trust_remote_code = training_args.device, encoder_args.trust_remote_code
    autocast = autocast_dtype(model_args, training_args)
    heads = head_names(model_args, AutoModelForSequenceClassification, names, trust_remote_code)
    quantization = get_quantization_config(model_args, device, skip_modules=heads)
    load = (model_args, AutoModelForSequenceClassification, quantization, device, trust_remote_code, names)
    model = prepare_classifier(load_base_model(*load), heads, encoder_args.pooling, encoder_args.dropout)
    peft_config = get_lora_config(model_args, model, "SEQ_CLS", heads)
    task |= describe_run(model_args, data_args, model, device) | {"autocast": autocast, "heads": heads}
    if encoder_args.long_texts == "chunks":
        pool_chunks(model)
    if peft_config:
        model = get_peft_model(model, peft_config)

    # ----- 4. Trainer
    def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
        statistics = classification_statistics(
            evaluation.predictions.argmax(1), evaluation.label_ids, range(len(names))
        )
        once = np.ones((1, len(evaluation.label_ids)), dtype=np.float32)  # the values alone: no resamples in training
        return {k: v for k, v in evaluate_statistics(statistics, once).items() if k in COMPARED}

    with library_checks("Trainer"):
        trainer = Trainer(
            model=model,
            args=training_args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=ChunkCollator(tokenizer.pad_token_id, encoder_args.max_length),
            processing_class=tokenizer,
            compute_loss_func=classification_loss(class_counts, class_args.class_imbalance, class_args.focal_gamma),
            compute_metrics=compute_metrics,
            optimizer_cls_and_kwargs=optimizer_of(model, training_args, heads, encoder_args.head_learning_rate),
        )
    balanced = class_args.class_imbalance == "balanced_sampling"
    grouped = training_args.train_sampling_strategy == "group_by_length"
    if balanced or grouped:
        lengths = [len(ids) for ids in train_dataset["input_ids"]]
        batch_size = training_args.train_batch_size * training_args.world_size
        sampled = train_labels if balanced else None
        set_train_order(trainer, EpochSampler(lengths, batch_size, training_args.seed, grouped, sampled))
    results |= count_parameters(trainer.model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    trainer.save_model()
    trainer.save_state()

    # ----- 6. Evaluate
    seed, top_k = training_args.seed, class_args.top_k
    how = (tokenizer.pad_token_id, encoder_args.max_length, training_args.per_device_eval_batch_size, autocast)
    groups = frequency_groups(class_counts)
    eval_logits = predict_logits(trainer.model, eval_dataset["input_ids"], *how, "validation")
    log_prior = task["log_prior"] = np.log(np.maximum(class_counts, 1) / len(train_labels)).tolist()
    linear, task["ensemble"] = train_ensemble(
        encoder_args.ensemble, train_texts, train_labels, eval_texts, eval_labels, eval_logits, log_prior, seed
    )
    if linear and trainer.is_world_process_zero():
        save_file(linear, output_dir / "linear.safetensors")
    results |= {
        f"ensemble_{name}": weight for name, weight in task["ensemble"].items() if encoder_args.ensemble != "none"
    }
    eval_scores = linear_scores(linear, eval_texts)
    eval_logits = ensemble(eval_logits, eval_scores, log_prior, task["ensemble"])
    temperature = task["temperature"] = results["temperature"] = fit_temperature(eval_logits, eval_labels)
    weights = resampling_weights(len(eval_labels), seed, splits["validation"]["cluster"])
    statistics = row_statistics(eval_logits, eval_labels, temperature, groups, top_k)
    results |= evaluate_statistics(statistics, weights, "eval")
    eval_confidence = softmax(eval_logits, temperature).max(axis=1)
    threshold = abstention_threshold(eval_confidence, eval_logits.argmax(axis=1) == eval_labels, encoder_args.max_risk)
    task["abstention"] = {"max_risk": encoder_args.max_risk, "threshold": threshold}
    if not data_args.evaluate_test:
        end_on_validation(trainer, task, results)
        return

    inputs = test_dataset["input_ids"]
    encoder_logits = predict_logits(trainer.model, inputs, *how, "test: tuned model")
    logits = ensemble(encoder_logits, linear_scores(linear, texts), log_prior, task["ensemble"])
    if model_args.use_peft:
        with trainer.model.disable_adapter():
            base_logits = predict_logits(trainer.model, inputs, *how, "test: base model")
    else:
        base_model = prepare_classifier(load_base_model(*load), heads, encoder_args.pooling)
        base_logits = predict_logits(base_model, inputs, *how, "test: base model")
    probabilities = softmax(logits, temperature)
    predictions, confidence = logits.argmax(axis=1), probabilities.max(axis=1)
    correct = predictions == labels
    weights = resampling_weights(len(labels), seed, splits["test"]["cluster"])
    tuned = row_statistics(logits, labels, temperature, groups, top_k)
    uncalibrated = calibration_statistics(softmax(logits), labels)
    tuned |= {f"uncalibrated_{name}": uncalibrated[name] for name in ("ece", "brier")}
    tuned |= abstention_statistics(confidence, correct, threshold)
    results |= evaluate_statistics(tuned, weights, "test")
    results["test_aurc"] = area_under_risk_coverage(confidence, correct)
    base = row_statistics(base_logits, labels, 1.0, groups, top_k)
    results |= evaluate_statistics(base, weights, "base_test")
    compared = {name: tuned[name] for name in COMPARED}
    results |= paired_difference(compared, base, weights, "delta_base_test")
    results["mcnemar_test_accuracy_p"] = mcnemar(correct, base_logits.argmax(axis=1) == labels)
    baselines = classification_baselines(train_texts, train_labels, texts, seed)
    if encoder_args.ensemble != "none":
        baselines["encoder_alone"] = encoder_logits.argmax(axis=1)
    for name, guesses in baselines.items():
        statistics = classification_statistics(guesses, labels, range(len(names)), groups)
        results |= evaluate_statistics(statistics, weights, f"baseline_{name}_test")
        results |= paired_difference(compared, statistics, weights, f"delta_baseline_{name}_test")
        results[f"mcnemar_baseline_{name}_test_accuracy_p"] = mcnemar(correct, guesses == labels)
    results |= measure_latency(trainer.model, inputs, *how)
    patterns = class_error_patterns(labels, predictions, probabilities, train_labels, cut, conflicts["rows"])
    results |= {f"errors_{name}": len(found) for name, found in patterns.items()}
    results |= peak_memory()

    words = [len(text.split()) for text in texts]
    analysis = analyse_classes(labels, predictions, probabilities, names, train_labels, words, weights)
    analysis |= calibration_curves(probabilities, softmax(logits), labels, temperature)
    analysis["abstention"] = task["abstention"] | {"coverage": results["test_coverage"]}
    analysis["abstention"]["risk"] = results.get("test_selective_risk")
    ids, base_predictions = splits["test"]["id"], base_logits.argmax(axis=1)
    columns_of_rows = zip(ids, texts, predictions, labels, base_predictions, confidence, strict=True)
    rows = [
        {"id": i, "source": text, "prediction": names[p], "reference": names[r], "base_prediction": names[b]}
        | {"confidence": float(c)}
        for i, text, p, r, b, c in columns_of_rows
    ]
    every = {"labels": range(len(names)), "target_names": names, "digits": 3, "zero_division": 0}
    if trainer.is_world_process_zero():
        write_class_files(output_dir, analysis, classification_report(labels, predictions, **every))

    # ----- 7. Report
    if trainer.is_world_process_zero():
        write_predictions(output_dir, rows, patterns)
        make_readable(output_dir)
        write_json(output_dir / "task.json", task)
        write_json(output_dir / "all_results.json", results)
        card = write_card(output_dir, repo_id)
        report = write_report(output_dir, PATTERN_ADVICE)
        print(results_table(results), f"report: {report}", f"model card: {card}", sep="\n")

        # ----- 8. Hub
        if push_to_hub:
            url = push(output_dir, repo_id, training_args.hub_private_repo)
            logger.info("pushed to %s", url)
    trainer.accelerator.wait_for_everyone()  # no process may leave the group while another still writes
    trainer.end()


if __name__ == "__main__":
    with user_errors():
        main(*parse_recipe(ARGUMENTS, description=__doc__))
