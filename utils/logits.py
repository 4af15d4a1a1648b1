"""Predict the logits of a classifier, one row per text, and measure how long that takes."""

import time
from collections.abc import Callable

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from utils.encoding import pad, split_chunks
from utils.generation import batches_by_length, check_finite, progress

NEAR_TIE = 0.1  # bfloat16 moved MiniLM's logits by up to 0.04 on 1,071 texts; one predicted class changed


def measure_latency(
    predict: Callable[[list[list[int]]], np.ndarray], rows: list[list[int]], most: int = 20
) -> dict[str, float]:
    """Measure P50 and P95 latency in milliseconds of the first `most` texts one by one, and batched texts per second.

    Args:
        predict: from rows of token ids to logits.
        rows: from `encode_texts`.
        most: number of texts to time one by one.
    """
    single = []
    for row in rows[:1] + rows[:most]:  # the first call is a warm-up
        start = time.perf_counter()
        predict([row])
        single.append(1000 * (time.perf_counter() - start))
    start = time.perf_counter()
    predict(rows)
    p50, p95 = np.quantile(single[1:], (0.5, 0.95)).tolist()
    return {
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "predict_texts_per_second": len(rows) / (time.perf_counter() - start),
    }


def predict_logits(
    model: PreTrainedModel,
    rows: list[list[int]],
    pad_token_id: int,
    max_length: int,
    batch_size: int,
    autocast: str | None = None,
    name: str | None = None,
    temperature: float = 1.0,
) -> np.ndarray:
    """Return the logits of each row, float32 [rows, classes], in the order of `rows`; batches hold texts of similar
    length.

    Under autocast, rows whose top two logits differ by less than `NEAR_TIE` are recomputed in float32 if the weights
    are float32, so that the predicted classes equal those of float32.

    Args:
        model: a sequence classifier.
        rows: from `encode_texts`; chunk logits are averaged per row.
        pad_token_id, max_length: as in training.
        batch_size: maximum chunks per batch.
        autocast: the dtype used in training, "bfloat16" or "float16"; None computes in the dtype of the weights.
        name: label of the progress bar; None shows none.
        temperature: by which the head is divided, so that ties are near at smaller differences.
    """
    model.config.get_text_config().pad_token_id = pad_token_id  # a head that reads the last token (GPT-2) looks for it
    logits = _logits(model, rows, pad_token_id, max_length, batch_size, autocast, name)
    check_finite(np.isfinite(logits).all())
    if autocast and all(parameter.dtype == torch.float32 for parameter in model.parameters()):
        best = np.sort(logits, axis=1)[:, -2:]
        near = np.flatnonzero(best[:, 1] - best[:, 0] < NEAR_TIE / temperature).tolist()
        if near:
            again = [rows[row] for row in near]
            logits[near] = _logits(model, again, pad_token_id, max_length, batch_size, None, None)
    return logits


@torch.inference_mode()
def _logits(
    model: PreTrainedModel,
    rows: list[list[int]],
    pad_token_id: int,
    max_length: int,
    batch_size: int,
    autocast: str | None,
    name: str | None,
) -> np.ndarray:
    dtype = getattr(torch, autocast) if autocast else None
    chunks = [(i, chunk) for i, ids in enumerate(rows) for chunk in split_chunks(ids, max_length)]
    batches = batches_by_length([len(chunk) for _, chunk in chunks], batch_size)
    was_training = model.training
    model.eval()
    found: list[tuple[int, np.ndarray]] = []
    for batch in progress(batches, name):
        inputs = pad([chunks[i][1] for i in batch], pad_token_id)
        with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
            logits = model(**{key: value.to(model.device) for key, value in inputs.items()}).logits
        found += zip((chunks[i][0] for i in batch), logits.float().cpu().numpy(), strict=True)
    model.train(was_training)
    found = gather_object(found)
    logits = np.zeros((len(rows), len(found[0][1])), dtype=np.float32)
    np.add.at(logits, [row for row, _ in found], np.stack([value for _, value in found]))
    return logits / np.bincount([row for row, _ in found], minlength=len(rows))[:, None]
