"""Fine-tune an encoder on a tree of classes (disease group and disease), with predictions that agree on all levels.

    accelerate launch --quiet run_hierarchical.py recipes/bioclinicalbert_qlora.yaml
    accelerate launch --quiet run_hierarchical.py recipes/bioclinicalbert_qlora.yaml \
        --train_file quickstart/data/icd10cm_blocks.jsonl --parent_column chapter --child_column block

To use your own data, name its columns in the recipe; the tree is built from them. To change what the model reads,
edit `text_template` in the recipe, or `to_text` below.
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
from utils.arguments import DataArguments, UserError, library_checks, parse_recipe, user_errors
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
from utils.evaluation.encoders import add_linear_scores, predict_encoders
from utils.evaluation.hierarchical import calibrate, evaluate
from utils.evaluation.identity import run_identity
from utils.evaluation.outputs import save_outputs, write_results
from utils.extra_metrics import check_extra_metrics
from utils.heads import get_optimizer, head_names
from utils.hierarchy import (
    LabelTree,
    expand_predictions,
    hierarchical_loss,
    leaf_log_probabilities,
    sum_to_parents,
)
from utils.hub import check_push_access
from utils.metrics.hierarchy import hierarchical_baselines
from utils.modeling import autocast_dtype, load_tokenizer
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
WEIGHTINGS = ("none", "inverse_frequency", "class_balanced")


@dataclass
class HierarchicalArguments:
    """Arguments of this task, in addition to those in `utils`."""

    parent_column: str | None = field(default=None, metadata={"help": "Column of the parent class."})
    child_column: str | None = field(default=None, metadata={"help": "Column of the child class."})
    path_column: str | None = field(
        default=None, metadata={"help": "Column of the full path, such as `A > B > C`; replaces both."}
    )
    path_separator: str = field(
        default=">", metadata={"help": "Separator of the levels in `path_column`.", "needs": ("path_column", None)}
    )
    level_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each level in the loss; defaults to 1 each."}
    )
    focal_gamma: float = field(
        default=0.0, metadata={"help": "Focusing parameter of the focal loss; 0 is cross-entropy."}
    )
    class_imbalance: str = field(
        default="none", metadata={"help": "Loss weights that compensate for rare classes.", "choices": WEIGHTINGS}
    )

    @property
    def leaf_column(self) -> str:
        return str(self.path_column or self.child_column)

    def __post_init__(self) -> None:
        if bool(self.path_column) == bool(self.parent_column) or bool(self.parent_column) != bool(self.child_column):
            raise UserError("give either `parent_column` and `child_column`, or `path_column`.")


ARGUMENTS = (ModelConfig, DataArguments, EncoderArguments, HierarchicalArguments, TrainingArguments)


# ----- ADAPT HERE: one row of your data -> the text that the model reads
def to_text(row: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """Return the text of a row. `predict.py` knows only `text_template`, which `task.json` stores, so everything
    that the model reads has to come from there; section 2 checks this."""
    return fill_template(task["text_template"], task["columns"], row, "text_template")


def to_paths(splits: Mapping[str, Dataset], args: HierarchicalArguments) -> dict[str, list[tuple[str, ...]]]:
    """Return the class names from the root down, for each row of each split."""
    leaf = args.leaf_column
    names = splits["train"].features[leaf].names
    if not args.parent_column:
        paths = [tuple(part.strip() for part in name.split(args.path_separator)) for name in names]
        return {split: [paths[i] for i in rows[leaf]] for split, rows in splits.items()}
    return {
        split: list(zip(rows[args.parent_column], (names[i] for i in rows[leaf]), strict=True))
        for split, rows in splits.items()
    }


def make_task(
    encoder_args: EncoderArguments,
    args: HierarchicalArguments,
    seed: int,
    tree: LabelTree,
    tokenizer: PreTrainedTokenizerBase,
    columns: Columns,
    train: Dataset,
) -> dict[str, Any]:
    """Return the content of `task.json`: what serving needs to read a text exactly as training did."""
    if args.level_weights and len(args.level_weights) != tree.depth:
        raise UserError(f"`level_weights` has {len(args.level_weights)} values: the tree has {tree.depth} levels.")
    task = {
        "task": "hierarchical",
        "columns": {"text": columns.input, "parent": args.parent_column, "label": args.leaf_column},
        "raw_columns": columns.to_dict(),
        "tree": tree.to_dict(),
        **encoder_settings(encoder_args, tokenizer),
        "ensemble": {"method": encoder_args.ensemble},
        "abstention": {"max_risk": encoder_args.max_risk},
        "evaluation": {"seed": seed},
    }
    check_adapted(lambda row: to_text(row, task), task, train, "text_template")
    return task


def compute_metrics(evaluation: EvalPrediction, tree: LabelTree) -> dict[str, float]:
    """Score an evaluation during training; `metric_for_best_model` can name any of these metrics or the loss."""
    # Leaves decide, and parents follow: choosing each level by itself could contradict itself
    log_p = sum_to_parents(leaf_log_probabilities(np.asarray(evaluation.predictions), tree), tree)
    predictions, references = expand_predictions(log_p, tree), tree.ancestors[evaluation.label_ids]
    scores = {
        f"{name}_macro_f1": f1_score(references[:, i], predictions[:, i], average="macro", zero_division=0)
        for i, name in enumerate(tree.level_names)
    }
    return scores | {"path_accuracy": accuracy_score(references[:, -1], predictions[:, -1])}


def main(
    model_args: ModelConfig,
    data_args: DataArguments,
    encoder_args: EncoderArguments,
    tree_args: HierarchicalArguments,
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
    columns = text_columns(encoder_args, data_args, tree_args.leaf_column)
    parent, seed = [tree_args.parent_column] if tree_args.parent_column else [], training_args.seed
    splits, results = load_splits(data_args, columns, cluster_columns=[columns.input], key_columns=parent, seed=seed)
    paths = to_paths(splits, tree_args)
    # All splits build the tree, so that a class with two parents is noticed wherever it occurs
    tree = LabelTree.from_paths(sum(paths.values(), []), [i for table in splits.values() for i in table["id"]])
    task = make_task(encoder_args, tree_args, seed, tree, tokenizer, columns, splits["train"])
    check_extra_metrics(data_args.extra_metrics, encoder_args.trust_remote_code, range(len(tree.leaves)))
    rows, datasets = {}, {}
    for split, table in splits.items():
        leaves = np.array([tree.leaves.index(path[-1]) for path in paths[split]])
        texts = [to_text(row, task) for row in table]
        rows[split], datasets[split], counts = encode_rows(table, texts, leaves, tokenizer, task)
        results |= {f"data_{split}_{key}": n for key, n in counts.items()}  # many cut texts need `long_texts: chunks`
    class_counts = np.bincount(rows["train"]["label"], minlength=len(tree.leaves))

    # ----- 3. Model
    device, nodes = training_args.device, tree.node_names
    # One logit per node: the last linear layer stacks the heads of all levels. It starts at random and 4-bit weights
    # cannot be trained, so it stays unquantized and is trained in full; LoRA adapts the pretrained layers.
    heads = head_names(model_args, AutoModelForSequenceClassification, nodes, encoder_args.trust_remote_code)
    load_model = partial(load_classifier, model_args, encoder_args, device, nodes, heads)
    base = load_model()
    task |= describe_run(model_args, data_args, given, base, device) | {"heads": heads}
    task["autocast"] = autocast_dtype(model_args, training_args)  # serving uses it too, for the same predictions
    if encoder_args.long_texts == "chunks":
        pool_chunks(base)  # averages chunk logits inside the model, so that the loss counts texts, not chunks
    model = add_adapter(base, model_args, task, heads, first_adapter)

    # ----- 4. Trainer
    smooth = training_args.label_smoothing_factor
    with library_checks("Trainer"):
        trainer = Trainer(
            model=model,
            args=training_args,
            train_dataset=datasets["train"],
            eval_dataset=datasets["validation"],
            data_collator=ChunkCollator(tokenizer.pad_token_id, encoder_args.max_length),
            processing_class=tokenizer,
            # Each level's loss is conditional on the true parent, so parent errors do not blur the child loss. Divides
            # by the rows of the full optimizer step; a mean per micro-batch would depend on gradient accumulation.
            compute_loss_func=hierarchical_loss(
                tree, class_counts, tree_args.level_weights, tree_args.focal_gamma, tree_args.class_imbalance, smooth
            ),
            compute_metrics=partial(compute_metrics, tree=tree),
            # Random heads need a larger learning rate, one that would damage the pretrained layers
            optimizer_cls_and_kwargs=get_optimizer(model, training_args, heads, encoder_args.head_learning_rate),
        )
    add_early_stopping(trainer, encoder_args.early_stopping_patience, checkpoint)
    set_train_order(trainer, datasets["train"])  # from seed and epoch only, so a resumed run repeats it
    results |= count_parameters(model)

    # ----- 5. Train
    results |= train_or_resume(trainer, checkpoint)
    save_model(trainer)  # with LoRA only the adapter and the heads, a few MB

    # ----- 6. Evaluate
    # The base model is frozen, with the adapter disabled, and read by a linear probe: a new head would guess
    outputs, measured = predict_encoders(
        trainer, load_model, datasets, len(tree.leaves), task, data_args.evaluate_test, first_adapter
    )
    results |= measured
    if trainer.is_world_process_zero():  # once, since baselines of many classes need memory
        if encoder_args.ensemble == "linear":  # it errs on other rows than the encoder, so their sum can beat both
            add_linear_scores(outputs, rows, len(tree.leaves), seed, output_dir)
        if data_args.evaluate_test:
            train, test = rows["train"], rows["test"]
            baselines = hierarchical_baselines(train["text"], train["label"], test["text"], tree, seed)
            if encoder_args.ensemble != "none":
                alone = leaf_log_probabilities(outputs["test"]["logits"], tree).argmax(axis=1)
                baselines["encoder_alone"] = tree.ancestors[alone]
            outputs |= {f"baseline_{name}_test": {"prediction": guesses} for name, guesses in baselines.items()}
        # Temperature and abstention thresholds come from validation rows: on test rows they would look too good
        task["abstention"]["best_checkpoint"] = training_args.load_best_model_at_end  # chosen on these rows, too
        validation = rows["validation"]
        task |= calibrate(outputs["validation"], validation["label"], validation["cluster"], class_counts, tree, task)
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
