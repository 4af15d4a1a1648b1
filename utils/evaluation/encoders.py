"""The outputs of a classifier: logits of the fine-tuned and the base encoder, scores of a linear model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset
from safetensors.numpy import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

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
    """Predict the validation rows with the fine-tuned model, and the test rows with it and the base model.

    Args:
        trainer: after training.
        load_model: loads the base model as training did.
        datasets: split -> rows with `input_ids`.
        task: the content of `task.json`; `max_length` and `autocast` are used.
        evaluate_test: whether to predict the test rows.

    Returns:
        outputs: `validation`, `test` and `base_test`, each with `logits`, float32 [rows, classes].
        latency: from `measure_latency`; empty without test rows.
    """
    model = cast(PreTrainedModel, trainer.model)
    predict: Callable[..., np.ndarray] = partial(
        predict_logits,
        pad_token_id=cast(PreTrainedTokenizerBase, trainer.processing_class).pad_token_id,
        max_length=task["max_length"],
        batch_size=trainer.args.per_device_eval_batch_size,
        autocast=task["autocast"],
    )
    outputs = {"validation": {"logits": predict(model, datasets["validation"]["input_ids"], name="validation")}}
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
    """Fit a linear model on the training rows and add its `linear_scores` to the outputs of the fine-tuned encoder.

    Args:
        outputs: from `predict_encoders`.
        rows: split -> column -> values: `text` of each split, and `label` of `train`.
        n_classes: number of classes, including those without training rows.
        seed: seed of the solver.
        output_dir: folder for `linear.safetensors`, which serving loads; None writes nothing.
    """
    linear = fit_linear(rows["train"]["text"], rows["train"]["label"], n_classes, seed)
    for split in outputs.keys() & {"validation", "test"}:
        outputs[split]["linear_scores"] = linear_scores(linear, rows[split]["text"])
    if output_dir:
        save_file(linear, output_dir / "linear.safetensors")
