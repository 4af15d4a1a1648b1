"""The outputs of a classifier: its logits, those of a linear probe on its base model, scores of a linear model; and
its calibration in the weights."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from safetensors.numpy import save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from utils.evaluation.ensemble import fit_linear, linear_scores
from utils.evaluation.models import STAGES, earlier_models, trained_model
from utils.evaluation.probe import fit_label_probes, fit_probe, probe_features
from utils.heads import pools_by_config
from utils.logits import measure_latency, predict_logits
from utils.task import load_task
from utils.training import save_model


def predict_encoders(
    trainer: Trainer,
    load_model: Callable[[], PreTrainedModel],
    datasets: dict[str, Dataset],
    n_classes: int,
    task: dict[str, Any],
    evaluate_test: bool,
    first_adapter: Path | None = None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Predict the validation rows with the fine-tuned model, and the test rows with it and a linear probe on the base
    model, which reads training rows.

    Args:
        trainer: after training.
        load_model: loads the base model as training did.
        datasets: split -> rows with `input_ids` and `labels`.
        n_classes: number of values of `labels`.
        task: the content of `task.json`; `max_length`, `pooling` and `autocast` are used.
        evaluate_test: whether to predict the test rows.
        first_adapter: the adapter that training went on from, which then predicts the test rows, too.

    Returns:
        outputs: `validation`, `test`, `base_test` and with a first adapter `first_adapter_test`, each with `logits`,
            float [rows, outputs], and the first adapter's `temperature`. `base_test` is on the main process alone; its
            logits are log-probabilities, float64 [rows, n_classes]. With several labels a text, earlier models have
            `validation_logits`, too, which thresholds are fitted on, and those of the probe are log-odds.
        measured: `measure_latency`, and `base_test_probe_rows`, the training rows of the probe; empty without test
            rows.
    """
    model = trained_model(trainer)  # the near ties of `predict_logits` are seen in float32, so without autocast
    predict: Callable[..., np.ndarray] = partial(
        predict_logits,
        pad_token_id=cast(PreTrainedTokenizerBase, trainer.processing_class).pad_token_id,
        max_length=task["max_length"],
        batch_size=trainer.args.per_device_eval_batch_size,
    )
    classify = partial(predict, autocast=task["autocast"])
    outputs: dict[str, Any] = {}
    outputs["validation"] = {"logits": classify(model, datasets["validation"]["input_ids"], name="validation")}
    if not evaluate_test:
        return outputs, {}
    ids = datasets["test"]["input_ids"]
    outputs["test"] = {"logits": classify(model, ids, name="test: tuned model")}
    train, labels = datasets["train"]["input_ids"], np.array(datasets["train"]["labels"])
    several = labels.ndim == 2
    read = [*ids, *(datasets["validation"]["input_ids"] if several else ())]
    for name, earlier in earlier_models(model, load_model, first_adapter):
        if name != "base_test":
            logits = classify(earlier, read, name=f"test: {STAGES[name]}")
        else:
            known, classes, new = probe_features(earlier, predict, train, labels, read, n_classes, trainer.args.seed)
            if not trainer.is_world_process_zero():
                continue
            logits = (fit_label_probes if several else fit_probe)(known, classes, new, n_classes)
        outputs[name] = {"logits": logits[: len(ids)]} | ({"validation_logits": logits[len(ids) :]} if several else {})
    if first_adapter and not several:  # with its own calibration, unless that was of an ensemble
        first = load_task(first_adapter) if (first_adapter / "task.json").is_file() else {}
        alone = first.get("ensemble", {}).get("method") == "none"
        outputs["first_adapter_test"]["temperature"] = first["temperature"] if alone else 1.0
    return outputs, measure_latency(partial(classify, model), ids) | {"base_test_probe_rows": len(known)}


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


def calibrate_head(trainer: Trainer, task: Mapping[str, Any]) -> dict[str, Any]:
    """Divide the last layer of a classifier by the temperature, and save the model again: the softmax of its logits
    then gives the calibrated probabilities in plain transformers, too. Where that needs more than weights, they stay
    as they are.

    Args:
        trainer: after training.
        task: the content of `task.json`, with what `calibrate` returned.

    Returns:
        `beyond_weights`, for `task.json`: what serving has to do beside running the saved model.
    """
    model = trained_model(trainer)
    layer = last_layer(model, task["heads"], len(task["labels"]))
    needed = {
        "a calibration and a threshold for each label": "problem_type" in task,
        "mean pooling": task["pooling"] == "mean" and not pools_by_config(model),
        "an ensemble": task["ensemble"]["method"] != "none",
        "a temperature": layer is None,
    }
    beyond = [what for what, is_needed in needed.items() if is_needed]
    if layer is not None and not beyond:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.div_(task["temperature"])
        save_model(trainer)
    return {"beyond_weights": beyond}


def last_layer(model: nn.Module, heads: Sequence[str], n_classes: int) -> nn.Linear | None:
    """Return the layer of a classifier whose output are the logits; None if no linear layer of its heads can be."""
    found = [
        module
        for name, module in model.named_modules()
        # PEFT keeps the head before training as `original_module`
        if set(name.split(".")) & set(heads) and ".original_module" not in name
        if isinstance(module, nn.Linear) and module.out_features == n_classes
    ]
    return found[-1] if found else None
