"""Write a classifier for ONNX Runtime, in float32 or with int8 weights."""

import logging
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.encoding import encode_texts, pad
from utils.runtimes.onnx import FILE

EXAMPLES = ["fever", "fever and a stiff neck since the morning"]  # what is traced; their sizes are free in the file
# Of layers that read an activation the first third stays in float32: few values of an activation are large, one scale
# for all leaves the others coarse, and an early error passes through all later layers. 1,067 of the quickstart's 1,071
# labels are then those of float32, else 1,063. With all such layers in float32 it would be a fifth slower.
ACTIVATIONS = {"Gelu", "Relu", "Swish", "Mul"}  # `Mul`: gated, or written out


class _Logits(nn.Module):
    """A classifier with plain inputs and its logits as the output."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.model(input_ids=input_ids, attention_mask=attention_mask).logits)


def write_onnx(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: dict[str, Any], work: Path, quantize: bool
) -> None:
    """Write `model.onnx` and the configuration of a classifier.

    Args:
        model: with plain layers, from `merge`; what pools its hidden states is traced, too.
        tokenizer, task: of the run.
        work: folder for the files.
        quantize: whether linear layers multiply in int8: weights with a scale per column, what they read with one
            per batch (dynamic quantization). Norms, softmax and the first layers behind an activation stay in float32.

    Raises:
        UserError: PyTorch cannot trace this model.
    """
    ids, _ = encode_texts(tokenizer, EXAMPLES, task["max_length"])
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    inputs = tuple(pad(ids, tokenizer.pad_token_id).values())
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    path = work / FILE
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        torch.onnx.export(
            _Logits(model).eval(), inputs, str(path), dynamo=True, external_data=False, verbose=False,
            input_names=["input_ids", "attention_mask"], output_names=["logits"], dynamic_shapes=(sizes, sizes),
        )  # fmt: skip
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError(
            f"`format` is onnx, and PyTorch cannot trace {type(model).__name__} ({reason}): choose `merged`."
        ) from error
    if quantize:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole = path.rename(work / f"float32-{FILE}")
        nodes = onnx.load(whole).graph.node
        made_by = {output: node.op_type for node in nodes for output in node.output}
        products = [node for node in nodes if node.op_type in ("MatMul", "Gemm")]
        behind = [node.name for node in products if made_by.get(node.input[0]) in ACTIVATIONS]
        behind = behind[: len(behind) // 3]
        quantize_dynamic(whole, path, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=behind)
        whole.unlink()
    model.config.save_pretrained(work)
