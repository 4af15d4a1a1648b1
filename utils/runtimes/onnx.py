"""A classifier in ONNX Runtime, which takes the place of a PyTorch model in `predict_logits`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from utils.arguments import UserError

FILE = "model.onnx"


class OnnxClassifier(nn.Module):
    """Computes the logits of a classifier on the CPU, with as many threads as PyTorch would use.

    Args:
        path: file with the inputs `input_ids` and `attention_mask`, int64 [rows, tokens], and the output `logits`.
        config: of the model.
    """

    def __init__(self, path: Path, config: PreTrainedConfig) -> None:
        import onnxruntime  # imported here: only exports need it

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.config, self.device, self.dtype = config, torch.device("cpu"), torch.float32

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        """Return `logits`, float32 [rows, classes]."""
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        (logits,) = self.session.run(["logits"], inputs)
        return SequenceClassifierOutput(logits=torch.from_numpy(logits))


def load_onnx(folder: Path) -> OnnxClassifier:
    """Load the model in the folder of an export.

    Raises:
        UserError: ONNX Runtime is not installed, or cannot read the file.
    """
    if find_spec("onnxruntime") is None:
        raise UserError(
            f"`model` {folder} is an export for onnxruntime, which is not installed: `make install-export`."
        )
    try:
        return OnnxClassifier(folder / FILE, AutoConfig.from_pretrained(folder))
    except Exception as error:  # ONNX Runtime's own errors have no base class of theirs
        raise UserError(f"`model` {folder}: {FILE} cannot be loaded: {' '.join(str(error).split())[:300]}.") from error
