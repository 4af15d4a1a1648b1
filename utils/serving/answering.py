"""Question answering for the app: settings per request, streaming, confidence, and the safety checks before and after
generation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, TextStreamer

from utils.arguments import UserError
from utils.evaluation.confidence import answer_confidence, confidence_words
from utils.generation import generate_answers
from utils.inference import Predictor
from utils.prompts import build_prompt, tokenize_pairs, truncate_pairs
from utils.retrieval import MAX_PASSAGES, Retriever, add_passages, blank_citations, cite
from utils.safety import check_question, check_response
from utils.seq2seq import position_limit

# Emergency: 112 (EU), 911 (North America). Crisis lines: 988 (North America), 116 123 (EU, UK)
EMERGENCY = (
    "This may be an emergency ({}). Call your local emergency number now: 112 in Europe, 911 in North America. "
    "If you are thinking about suicide, you can also call 988 in North America, or 116 123 in the UK and much of "
    "Europe. No model was asked, and this is not a diagnosis."
)
REFUSAL = (
    "This question is not answered: it {}. If someone is at risk, call your local emergency number: 112 in Europe, "
    "911 in North America. Crisis lines: 988 in North America, 116 123 in the UK and much of Europe."
)
MIN_TEMPERATURE = 0.01  # below it decoding is greedy, since the scaled logits could overflow


class Question(NamedTuple):
    """A question with its generation settings; None keeps the setting of the run's evaluation.

    temperature: sampling temperature; below `MIN_TEMPERATURE` decoding is greedy.
    max_length: maximum number of answer tokens.
    num_beams: number of beams; 1 disables beam search.
    length_penalty: exponent of the length by which a beam's log probability is divided: above 0 favours longer
        answers, below 0 shorter ones.
    on_text: called with the answer so far whenever it grows; never called during beam search.
    """

    text: str
    temperature: float | None = None
    max_length: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    on_text: Callable[[str], None] | None = None


def check_settings(temperature: float | None, num_beams: int | None, length_penalty: float | None) -> None:
    """Raise a UserError if settings of a question contradict each other."""
    has_beams = num_beams is not None and num_beams > 1
    if has_beams and temperature is not None and temperature >= MIN_TEMPERATURE:
        raise UserError("`num_beams` above 1 and `temperature` above 0 exclude each other: give one of them.")
    if length_penalty is not None and not has_beams:
        raise UserError("`length_penalty` only affects beam search: set `num_beams` to 2 or more, or drop it.")


# ----- Safety


def check_before(question: str, patient_context: dict[str, Any] | None) -> tuple[list[dict[str, Any]], str | None]:
    """Check a question before generation.

    Returns:
        The findings, and the reply to give instead of an answer: for an emergency the numbers to call, for a harmful
        request a refusal, otherwise None.

    Raises:
        UserError: `patient_context` is not valid.
    """
    findings = [finding | {"where": "question"} for finding in check_question(question, patient_context)]
    if not findings:
        return [], None
    emergencies = [finding["message"] for finding in findings if finding["kind"] == "emergency"]
    if emergencies:
        return findings, EMERGENCY.format("; ".join(emergencies))
    return findings, REFUSAL.format("; ".join(finding["message"] for finding in findings))


def check_after(response: str, question: str, patient_context: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Check an answer, with or without citations. Spans refer to the answer as given."""
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
    """Answer questions with passages that are retrieved from a corpus, and cite them (see `utils.retrieval`).

    Args:
        answer: answers a list of questions, such as `answer_here` or `answer_there` for each.
        retriever: retriever of the corpus; may be shared between threads.
        tokenizer, task: of the model, even if a server hosts it; prompts stay within its `max_length` tokens.
        questions: questions, possibly of several clients.

    Returns:
        The dicts of `answer`, with the citations of `cite` in `response`, and its `supported`, `wrong_citations` and
        `passages`.
    """
    column = task["columns"]["question"]
    rows = [{column: question.text} for question in questions]
    rows, shown = add_passages(rows, retriever, MAX_PASSAGES, tokenizer, task)
    asked = [question._replace(text=row[column]) for question, row in zip(questions, rows, strict=True)]
    results = []
    for found, passages in zip(answer(asked), shown, strict=True):
        cited = cite(found["response"], passages)
        if passages and found["confidence"] is not None:  # the run was calibrated without passages
            found["confidence_note"] = confidence_words(found["confidence"], None)
        results.append(found | {"response": cited.pop("prediction")} | cited)
    return results


# ----- The local model


def answer_here(predictor: Predictor, questions: list[Question], batch_size: int) -> list[dict[str, Any]]:
    """Answer questions with a predictor; questions with equal settings share a batch.

    Args:
        predictor: predictor of task qa; `max_time` in its generation settings limits the seconds of an answer.
        questions: questions, possibly of several clients.
        batch_size: maximum rows per batch; beams count as rows.

    Returns:
        One dict per question: `response`; `finished`, whether the answer ended by itself; `cut`, whether the model saw
        only the end of the question; `confidence` of `answer_confidence`, and what it means as `confidence_note`.
    """
    model, tokenizer, task = predictor.model, predictor.tokenizer, predictor.task
    prompts = [build_prompt(tokenizer, task, {task["columns"]["question"]: question.text}) for question in questions]
    whole, _ = tokenize_pairs(tokenizer, prompts, None, task["chat"])
    ids, _, _ = truncate_pairs(whole, None, task["max_length"])
    positions = position_limit(model.config, tokenizer, "decoder")
    texts, finished = [""] * len(questions), [False] * len(questions)
    for settings, rows in _group_by_settings(questions):
        generation, asked = generation_settings(task, settings), [ids[row] for row in rows]
        if positions:  # prompt and answer share the positions of the model
            generation["max_new_tokens"] = min(generation["max_new_tokens"], positions - max(map(len, asked)))
        if settings.on_text and generation.get("num_beams", 1) == 1:  # beam search has no text before the end
            found = [_stream(predictor, asked[0], generation, settings.on_text)]
        else:
            rows_at_once = max(1, batch_size // generation.get("num_beams", 1))
            answers, ends = generate_answers(model, tokenizer, asked, task["stop"], generation, rows_at_once, None)
            found = list(zip(answers, ends, strict=True))
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
    """Return `confidence` and its meaning in words, `confidence_note`.

    The accuracy measured in the run's evaluation applies only to answers generated with the same settings: not to
    sampled answers, other beams or other lengths.
    """
    if confidence is None:
        return {"confidence": None, "confidence_note": None}
    beams = {"num_beams": 1}
    as_measured = beams | generation_settings(task, question) == beams | task["generation"]
    table = task.get("confidence") if as_measured else None
    return {"confidence": confidence, "confidence_note": confidence_words(confidence, table)}


def generation_settings(task: dict[str, Any], question: Question) -> dict[str, Any]:
    """Return the generation settings of the run, overridden by those of a question."""
    settings = dict(task["generation"])
    if question.max_length is not None:
        settings["max_new_tokens"] = question.max_length
    if question.num_beams is not None:
        settings |= {"num_beams": question.num_beams, "do_sample": False}
    if question.length_penalty is not None:
        settings["length_penalty"] = question.length_penalty
    if question.temperature is not None:
        settings["do_sample"] = question.temperature >= MIN_TEMPERATURE
        settings |= {"temperature": question.temperature, "num_beams": 1} if settings["do_sample"] else {}
    return settings


def _group_by_settings(questions: list[Question]) -> list[tuple[Question, list[int]]]:
    """Group row indices by equal settings. Streamed questions differ in `on_text`, so each forms its own group."""
    groups: dict[tuple, list[int]] = {}
    for row, question in enumerate(questions):
        groups.setdefault(question[1:], []).append(row)
    return [(questions[rows[0]], rows) for rows in groups.values()]


class _Streamer(TextStreamer):
    """Call `on_text` with the text so far instead of printing it."""

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
    """Stream the answer to one prompt; returns what `generate_answers` returns for it: text and `finished`."""
    tokenizer, stop = predictor.tokenizer, predictor.task["stop"]
    stop_ids = {tokenizer.convert_tokens_to_ids(stop), tokenizer.eos_token_id} - {None}
    config = GenerationConfig(**generation, eos_token_id=sorted(stop_ids), pad_token_id=tokenizer.pad_token_id)
    ids = torch.tensor([prompt], device=predictor.model.device)
    streamer = _Streamer(tokenizer, on_text)
    output = predictor.model.generate(  # type: ignore[operator]  # stub
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=streamer
    )[0, len(prompt) :].tolist()
    return str(tokenizer.decode(output, skip_special_tokens=True)).strip(), output[-1] in stop_ids
