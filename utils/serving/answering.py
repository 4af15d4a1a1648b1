"""Answers to questions with what serving needs beside the text: settings of a request, the text while it is written,
how sure the model is, and the safety checks before and after the model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, TextStreamer

from utils.arguments import UserError
from utils.evaluation.confidence import answer_confidence, confidence_words
from utils.generation import generate_answers
from utils.inference import Predictor
from utils.prompts import build_prompt, tokenize_pairs, truncate_pairs
from utils.retrieval import MOST_PASSAGES, Retriever, add_passages, blank_citations, cite
from utils.safety import check_question, check_response
from utils.seq2seq import position_limit

# Numbers of services: EU 112, North America 911; 988 Suicide and Crisis Lifeline, 116 123 emotional support (EU, UK)
EMERGENCY = (
    "This may be an emergency ({}). Call your local emergency number now: 112 in Europe, 911 in North America. "
    "In thoughts of suicide also: 988 in North America, 116 123 in the UK and much of Europe. "
    "No model was asked, and this is no diagnosis."
)
REFUSAL = (
    "This is not answered: the question {}. If somebody may come to harm, call your local emergency number: 112 in "
    "Europe, 911 in North America; a crisis line is 988 in North America, 116 123 in the UK and much of Europe."
)
LEAST_TEMPERATURE = 0.01  # logits divided by less overflow; the likeliest words then


class Question(NamedTuple):
    """A question and what was asked with it.

    temperature: None, as in the evaluation; below `LEAST_TEMPERATURE`, the likeliest words; more, a random draw.
    max_length: most tokens of the answer; None, as in the evaluation.
    num_beams: answers that are followed at once to find the likeliest whole one; None, as in the evaluation.
    length_penalty: the sum of an answer's log probabilities is divided by its length to this power before beams are
        compared: above 0 prefers longer answers, below 0 shorter ones.
    on_text: is called with the answer so far whenever it grows; with beams there is none before the end.
    """

    text: str
    temperature: float | None = None
    max_length: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    on_text: Callable[[str], None] | None = None


def check_settings(temperature: float | None, num_beams: int | None, length_penalty: float | None) -> None:
    """UserError for settings of a question that contradict each other."""
    has_beams = num_beams is not None and num_beams > 1
    if has_beams and temperature is not None and temperature >= LEAST_TEMPERATURE:
        raise UserError("`num_beams` seeks the likeliest answer, `temperature` draws one at random: give one of them.")
    if length_penalty is not None and not has_beams:
        raise UserError("`length_penalty` compares beams: give `num_beams` of 2 or more with it.")


# ----- Safety


def check_before(question: str, patient_context: dict[str, Any] | None) -> tuple[list[dict[str, Any]], str | None]:
    """Findings about a question, and what to say in place of an answer: an emergency waits for no model, and a harmful
    request gets none.

    Raises:
        UserError: for a `patient_context` that is not understood.
    """
    findings = [finding | {"where": "question"} for finding in check_question(question, patient_context)]
    if not findings:
        return [], None
    emergencies = [finding["message"] for finding in findings if finding["kind"] == "emergency"]
    if emergencies:
        return findings, EMERGENCY.format("; ".join(emergencies))
    return findings, REFUSAL.format("; ".join(finding["message"] for finding in findings))


def check_after(response: str, question: str, patient_context: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Findings about an answer, with spans in it, citations or not."""
    found = check_response(blank_citations(response), question, patient_context)
    return [finding | {"where": "response"} for finding in found]


# ----- Passages


def answer_from_passages(
    answer: Callable[[list[Question]], list[dict[str, Any]]],
    retriever: Retriever,
    tokenizer: PreTrainedTokenizerBase,
    task: dict[str, Any],
    questions: list[Question],
) -> list[dict[str, Any]]:
    """Answer questions together with the passages of a corpus that share their words.

    Args:
        answer: `answer_here`, or `answer_there` for each question, of a model.
        retriever: of the corpus; threads may share it.
        tokenizer, task: of the model, also where a server holds it: passages stay within its `max_length`.
        questions: of several clients.

    Returns:
        what `answer` returns, with the citations of `cite` in `response`, and its `supported`, `wrong_citations` and
        `passages`.
    """
    column = task["columns"]["question"]
    rows = [{column: question.text} for question in questions]
    rows, shown = add_passages(rows, retriever, MOST_PASSAGES, tokenizer, task)
    asked = [question._replace(text=row[column]) for question, row in zip(questions, rows, strict=True)]
    results = []
    for found, passages in zip(answer(asked), shown, strict=True):
        cited = cite(found["response"], passages)
        if passages and found["confidence"] is not None:  # the training measured answers without passages
            found["confidence_note"] = confidence_words(found["confidence"], None)
        results.append(found | {"response": cited.pop("prediction")} | cited)
    return results


# ----- The model at hand


def answer_here(predictor: Predictor, questions: list[Question], batch_size: int) -> list[dict[str, Any]]:
    """Answer questions with the model of a predictor, those with equal settings together.

    Args:
        predictor: of task qa; `max_time` among its generation settings ends an answer that takes longer (seconds).
        questions: of several clients.
        batch_size: rows a batch.

    Returns:
        one dict a question: `response`; `finished`, by itself; `cut`, the model saw the end of the question alone;
        `confidence`, as `answer_confidence` has it, and `confidence_note`, what it is worth.
    """
    model, tokenizer, task = predictor.model, predictor.tokenizer, predictor.task
    prompts = [build_prompt(tokenizer, task, {task["columns"]["question"]: question.text}) for question in questions]
    whole, _ = tokenize_pairs(tokenizer, prompts, None, task["chat"])
    ids, _, _ = truncate_pairs(whole, None, task["max_length"])
    most = position_limit(model.config, tokenizer, "decoder")
    texts, finished = [""] * len(questions), [False] * len(questions)
    for settings, rows in _alike(questions):
        generation, asked = generation_settings(task, settings), [ids[row] for row in rows]
        if most:  # positions of the model: the prompt takes some
            generation["max_new_tokens"] = min(generation["max_new_tokens"], most - max(map(len, asked)))
        if settings.on_text and generation.get("num_beams", 1) == 1:  # beams have no text until they are done
            found = [_stream(predictor, asked[0], generation, settings.on_text)]
        else:
            rows_at_once = max(1, batch_size // generation.get("num_beams", 1))
            found = zip(
                *generate_answers(model, tokenizer, asked, task["stop"], generation, rows_at_once, None), strict=True
            )
        for row, (text, end) in zip(rows, found, strict=True):
            texts[row], finished[row] = text, end
    confidence = answer_confidence(model, tokenizer, task, prompts, texts, finished, batch_size, None).tolist()
    return [
        {"response": text, "finished": end, "cut": len(own) < len(own_whole), **state_confidence(p, task, question)}
        for text, end, own, own_whole, p, question in zip(
            texts, finished, ids, whole, confidence, questions, strict=True
        )
    ]


def state_confidence(confidence: float | None, task: dict[str, Any], question: Question) -> dict[str, Any]:
    """`confidence` and, in words, `confidence_note`. What the training measured holds for answers that are made as
    they were then: not for drawn ones, other beams or lengths."""
    if confidence is None:
        return {"confidence": None, "confidence_note": None}
    beams = {"num_beams": 1}
    as_measured = beams | generation_settings(task, question) == beams | task["generation"]
    table = task.get("confidence") if as_measured else None
    return {"confidence": confidence, "confidence_note": confidence_words(confidence, table)}


def generation_settings(task: dict[str, Any], question: Question) -> dict[str, Any]:
    """The training's generation settings with what a question asks for in their place."""
    settings = dict(task["generation"])
    if question.max_length is not None:
        settings["max_new_tokens"] = question.max_length
    if question.num_beams is not None:
        settings |= {"num_beams": question.num_beams, "do_sample": False}
    if question.length_penalty is not None:
        settings["length_penalty"] = question.length_penalty
    if question.temperature is not None:
        settings["do_sample"] = question.temperature >= LEAST_TEMPERATURE
        settings |= {"temperature": question.temperature, "num_beams": 1} if settings["do_sample"] else {}
    return settings


def _alike(questions: list[Question]) -> list[tuple[Question, list[int]]]:
    """Rows by equal settings; a row that is streamed has its own `on_text`, and so stands alone."""
    groups: dict[tuple, list[int]] = {}
    for row, question in enumerate(questions):
        groups.setdefault(question[1:], []).append(row)
    return [(questions[rows[0]], rows) for rows in groups.values()]


class _Streamer(TextStreamer):
    """Hands on the text so far, in place of printing its pieces."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.text, self.on_text = "", on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text += text
        self.on_text(self.text.strip())


@torch.inference_mode()
def _stream(
    predictor: Predictor, prompt: list[int], generation: dict[str, Any], on_text: Callable[[str], None]
) -> tuple[str, bool]:
    """`generate_answers` for one prompt, whose text is handed on while it grows."""
    tokenizer, stop = predictor.tokenizer, predictor.task["stop"]
    stop_ids = {tokenizer.convert_tokens_to_ids(stop), tokenizer.eos_token_id} - {None}
    config = GenerationConfig(**generation, eos_token_id=sorted(stop_ids), pad_token_id=tokenizer.pad_token_id)
    ids = torch.tensor([prompt], device=predictor.model.device)
    streamer = _Streamer(tokenizer, on_text)
    output = predictor.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=streamer
    )[0, len(prompt) :].tolist()
    return tokenizer.decode(output, skip_special_tokens=True).strip(), output[-1] in stop_ids
