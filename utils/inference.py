"""One `Predictor` for whatever a run has saved: from a folder or from the Hub, for the command line and for Python."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from utils.arguments import UserError
from utils.generation import generate_answers
from utils.multiple_choice import score_options
from utils.prompts import build_prompt, encode, fit, option_answers


class Predictor:
    """A model that a run has saved, ready for many texts.

    Example:
        >>> Predictor.from_pretrained("outputs/quickstart-qa")(["What is ataxia?"])
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: dict[str, Any]) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.task = task

    @classmethod
    def from_pretrained(
        cls, model: str, revision: str | None = None, base_model: str | None = None, trust_remote_code: bool = False
    ) -> "Predictor":
        """Load a run's output folder, or the Hub repository it was pushed to.

        Args:
            model: folder or Hub id.
            revision: commit, tag or branch on the Hub.
            base_model: where the base model is, if it is not where training found it.
            trust_remote_code: run code that comes with the base model.

        Raises:
            UserError: neither a folder nor a repository of this project's runs, or its base model is not there.
        """
        folder = Path(model) if Path(model).is_dir() else _download(model, revision)
        if not (folder / "task.json").exists():
            raise UserError(f"`model` {model} has no task.json: give the `output_dir` of a run that has ended.")
        task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        if task["task"] != "qa":
            raise UserError(f"`model` {model} is of task {task['task']}: this version answers questions (qa) only.")
        quantization = BitsAndBytesConfig.from_dict(task["quantization"]) if task["quantization"] else None
        is_adapter = (folder / "adapter_config.json").exists()
        source = (base_model or task["base_model"]) if is_adapter else str(folder)
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
        try:
            loaded = AutoModelForCausalLM.from_pretrained(
                source,
                revision=task["base_model_revision"] if is_adapter and not base_model else None,
                dtype=task["dtype"] if task["dtype"] == "auto" else getattr(torch, task["dtype"]),
                quantization_config=quantization,
                device_map={"": device},
                trust_remote_code=trust_remote_code,
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"base model `{source}` cannot be loaded: {reason}; or give `--base_model`.") from error
        if is_adapter:
            loaded = PeftModel.from_pretrained(loaded, folder)
        return cls(loaded, AutoTokenizer.from_pretrained(folder), task)

    def __call__(self, inputs: list[str | Mapping[str, Any]], batch_size: int = 8) -> list[dict[str, Any]]:
        """Answer questions.

        Args:
            inputs: questions, or rows with the columns that training had (question, and context or options if any).
            batch_size: rows a batch.

        Returns:
            one dict a row, in order: `prediction`, and `ended` (the answer ended by itself). Rows with options get
            the likeliest of them, as in the evaluation: `prediction`, `option` (its index) and `probabilities`.
        """
        if not inputs:
            return []
        task, columns = self.task, self.task["columns"]
        rows = [{columns["question"]: row} if isinstance(row, str) else row for row in inputs]
        prompts = [build_prompt(self.tokenizer, task, row) for row in rows]
        if columns["options"] and all(row.get(columns["options"]) for row in rows):
            return self._choose(prompts, [row[columns["options"]] for row in rows], batch_size)
        ids, _ = encode(self.tokenizer, prompts, None, task["chat"])
        ids, _, _ = fit(ids, None, task["max_length"])
        texts, ended = generate_answers(
            self.model, self.tokenizer, ids, task["stop"], task["generation"], batch_size, None
        )
        return [{"prediction": text, "ended": end} for text, end in zip(texts, ended, strict=True)]

    def _choose(self, prompts: list[str], options: list[list[str]], batch_size: int) -> list[dict[str, Any]]:
        results = []
        scores = score_options(self.model, self.tokenizer, prompts, options, self.task, batch_size, None)
        for row, row_scores in zip(options, scores, strict=True):
            logits = row_scores[:, 0]
            probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            best = int(logits.argmax())
            results.append(
                {"prediction": option_answers(row)[best], "option": best, "probabilities": probabilities.tolist()}
            )
        return results


def _download(model: str, revision: str | None) -> Path:
    """Fetch a run's files from the Hub; what a run never pushes is not asked for."""
    try:
        return Path(snapshot_download(model, revision=revision, ignore_patterns=["plots/*"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"`model` {model} is neither a folder nor a repository that can be read: {reason}") from error
