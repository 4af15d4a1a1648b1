"""One `Predictor` for whatever a run has saved: from a folder or from the Hub, for the command line and for Python."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from utils.arguments import UserError
from utils.chunking import cut_sources
from utils.encoding import encode_texts, predict_logits
from utils.evaluation.calibration import softmax
from utils.evaluation.confidence import answer_confidence
from utils.evaluation.ensemble import ensemble_logits, linear_scores
from utils.evaluation.multiple_choice import score_options
from utils.factuality import find_hallucinations
from utils.generation import generate_answers, set_generation
from utils.hierarchy import (
    LabelTree,
    abstain_to_parent,
    expand_predictions,
    leaf_log_probabilities,
    sum_to_parents,
)
from utils.modeling import class_config, prepare_classifier
from utils.prompts import build_prompt, fill_template, option_answers, tokenize_pairs, truncate_pairs
from utils.run import has_bfloat16
from utils.seq2seq import summarize

AUTO_CLASSES = {
    "qa": AutoModelForCausalLM,
    "classification": AutoModelForSequenceClassification,
    "hierarchical": AutoModelForSequenceClassification,
    "summarization": AutoModelForSeq2SeqLM,
}


class Predictor:
    """A model that a run has saved, ready for many texts.

    Example:
        >>> Predictor.from_pretrained("outputs/quickstart-qa")(["What is ataxia?"])
        >>> Predictor.from_pretrained("outputs/quickstart-classification")(["A hole in the wall between the atria."])
        >>> Predictor.from_pretrained("outputs/flan-t5-lora")(["Doctor: What is wrong?\\nPatient: I have a cough."])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: dict[str, Any],
        linear: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.task = task
        self.linear = linear

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
        task = upgrade_task(json.loads((folder / "task.json").read_text(encoding="utf-8")))
        if task["task"] not in AUTO_CLASSES:
            raise UserError(f"`model` {model} is of task {task['task']}: known are {', '.join(AUTO_CLASSES)}.")
        quantization = BitsAndBytesConfig.from_dict(task["quantization"]) if task["quantization"] else None
        is_adapter = (folder / "adapter_config.json").exists()
        source = (base_model or task["base_model"]) if is_adapter else str(folder)
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
        names = LabelTree.from_dict(task["tree"]).node_names if "tree" in task else task.get("labels")
        classes = class_config(names) if names else {}
        try:
            loaded = AUTO_CLASSES[task["task"]].from_pretrained(
                source,
                revision=task["base_model_revision"] if is_adapter and not base_model else None,
                dtype=task["dtype"] if task["dtype"] == "auto" else getattr(torch, task["dtype"]),
                quantization_config=quantization,
                device_map={"": device},
                trust_remote_code=trust_remote_code,
                **classes,
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"base model `{source}` cannot be loaded: {reason}; or give `--base_model`.") from error
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if "heads" in task:
            loaded = prepare_classifier(loaded, task["heads"], task["pooling"])
        if task["task"] == "summarization":
            set_generation(loaded, tokenizer, task["stop"], task["generation"])
        if is_adapter:
            half = "heads" not in task and loaded.dtype != torch.float32
            loaded = PeftModel.from_pretrained(loaded, folder)
            if task["task"] != "qa" and not quantization and not half:
                # no adapter to compute; quantized weights would be rounded anew, half ones too, to other words
                loaded = loaded.merge_and_unload()
        linear = folder / "linear.safetensors"
        return cls(loaded.eval(), tokenizer, task, load_file(linear) if linear.exists() else None)

    def __call__(self, inputs: list[str | Mapping[str, Any]], batch_size: int = 8) -> list[dict[str, Any]]:
        """Answer questions, classify or summarize texts, whichever the model was trained for.

        Args:
            inputs: texts, or rows with the columns that training had.
            batch_size: rows a batch.

        Returns:
            one dict a row, in order. Questions: `prediction`, `finished` (the answer ended by itself) and `confidence`
            (mean probability of its tokens; `confidence` of `task.json` says what that is worth); rows with options
            get the likeliest of them, as in the evaluation: `prediction`, `option` (its index) and `probabilities`.
            Classes: `prediction`, `confidence` (its calibrated probability), `abstained` (too unsure for the error
            rate that the recipe's `max_risk` allows), `cut` (the model saw a part of the text), and `probabilities`,
            by class, the likeliest first. Classes in a tree: `prediction` and `confidence` are lists, a level each
            from the root down, of the likeliest leaf's path; `shown` says how many of its levels are sure enough, 0 is
            for a person; `probabilities` are a list of dicts, a level each. Summaries: `prediction`, `finished`,
            `cut`, and `hallucinations`, what it says that the text does not, as far as `find_hallucinations` sees.
        """
        if not inputs:
            return []
        task, columns = self.task, self.task["columns"]
        main_column = columns["question" if task["task"] == "qa" else "text"]
        rows = [{main_column: row} if isinstance(row, str) else row for row in inputs]
        if task["task"] == "summarization":
            return self._summarize(rows, batch_size)
        if task["task"] != "qa":
            return self._classify(rows, batch_size)
        prompts = [build_prompt(self.tokenizer, task, row) for row in rows]
        if columns["options"] and all(row.get(columns["options"]) for row in rows):
            return self._choose(prompts, [row[columns["options"]] for row in rows], batch_size)
        ids, _ = tokenize_pairs(self.tokenizer, prompts, None, task["chat"])
        ids, _, _ = truncate_pairs(ids, None, task["max_length"])
        texts, finished = generate_answers(
            self.model, self.tokenizer, ids, task["stop"], task["generation"], batch_size, None
        )
        sure = answer_confidence(self.model, self.tokenizer, task, prompts, texts, finished, batch_size, None)
        return [
            {"prediction": text, "finished": end, "confidence": p}
            for text, end, p in zip(texts, finished, sure.tolist(), strict=True)
        ]

    def _summarize(self, rows: list[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        chunks, lost = cut_sources(self.tokenizer, rows, self.task)
        texts, finished = summarize(self.model, self.tokenizer, chunks, self.task, batch_size, None)
        sources = [row[self.task["columns"]["text"]] for row in rows]
        return [
            {"prediction": text, "finished": end, "cut": n > 0, "hallucinations": find_hallucinations(source, text)}
            for source, text, end, n in zip(sources, texts, finished, lost, strict=True)
        ]

    def _classify(self, rows: list[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        task = self.task
        texts = [fill_template(task["text_template"], task["columns"], row, "text_template") for row in rows]
        ids, cut = encode_texts(self.tokenizer, texts, task["max_length"], task["long_texts"], task["max_chunks"])
        # a machine without bfloat16 computes in float32, which is nearly the same and faster there
        slow = task["dtype"] == "float32" and not has_bfloat16(self.model.device)
        autocast = None if slow else task["autocast"]
        logits = predict_logits(self.model, ids, self.tokenizer.pad_token_id, task["max_length"], batch_size, autocast)
        tree = LabelTree.from_dict(task["tree"]) if "tree" in task else None
        if tree:
            logits = leaf_log_probabilities(logits, tree)
        outputs = {"logits": logits}
        if self.linear:
            outputs["linear_scores"] = linear_scores(self.linear, texts)
        logits = ensemble_logits(outputs, task)
        if tree:
            return self._paths(sum_to_parents(logits / task["temperature"], tree), tree, cut)
        threshold = task["abstention"]["threshold"]
        return [
            {
                "prediction": next(iter(found)),
                "confidence": next(iter(found.values())),
                "abstained": threshold is None or next(iter(found.values())) < threshold,
                "cut": was_cut,
                "probabilities": found,
            }
            for found, was_cut in zip(
                _likeliest_first(softmax(logits, task["temperature"]), task["labels"]), cut, strict=True
            )
        ]

    def _paths(self, log_p: np.ndarray, tree: LabelTree, cut: list[bool]) -> list[dict[str, Any]]:
        thresholds = [np.inf if t is None else t for t in self.task["abstention"]["thresholds"]]
        paths = tree.ancestor_columns[expand_predictions(log_p, tree)[:, -1]]
        confidence = np.exp(np.take_along_axis(log_p, paths, axis=1)).tolist()
        shown = abstain_to_parent(log_p, tree, thresholds).tolist()
        levels = [
            _likeliest_first(np.exp(log_p[:, columns]), names)
            for columns, names in zip(tree.columns, tree.levels, strict=True)
        ]
        return [
            {
                "prediction": tree.path(path[-1] - tree.columns[-1].start),
                "confidence": confidence[row],
                "shown": shown[row],
                "cut": cut[row],
                "probabilities": [found[row] for found in levels],
            }
            for row, path in enumerate(paths.tolist())
        ]

    def _choose(self, prompts: list[str], options: list[list[str]], batch_size: int) -> list[dict[str, Any]]:
        results = []
        scores = score_options(self.model, self.tokenizer, prompts, options, self.task, batch_size, None)
        for row, row_scores in zip(options, scores, strict=True):
            logits = row_scores[: len(row), 0]
            probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            best = int(logits.argmax())
            results.append(
                {"prediction": option_answers(row)[best], "option": best, "probabilities": probabilities.tolist()}
            )
        return results


def upgrade_task(task: dict[str, Any]) -> dict[str, Any]:
    """A `task.json` of an earlier version with the names of this one."""
    task = {{"blend": "ensemble", "max_windows": "max_chunks"}.get(key, key): value for key, value in task.items()}
    if task.get("long_texts") == "windows":
        task["long_texts"] = "chunks"
    return task


def _likeliest_first(probabilities: np.ndarray, names: Sequence[str]) -> list[dict[str, float]]:
    order = np.argsort(-probabilities, axis=1, kind="stable").tolist()
    return [{names[i]: row[i] for i in own} for row, own in zip(probabilities.tolist(), order, strict=True)]


def _download(model: str, revision: str | None) -> Path:
    """Fetch a run's files from the Hub; what a run never pushes is not asked for."""
    try:
        return Path(snapshot_download(model, revision=revision, ignore_patterns=["plots/*"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"`model` {model} is neither a folder nor a repository that can be read: {reason}") from error
