"""`Predictor`, which loads any finished run, from a folder or the Hub, and predicts rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.chat import tokenize_pairs
from utils.chunking import cut_sources
from utils.control_tokens import plain_text
from utils.encoding import encode_texts
from utils.evaluation.calibration import softmax
from utils.evaluation.confidence import abstain_to_parent, answer_confidence, lower_repeated
from utils.evaluation.ensemble import ensemble_logits, linear_scores
from utils.evaluation.multilabel import label_probabilities
from utils.evaluation.multiple_choice import score_options
from utils.evaluation.summaries import summarize
from utils.examples import Examples
from utils.factuality import find_hallucinations
from utils.generation import generate_answers, truncate_pairs
from utils.hierarchy import (
    LabelTree,
    expand_predictions,
    leaf_log_probabilities,
    sum_to_parents,
)
from utils.loading import AUTO_CLASSES, load_run_tokenizer, load_trained
from utils.logits import predict_logits
from utils.metrics.languages import reads_english
from utils.modeling import all_finite, has_bfloat16
from utils.prompts import prompt_turns, recent_turns, render_prompt
from utils.runtimes.llama_cpp import LlamaCpp
from utils.shown_examples import find_examples, with_examples
from utils.task import find_run, load_task, read_input
from utils.templates import fill_template, option_answers


class Predictor:
    """The model of a finished run, ready to predict.

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
        examples: Examples | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.task = task
        self.linear = linear
        self.examples = examples

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        revision: str | None = None,
        base_model: str | None = None,
        trust_remote_code: bool = False,
        examples_file: str | None = None,
    ) -> "Predictor":
        """Load the output folder of a run, or the Hub repository that it was pushed to.

        Args:
            model: folder or Hub id.
            revision: commit, tag or branch on the Hub.
            base_model: location of the base model, if it has moved since training.
            trust_remote_code: run code that comes with the base model.
            examples_file: jsonl file with `question` and `answer`, for a model trained with `retrieve_examples`; by
                default its own training rows, which are there in the output folder alone.

        Raises:
            UserError: `model` is neither a folder nor a repository of a finished run, its base model cannot be loaded,
                or the examples cannot be read.
        """
        folder = find_run(model, revision)
        task = load_task(folder)
        if task["task"] not in AUTO_CLASSES:
            raise UserError(f"`model` {model} has task {task['task']}: give a run of {', '.join(AUTO_CLASSES)}.")
        tokenizer = load_run_tokenizer(folder, task)
        loaded = load_trained(folder, task, tokenizer, base_model, trust_remote_code)
        linear = folder / "linear.safetensors"
        scores = load_file(linear) if linear.exists() else None
        if not (all_finite(loaded) and all(np.isfinite(weights).all() for weights in (scores or {}).values())):
            raise UserError(f"`model` {model} has weights that are not finite: its training diverged; train it again.")
        half = "heads" not in task and loaded.dtype != torch.float32
        if isinstance(loaded, PeftModel) and task["task"] != "qa" and not task["quantization"] and not half:
            # merged is faster, but rounding quantized or half-precision weights would change answers
            loaded = loaded.merge_and_unload()
        return cls(loaded.eval(), tokenizer, task, scores, find_examples(folder, examples_file, task))

    def __call__(self, inputs: Sequence[str | Mapping[str, Any]], batch_size: int = 8) -> list[dict[str, Any]]:
        """Answer questions, classify texts or summarize texts, depending on the task of the model.

        Args:
            inputs: texts, or rows with the columns that training had.
            batch_size: maximum rows per batch.

        Returns:
            one dict per row, in order. No row changes what another gets.

            - Questions: `prediction`, `finished` (the answer was not cut off), `cut` (the model read only the end of
              the question) and `confidence`, the geometric mean of the probabilities of the answer's tokens, lowered
              where it repeats itself;
              `confidence` in `task.json` tells how well it predicts the score. With options: the most likely one as
              `prediction`, its place in the row as `option` (from 0, blank ones count), `cut`, and `probabilities`
              by place.
            - Classes: `prediction`, `confidence` (its calibrated probability), `abstained` (the confidence is below
              the threshold for the recipe's `max_risk`), `cut` (the model read only part of the text) and
              `probabilities` by class, in descending order.
            - Several labels a text: `prediction` and `confidence` are lists, of the labels whose calibrated
              probability is at least their threshold, the most probable first; `probabilities` has these labels
              first, then the others; `cut` as above.
            - Classes in a tree: `prediction` and `confidence` are lists with one value per level from the root down,
              for the path to the most likely leaf. `shown` is the number of levels that are confident enough; 0 means
              that a person should decide. `probabilities` is a list with one dict per level; `cut` as above.
            - Summaries: `prediction`, `finished`, `cut`, and `hallucinations`, what `find_hallucinations` finds.

        Raises:
            UserError: a row that cannot be read, as `inputs[i]`, before anything is computed.
        """
        rows = [read_input(row, self.task, f"inputs[{i}]") for i, row in enumerate(inputs)]
        try:
            return self.predict(rows, batch_size)
        except UserError as error:
            for i, row in enumerate(rows):  # the tokenizer finds what `read_input` cannot
                try:
                    self.predict([row], batch_size)
                except UserError as own:
                    raise UserError(f"inputs[{i}]: {own}") from error
            raise

    def predict(self, rows: Sequence[Mapping[str, Any]], batch_size: int = 8) -> list[dict[str, Any]]:
        """Do what a call does with rows that `read_input` has read."""
        if not rows:
            return []
        if self.task["task"] == "summarization":
            return self._summarize(rows, batch_size)
        if self.task["task"] != "qa":
            return self._classify(rows, batch_size)
        rows = with_examples(rows, self.examples, self.task, self.tokenizer)
        column = self.task["columns"]["options"]
        groups: list[tuple[Callable[..., list[dict[str, Any]]], list[int]]] = [(self._answer, []), (self._choose, [])]
        for i, row in enumerate(rows):
            groups[bool(column and row[column])][1].append(i)
        results: dict[int, dict[str, Any]] = {}
        for answer, numbers in groups:
            if numbers:
                results |= zip(numbers, answer([rows[i] for i in numbers], batch_size), strict=True)
        return [results[i] for i in range(len(rows))]

    def _prompts(self, rows: list[Mapping[str, Any]]) -> tuple[list[str], list[list[int]], list[bool]]:
        """Return the prompts, their token ids, and whether the model reads only the end of each."""
        task, dialogues = self.task, [prompt_turns(row, self.task) for row in rows]
        recent = [recent_turns(self.tokenizer, task, turns) for turns in dialogues]
        prompts = [render_prompt(self.tokenizer, task, turns) for turns in recent]
        whole, _ = tokenize_pairs(self.tokenizer, prompts, None, task["chat"])
        ids, _, _ = truncate_pairs(whole, None, task["max_length"])
        parts = zip(dialogues, recent, whole, ids, strict=True)
        return prompts, ids, [len(kept) < len(turns) or len(own) < len(all_) for turns, kept, all_, own in parts]

    def _answer(self, rows: list[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        task = self.task
        prompts, ids, cut = self._prompts(rows)
        if isinstance(self.model, LlamaCpp):
            answers = [self.model.answer(own, task["generation"]) for own in ids]
            return [
                {
                    "prediction": answer.text,
                    "finished": answer.finished,
                    "cut": was_cut,
                    "confidence": lower_repeated(answer.probability, answer.text),
                }
                for answer, was_cut in zip(answers, cut, strict=True)
            ]
        texts, finished = generate_answers(
            self.model, self.tokenizer, ids, task["stop"], task["generation"], batch_size, None
        )
        confidence = answer_confidence(self.model, self.tokenizer, task, prompts, texts, finished, batch_size, None)
        return [
            {"prediction": text, "finished": end, "cut": was_cut, "confidence": p}
            for text, end, was_cut, p in zip(texts, finished, cut, confidence.tolist(), strict=True)
        ]

    def _summarize(self, rows: Sequence[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        chunks, lost = cut_sources(self.tokenizer, rows, self.task)
        texts, finished = summarize(self.model, self.tokenizer, chunks, self.task, batch_size, None)
        sources = [row[self.task["columns"]["text"]] for row in rows]
        language = self.task.get("data", {}).get("language")
        # None is not searched: its word lists would find nothing in another language
        found = [
            find_hallucinations(source, text) if reads_english(source, language) else None
            for source, text in zip(sources, texts, strict=True)
        ]
        return [
            {"prediction": text, "finished": end, "cut": n > 0, "hallucinations": own}
            for text, end, n, own in zip(texts, finished, lost, found, strict=True)
        ]

    def _classify(self, rows: Sequence[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        task = self.task
        texts = [fill_template(task["text_template"], task["columns"], row, "text_template") for row in rows]
        ids, cut = encode_texts(self.tokenizer, texts, task["max_length"], task["long_texts"], task["max_chunks"])
        # a device without bfloat16 computes faster in float32, with nearly the same results
        in_float32 = task["dtype"] == "float32" and not has_bfloat16(self.model.device)
        autocast = None if in_float32 else task["autocast"]
        pad, head_temperature = self.tokenizer.pad_token_id, task.get("head_temperature", 1.0)
        logits = predict_logits(
            self.model, ids, pad, task["max_length"], batch_size, autocast, temperature=head_temperature
        )
        tree = LabelTree.from_dict(task["tree"]) if "tree" in task else None
        if tree:
            logits = leaf_log_probabilities(logits, tree)
        outputs = {"logits": logits}
        if self.linear:
            outputs["linear_scores"] = linear_scores(self.linear, [plain_text(text) for text in texts])
        logits = ensemble_logits(outputs, task)
        if tree:
            return self._paths(sum_to_parents(logits / task["temperature"], tree), tree, cut)
        if "problem_type" in task:
            return _labels(label_probabilities(logits, task), task, cut)
        threshold = task["abstention"]["threshold"]
        ranked = _ranked(softmax(logits, task["temperature"]), task["labels"])
        return [
            {
                "prediction": prediction,
                "confidence": confidence,
                "abstained": threshold is None or confidence < threshold,
                "cut": was_cut,
                "probabilities": by_class,
            }
            for by_class, was_cut in zip(ranked, cut, strict=True)
            for prediction, confidence in [next(iter(by_class.items()))]
        ]

    def _paths(self, log_p: np.ndarray, tree: LabelTree, cut: list[bool]) -> list[dict[str, Any]]:
        thresholds = [np.inf if t is None else t for t in self.task["abstention"]["thresholds"]]
        paths = tree.ancestor_columns[expand_predictions(log_p, tree)[:, -1]]
        confidence = np.exp(np.take_along_axis(log_p, paths, axis=1)).tolist()
        shown = abstain_to_parent(log_p, tree, thresholds).tolist()
        ranked = [_ranked(np.exp(log_p[:, nodes]), tree.levels[i]) for i, nodes in enumerate(tree.columns)]
        return [
            {
                "prediction": tree.path(path[-1] - tree.columns[-1].start),
                "confidence": confidence[row],
                "shown": shown[row],
                "cut": cut[row],
                "probabilities": [level[row] for level in ranked],
            }
            for row, path in enumerate(paths.tolist())
        ]

    def _choose(self, rows: list[Mapping[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        prompts, _, cut = self._prompts(rows)
        options = [list(row[self.task["columns"]["options"]]) for row in rows]
        results = []
        scores = score_options(self.model, self.tokenizer, prompts, options, self.task, batch_size, None)
        for row, texts, row_scores, was_cut in zip(rows, options, scores, cut, strict=True):
            probabilities = softmax(row_scores[: len(texts), 0])
            best = int(probabilities.argmax())
            prediction = option_answers(texts)[best]
            found = {"prediction": prediction, "option": row["_places"][best], "cut": was_cut}
            by_place = dict(zip(row["_places"], probabilities.tolist(), strict=True))
            results.append(found | {"probabilities": [by_place.get(i, 0.0) for i in range(max(by_place) + 1)]})
        return results


def _labels(probabilities: np.ndarray, task: Mapping[str, Any], cut: Sequence[bool]) -> list[dict[str, Any]]:
    """Return the answers for texts with several labels from float [rows, labels]."""
    results = []
    above = probabilities >= task["thresholds"]
    for row, own, was_cut in zip(_ranked(probabilities, task["labels"]), above, cut, strict=True):
        is_chosen = dict(zip(task["labels"], own.tolist(), strict=True))
        chosen = {label: p for label, p in row.items() if is_chosen[label]}
        answer = {"prediction": list(chosen), "confidence": list(chosen.values()), "cut": was_cut}
        results.append(answer | {"probabilities": chosen | row})
    return results


def _ranked(probabilities: np.ndarray, names: Sequence[str]) -> list[dict[str, float]]:
    """Return name -> probability for each row of float [rows, names], in descending order."""
    orders = np.argsort(-probabilities, axis=1, kind="stable").tolist()
    return [{names[i]: row[i] for i in order} for row, order in zip(probabilities.tolist(), orders, strict=True)]
