"""What an encoder says of the validation and test rows: the tuned one, the one before tuning, and a linear model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from safetensors.numpy import save_file
from transformers import PreTrainedModel, Trainer

from utils.encoding import measure_latency, predict_logits
from utils.evaluation.ensemble import fit_linear, linear_scores
from utils.modeling import base_model


def predict_encoders(
    trainer: Trainer,
    load_model: Callable[[], PreTrainedModel],
    datasets: dict[str, Dataset],
    task: dict[str, Any],
    evaluate_test: bool,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Predict the validation rows with the tuned model and the test rows with both models.

    Args:
        trainer: after training.
        load_model: loads the model as it was before training.
        datasets: split -> rows with `input_ids`.
        task: with `max_length` and `autocast`.
        evaluate_test: whether to predict the test rows.

    Returns:
        outputs: `validation`, `test` and `base_test`, each with `logits`, float32 [rows, classes]; and the latency.
    """
    predict = partial(
        predict_logits,
        pad_token_id=trainer.processing_class.pad_token_id,
        max_length=task["max_length"],
        batch_size=trainer.args.per_device_eval_batch_size,
        autocast=task["autocast"],
    )
    model, ids = trainer.model, datasets["validation"]["input_ids"]
    outputs = {"validation": {"logits": predict(model, ids, name="validation")}}
    if not evaluate_test:
        return outputs, {}
    ids = datasets["test"]["input_ids"]
    outputs["test"] = {"logits": predict(model, ids, name="test: tuned model")}
    with base_model(model, load_model) as base:
        outputs["base_test"] = {"logits": predict(base, ids, name="test: base model")}
    return outputs, measure_latency(partial(predict, model), ids)


def add_linear_scores(
    outputs: dict[str, Any], rows: dict[str, Any], n_classes: int, seed: int, output_dir: Path | None
) -> None:
    """Fit a linear model on the training rows and add its `linear_scores` to the outputs of the tuned encoder.

    Args:
        outputs: from `predict_encoders`.
        rows: split -> `text`, and of `train` `label`.
        n_classes: a class without training rows counts, too.
        seed: of the solver.
        output_dir: where serving finds the model, `linear.safetensors`; None writes nothing.
    """
    linear = fit_linear(rows["train"]["text"], rows["train"]["label"], n_classes, seed)
    for split in outputs.keys() & {"validation", "test"}:
        outputs[split]["linear_scores"] = linear_scores(linear, rows[split]["text"])
    if output_dir:
        save_file(linear, output_dir / "linear.safetensors")
