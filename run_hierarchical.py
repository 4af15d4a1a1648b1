"""Fine-tune an encoder on classes in a tree (disease group and disease), whose levels never contradict each other.

    accelerate launch run_hierarchical.py recipes/bioclinicalbert_qlora.yaml
    accelerate launch run_hierarchical.py recipes/bioclinicalbert_qlora.yaml --train_file codes.csv --child_column code

To use your own data name its columns in the recipe: the tree is read off them. To change what the model sees edit
`text_template` in the recipe, or `to_text` below.
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
from transformers import (
    AutoModelForSequenceClassification,
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)
from trl import ModelConfig

from utils.arguments import DataArguments, UserError, library_checks, parse_recipe, user_errors
from utils.data.cleaning import clean_text
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
    abstention_threshold,
    calibration_curves,
    calibration_statistics,
    fit_temperature,
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
from utils.hierarchy import (
    LabelTree,
    abstain_to_parent,
    expand_predictions,
    hierarchical_loss,
    leaf_log_probabilities,
    sum_to_parents,
)
from utils.hub import check_push_access, push
from utils.json_files import write_json
from utils.metrics.hierarchy import hierarchical_baselines, hierarchy_statistics
from utils.metrics.intervals import evaluate_statistics, mcnemar, paired_difference, resampling_weights
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
WEIGHTINGS = ("none", "inverse_frequency", "class_balanced")


@dataclass
class HierarchicalArguments:
    """What this task adds."""

    parent_column: str | None = field(default=None, metadata={"help": "The class on the upper level."})
    child_column: str | None = field(default=None, metadata={"help": "The class on the lower level."})
    path_column: str | None = field(default=None, metadata={"help": "Or all levels in one text: A > B > C."})
    path_separator: str = field(default=">", metadata={"help": "What stands between the levels of a path."})
    level_weights: list[float] | None = field(default=None, metadata={"help": "Of the loss, a level each; 1 each."})
    focal_gamma: float = field(default=0.0, metadata={"help": "Of the focal loss; 0 is cross-entropy."})
    class_imbalance: str = field(
        default="none", metadata={"help": "How classes are weighted in the loss.", "choices": WEIGHTINGS}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations that are no better."}
    )

    def __post_init__(self) -> None:
        if bool(self.path_column) == bool(self.parent_column) or bool(self.parent_column) != bool(self.child_column):
            raise UserError("give `parent_column` and `child_column`, or `path_column`, and not both.")
        if self.focal_gamma < 0:
            raise UserError(f"`focal_gamma` is {self.focal_gamma}: give 0 or more.")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise UserError(f"`early_stopping_patience` is {self.early_stopping_patience}: give 1 or more.")


ARGUMENTS = (ModelConfig, DataArguments, EncoderArguments, HierarchicalArguments, TrainingArguments)


# ----- ADAPT HERE: one row of your data -> the text that the model sees
def to_text(row: dict[str, Any], task: dict[str, Any]) -> str:
    """Return the text of a row. `predict.py` knows `text_template` alone (`task.json` keeps it), so what the model
    sees has to come from there; a check in section 2 holds you to that."""
    return fill_template(task["text_template"], task["columns"], row, "text_template")


def to_paths(splits: dict[str, Dataset], args: HierarchicalArguments) -> dict[str, list[tuple[str, ...]]]:
    """Names from the root down for each row of each split."""
    leaf = args.path_column or args.child_column
    names = splits["train"].features[leaf].names
    if args.path_column:
        paths = [tuple(part.strip() for part in name.split(args.path_separator)) for name in names]
        return {split: [paths[i] for i in rows[leaf]] for split, rows in splits.items()}
    parents = {split: [clean_text(name) for name in rows[args.parent_column]] for split, rows in splits.items()}
    return {split: list(zip(parents[split], (names[i] for i in splits[split][leaf]), strict=True)) for split in splits}


def to_training_rows(
    split: Dataset, paths: list[tuple[str, ...]], tree: LabelTree, tokenizer: Any, task: dict[str, Any]
) -> tuple[list[str], np.ndarray, Dataset, list[bool]]:
    """Texts, leaves, tokenized rows for the trainer, and whether each text was cut."""
    texts = [to_text(row, task) for row in split]
    place = {name: i for i, name in enumerate(tree.leaves)}
    labels = np.array([place[path[-1]] for path in paths])
    rows, cut = encode_texts(tokenizer, texts, task["max_length"], task["long_texts"], task["max_chunks"])
    return texts, labels, Dataset.from_dict({"input_ids": rows, "labels": labels}), cut


def make_task(
    encoder_args: EncoderArguments, args: HierarchicalArguments, tree: LabelTree, tokenizer: Any, train: Dataset
) -> dict[str, Any]:
    """Return what serving needs to see a text as training did, for `task.json`."""
    check_max_length(encoder_args.max_length, tokenizer)
    if args.level_weights and len(args.level_weights) != tree.depth:
        raise UserError(f"`level_weights` has {len(args.level_weights)} values: the tree has {tree.depth} levels.")
    shared = ("text_template", "max_length", "long_texts", "max_chunks", "pooling")
    task = {
        "task": "hierarchical",
        "columns": {"text": encoder_args.text_column, "label": args.path_column or args.child_column},
        "tree": tree.to_dict(),
        **{key: getattr(encoder_args, key) for key in shared},
    }
    check_adapted(lambda row: to_text(row, task), task, train, "text_template")
    return task


def row_statistics(log_p: np.ndarray, labels: np.ndarray, tree: LabelTree) -> dict[str, Any]:
    """Row statistics of a model: paths, levels, and how good the probabilities of each level are."""
    statistics = hierarchy_statistics(expand_predictions(log_p, tree), labels, tree, log_p)
    for level, name in enumerate(tree.level_names):
        found = calibration_statistics(np.exp(log_p[:, tree.columns[level]]), tree.ancestors[labels, level])
        statistics |= {f"{name}_{metric}": statistic for metric, statistic in found.items()}
    return statistics


def main(
    model_args: ModelConfig,
    data_args: DataArguments,
    encoder_args: EncoderArguments,
    tree_args: HierarchicalArguments,
    training_args: TrainingArguments,
    given: dict[str, Any],
) -> None:
    # ----- 1. Setup
    never = training_args.eval_strategy == "no" or not training_args.metric_for_best_model
    if tree_args.early_stopping_patience and never:
        raise UserError(
            "`early_stopping_patience` looks at evaluations: give `eval_strategy: epoch` and `metric_for_best_model: "
            "child_macro_f1` with it."
        )
    checkpoint = start_run(training_args, given, ARGUMENTS)
    output_dir = Path(training_args.output_dir)
    # Trainer pushes at every save: hold that back until the evaluation is done
    push_to_hub, training_args.push_to_hub = training_args.push_to_hub, False
    repo_id = training_args.hub_model_id or output_dir.name
    if push_to_hub:
        repo_id = check_push_access(repo_id, private=training_args.hub_private_repo)

    # ----- 2. Data
    leaf_column = tree_args.path_column or tree_args.child_column
    splits, results = load_splits(
        data_args,
        input_column=encoder_args.text_column,
        target_column=leaf_column,
        kept_columns=[tree_args.parent_column] if tree_args.parent_column else [],
        cluster_columns=[encoder_args.text_column],
        label_column=leaf_column,
        seed=training_args.seed,
    )
    paths = to_paths(splits, tree_args)
    tree = LabelTree.from_paths(sum(paths.values(), []), [i for rows in splits.values() for i in rows["id"]])
    tokenizer = load_tokenizer(model_args, encoder_args.trust_remote_code)
    task = make_task(encoder_args, tree_args, tree, tokenizer, splits["train"])
    seen = {split: to_training_rows(rows, paths[split], tree, tokenizer, task) for split, rows in splits.items()}
    train_texts, train_labels, train_dataset, _ = seen["train"]
    eval_texts, eval_labels, eval_dataset, _ = seen["validation"]
    texts, labels, test_dataset, cut = seen["test"]
    levels = tree.ancestors[train_labels].T
    class_counts = [np.bincount(level, minlength=len(n)) for level, n in zip(levels, tree.levels, strict=True)]
    conflicts = label_conflicts(texts, labels)
    results |= {f"data_{name}_classes": len(n) for name, n in zip(tree.level_names, tree.levels, strict=True)}
    results |= {"data_accuracy_ceiling": conflicts["accuracy_ceiling"]}
    results |= {f"data_{split}_cut_texts": sum(found[-1]) for split, found in seen.items()}

    # ----- 3. Model
    device, trust_remote_code = training_args.device, encoder_args.trust_remote_code
    autocast = autocast_dtype(model_args, training_args)
    heads = head_names(model_args, AutoModelForSequenceClassification, tree.node_names, trust_remote_code)
    quantization = get_quantization_config(model_args, device, skip_modules=heads)
    load = (model_args, AutoModelForSequenceClassification, quantization, device, trust_remote_code, tree.node_names)
    model = prepare_classifier(load_base_model(*load), heads, encoder_args.pooling, encoder_args.dropout)
    peft_config = get_lora_config(model_args, model, "SEQ_CLS", heads)
    task |= describe_run(model_args, data_args, model, device) | {"autocast": autocast, "heads": heads}
    if encoder_args.long_texts == "chunks":
        pool_chunks(model)
    if peft_config:
        model = get_peft_model(model, peft_config)

    # ----- 4. Trainer
    def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
        log_p = sum_to_parents(leaf_log_probabilities(evaluation.predictions, tree), tree)
        statistics = hierarchy_statistics(expand_predictions(log_p, tree), evaluation.label_ids, tree)
        once = np.ones((1, len(log_p)), dtype=np.float32)  # the values alone: no resamples in training
        found = evaluate_statistics(statistics, once)
        return {k: v for k, v in found.items() if k.endswith(("macro_f1", "path_accuracy"))}

    level_weights = tree_args.level_weights or [1.0] * tree.depth
    with library_checks("Trainer"):
        trainer = Trainer(
            model=model,
            args=training_args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=ChunkCollator(tokenizer.pad_token_id, encoder_args.max_length),
            processing_class=tokenizer,
            compute_loss_func=hierarchical_loss(
                tree, class_counts, level_weights, tree_args.focal_gamma, tree_args.class_imbalance
            ),
            compute_metrics=compute_metrics,
            optimizer_cls_and_kwargs=optimizer_of(model, training_args, heads, encoder_args.head_learning_rate),
        )
    if tree_args.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(tree_args.early_stopping_patience))
    if training_args.train_sampling_strategy == "group_by_length":
        lengths = [len(ids) for ids in train_dataset["input_ids"]]
        batch_size = training_args.train_batch_size * training_args.world_size
        set_train_order(trainer, EpochSampler(lengths, batch_size, training_args.seed, grouped=True))
    results |= count_parameters(trainer.model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    trainer.save_model()
    trainer.save_state()

    # ----- 6. Evaluate
    seed = training_args.seed
    how = (tokenizer.pad_token_id, encoder_args.max_length, training_args.per_device_eval_batch_size, autocast)
    eval_logits = predict_logits(trainer.model, eval_dataset["input_ids"], *how, "validation")
    eval_leaves = leaf_log_probabilities(eval_logits, tree)
    log_prior = task["log_prior"] = np.log(np.maximum(class_counts[-1], 1) / len(train_labels)).tolist()
    linear, task["ensemble"] = train_ensemble(
        encoder_args.ensemble, train_texts, train_labels, eval_texts, eval_labels, eval_leaves, log_prior, seed
    )
    if linear and trainer.is_world_process_zero():
        save_file(linear, output_dir / "linear.safetensors")
    results |= {
        f"ensemble_{name}": weight for name, weight in task["ensemble"].items() if encoder_args.ensemble != "none"
    }
    eval_scores = linear_scores(linear, eval_texts)
    eval_leaves = ensemble(eval_leaves, eval_scores, log_prior, task["ensemble"])
    temperature = task["temperature"] = results["temperature"] = fit_temperature(eval_leaves, eval_labels)
    eval_log_p = sum_to_parents(eval_leaves / temperature, tree)
    weights = resampling_weights(len(eval_labels), seed, splits["validation"]["cluster"])
    results |= evaluate_statistics(row_statistics(eval_log_p, eval_labels, tree), weights, "eval")
    predicted = expand_predictions(eval_log_p, tree)
    thresholds = [
        abstention_threshold(np.exp(eval_log_p[:, columns]).max(axis=1), right, encoder_args.max_risk)
        for columns, right in zip(tree.columns, (predicted == tree.ancestors[eval_labels]).T, strict=True)
    ]
    task["abstention"] = {"max_risk": encoder_args.max_risk, "thresholds": thresholds}
    if not data_args.evaluate_test:
        end_on_validation(trainer, task, results)
        return

    inputs = test_dataset["input_ids"]
    encoder_leaves = leaf_log_probabilities(predict_logits(trainer.model, inputs, *how, "test: tuned model"), tree)
    leaves = ensemble(encoder_leaves, linear_scores(linear, texts), log_prior, task["ensemble"])
    if model_args.use_peft:
        with trainer.model.disable_adapter():
            base_logits = predict_logits(trainer.model, inputs, *how, "test: base model")
    else:
        base_model = prepare_classifier(load_base_model(*load), heads, encoder_args.pooling)
        base_logits = predict_logits(base_model, inputs, *how, "test: base model")
    log_p = sum_to_parents(leaves / temperature, tree)
    predictions = expand_predictions(log_p, tree)
    correct = predictions[:, -1] == labels
    weights = resampling_weights(len(labels), seed, splits["test"]["cluster"])
    tuned = row_statistics(log_p, labels, tree)
    base_log_p = sum_to_parents(leaf_log_probabilities(base_logits, tree), tree)
    base = row_statistics(base_log_p, labels, tree)
    results |= evaluate_statistics(tuned, weights, "test") | evaluate_statistics(base, weights, "base_test")
    compared = {k: v for k, v in tuned.items() if k.endswith(("macro_f1", "path_accuracy", "hierarchical_f1"))}
    results |= paired_difference(compared, base, weights, "delta_base_test")
    baselines = hierarchical_baselines(train_texts, train_labels, texts, tree, seed)
    if encoder_args.ensemble != "none":
        baselines["encoder_alone"] = tree.ancestors[encoder_leaves.argmax(axis=1)]
    for name, guesses in baselines.items():
        statistics = hierarchy_statistics(guesses, labels, tree)
        results |= evaluate_statistics(statistics, weights, f"baseline_{name}_test")
        results |= paired_difference(compared, statistics, weights, f"delta_baseline_{name}_test")
        results[f"mcnemar_baseline_{name}_test_path_accuracy_p"] = mcnemar(
            correct, (guesses == tree.ancestors[labels]).all(axis=1)
        )
    shown = abstain_to_parent(log_p, tree, [np.inf if t is None else t for t in thresholds])
    results |= {f"test_shown_to_{name}": float((shown > i).mean()) for i, name in enumerate(tree.level_names)}
    answered = shown > 0
    deepest = np.maximum(shown, 1) - 1
    right = np.take_along_axis(predictions == tree.ancestors[labels], deepest[:, None], axis=1)[:, 0]
    if answered.any():
        risk = {"selective_risk": np.column_stack([answered & ~right, answered]).astype(float)}
        results |= evaluate_statistics(risk, weights, "test")
    results |= measure_latency(trainer.model, inputs, *how)
    probabilities = np.exp(log_p[:, tree.columns[-1]])
    patterns = class_error_patterns(labels, predictions[:, -1], probabilities, train_labels, cut, conflicts["rows"])
    results |= {f"errors_{name}": len(found) for name, found in patterns.items()}
    results |= peak_memory()

    words = [len(text.split()) for text in texts]
    uncalibrated = sum_to_parents(leaves, tree)
    levels = []
    for i, columns in enumerate(tree.columns):
        true, found, own = tree.ancestors[labels, i], predictions[:, i], np.exp(log_p[:, columns])
        level = analyse_classes(
            true, found, own, tree.levels[i], tree.ancestors[train_labels, i], words, weights
        ) | calibration_curves(own, np.exp(uncalibrated[:, columns]), true, temperature)
        told = shown > i
        level["abstention"] = {"max_risk": encoder_args.max_risk, "threshold": thresholds[i], "coverage": told.mean()}
        level["abstention"]["risk"] = (found != true)[told].mean() if told.any() else None
        levels.append(level)
    analysis = levels[-1] | {"tree": tree.to_dict(), "level_names": tree.level_names, "levels": levels[:-1]}
    ids, base_predictions = splits["test"]["id"], expand_predictions(base_log_p, tree)[:, -1]
    confidence = probabilities.max(axis=1)
    columns_of_rows = zip(ids, texts, predictions[:, -1], labels, base_predictions, confidence, shown, strict=True)
    rows = [
        {
            "id": i,
            "source": text,
            "prediction": tree.path(p),
            "reference": tree.path(r),
            "base_prediction": tree.path(b),
        }
        | {"confidence": float(c), "shown": int(s)}
        for i, text, p, r, b, c, s in columns_of_rows
    ]
    every = {"labels": range(len(tree.leaves)), "target_names": list(tree.leaves), "digits": 3, "zero_division": 0}
    if trainer.is_world_process_zero():
        write_class_files(output_dir, analysis, classification_report(labels, predictions[:, -1], **every))

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
