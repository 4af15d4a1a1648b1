"""Question answering for the app: settings per request, streaming, confidence, and the safety checks before and after
generation."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.chat import tokenize_pairs
from utils.citations import blank_citations, cite
from utils.evaluation.confidence import answer_confidence, confidence_words
from utils.examples import COLUMN, Examples
from utils.generation import truncate_pairs
from utils.inference import Predictor
from utils.positions import position_limit, trained_length
from utils.prompts import build_prompt
from utils.retrieval import MAX_PASSAGES, Retriever, add_passages
from utils.safety import check_question, check_response
from utils.safety.context import SecondStage
from utils.safety.language import unread_language
from utils.serving.decoding import Client, Row, decode_rows
from utils.shown_examples import with_examples
from utils.task import read_input

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


Deliver = Callable[[int, dict[str, Any]], None]  # takes the index of a question and its result


class Question(NamedTuple):
    """A question with its generation settings; None keeps the setting of the run's evaluation.

    temperature: sampling temperature; below `MIN_TEMPERATURE` decoding is greedy.
    max_length: maximum number of answer tokens.
    num_beams: number of beams; 1 disables beam search.
    length_penalty: exponent of the length by which a beam's log probability is divided: above 0 favours longer
        answers, below 0 shorter ones.
    on_text: called with the answer so far whenever it grows; never called during beam search.
    client: whether somebody still waits for the answer; generation stops once nobody does.
    examples: similar questions with their answers, as `example_texts` writes them.
    """

    text: str
    temperature: float | None = None
    max_length: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    on_text: Callable[[str], None] | None = None
    client: Client = Client(math.inf, lambda: False)
    examples: str = ""


def check_settings(temperature: float | None, num_beams: int | None, length_penalty: float | None) -> None:
    """Raise a UserError if settings of a question contradict each other."""
    has_beams = num_beams is not None and num_beams > 1
    if has_beams and temperature is not None and temperature >= MIN_TEMPERATURE:
        raise UserError("`num_beams` above 1 and `temperature` above 0 exclude each other: give one of them.")
    if length_penalty is not None and not has_beams:
        raise UserError("`length_penalty` only affects beam search: set `num_beams` to 2 or more, or drop it.")


# ----- Safety


def check_before(
    question: str, patient_context: dict[str, Any] | None, second_stage: SecondStage | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Check a question before generation, with the rules and, if it is given, with `second_stage`.

    Returns:
        The findings, and the reply to give instead of an answer: for an emergency the numbers to call, for a harmful
        request a refusal, otherwise None.

    Raises:
        UserError: `patient_context` is not valid.
    """
    found = check_question(question, patient_context, second_stage)
    findings = [finding | {"where": "question"} for finding in found]
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


def answer_as_read(
    answer: Callable[[list[Question], Deliver], None],
    task: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples | None,
    questions: list[Question],
    deliver: Deliver,
) -> None:
    """Read questions as training read those of its rows, and answer them with `answer`."""
    column = task["columns"]["question"]
    read = [read_input(question.text, task, "the question") for question in questions]
    rows = with_examples(read, examples, task, tokenizer)
    pairs = zip(questions, rows, strict=True)
    answer([question._replace(text=row[column], examples=row.get(COLUMN, "")) for question, row in pairs], deliver)


def warm_up_checks() -> None:
    """Read the tables of the safety checks. It takes seconds, of which the first users at once would each wait for
    all."""
    check_before("warm up", None)
    check_after("warm up", "warm up", None)
    unread_language("quelques mots de deux langues")


# ----- Passages


def answer_from_passages(
    answer: Callable[[list[Question], Deliver], None],
    retriever: Retriever,
    tokenizer: PreTrainedTokenizerBase,
    task: dict[str, Any],
    questions: list[Question],
    deliver: Deliver,
) -> None:
    """Answer questions with passages that are retrieved from a corpus, and cite them (see `utils.retrieval`).

    Args:
        answer: answers a list of questions and delivers each result.
        retriever: retriever of the corpus; may be shared between threads.
        tokenizer, task: of the model, even if a server hosts it; prompts stay within its `max_length` tokens.
        questions: questions, possibly of several clients.
        deliver: called with the index of each question and the result of `answer`, with the citations of `cite` in
            `response`, and its `supported`, `wrong_citations` and `passages`.
    """
    column = task["columns"]["question"]
    rows, shown = add_passages([as_row(own, task) for own in questions], retriever, MAX_PASSAGES, tokenizer, task)
    pairs = zip(questions, rows, strict=True)
    asked = [question._replace(text=row[column], examples=row[COLUMN]) for question, row in pairs]

    def with_citations(n: int, found: dict[str, Any]) -> None:
        cited = cite(found["response"], shown[n])
        if shown[n] and found["confidence"] is not None:  # the run was calibrated without passages
            found["confidence_note"] = confidence_words(found["confidence"], None)
        deliver(n, found | {"response": cited.pop("prediction")} | cited)

    answer(asked, with_citations)


# ----- The local model


def answer_here(predictor: Predictor, questions: list[Question], batch_size: int, deliver: Deliver) -> None:
    """Answer questions with a predictor. Questions share a batch, whatever their lengths and temperatures; only beam
    search, and sampling that `task.json` filters further, run apart.

    Args:
        predictor: predictor of task qa.
        questions: questions, possibly of several clients.
        batch_size: maximum rows per batch; beams count as rows.
        deliver: called with the index of each question and its result, as soon as its answer has ended: `response`;
            `finished`, whether the answer ended by itself; `cut`, whether the model saw only the end of the question;
            `confidence` of `answer_confidence`, and what it means as `confidence_note`.
    """
    model, tokenizer, task = predictor.model, predictor.tokenizer, predictor.task
    prompts = [build_prompt(tokenizer, task, as_row(question, task)) for question in questions]
    whole, _ = tokenize_pairs(tokenizer, prompts, None, task["chat"])
    ids, _, _ = truncate_pairs(whole, None, task["max_length"])
    positions = position_limit(model) or trained_length(model.config)
    stop_ids = sorted({tokenizer.convert_tokens_to_ids(task["stop"]), tokenizer.eos_token_id} - {None})

    def row_of(n: int) -> Row:
        question, settings = questions[n], generation_settings(task, questions[n])
        longest = settings["max_new_tokens"]
        if positions:  # prompt and answer share the positions of the model
            longest = min(longest, positions - len(ids[n]))
        temperature = settings.get("temperature", 1.0) if settings["do_sample"] else None
        return Row(ids[n], longest, temperature, question.on_text, question.client.is_gone)

    for generation, numbers in _group(task, questions):
        numbers = sorted(numbers, key=lambda n: len(ids[n]))  # rows of similar length need less padding
        rows_at_once = max(1, batch_size // generation.get("num_beams", 1))
        for start in range(0, len(numbers), rows_at_once):
            part = [n for n in numbers[start : start + rows_at_once] if not questions[n].client.is_gone()]

            def done(i: int, text: str, finished: bool, part: list[int] = part) -> None:
                n = part[i]
                (sure,) = answer_confidence(model, tokenizer, task, [prompts[n]], [text], [finished], 1, None).tolist()
                cut = len(ids[n]) < len(whole[n])
                confidence = state_confidence(sure, task, questions[n])
                deliver(n, {"response": text, "finished": finished, "cut": cut, **confidence})

            if part:
                decode_rows(model, tokenizer, [row_of(n) for n in part], stop_ids, generation, done)


def as_row(question: Question, task: Mapping[str, Any]) -> dict[str, str]:
    """Return the row that a prompt is filled with."""
    return {task["columns"]["question"]: question.text, COLUMN: question.examples}


def _group(task: dict[str, Any], questions: list[Question]) -> list[tuple[dict[str, Any], list[int]]]:
    """Return the generation settings and the indices of the questions that can share a batch."""
    groups: dict[str, tuple[dict[str, Any], list[int]]] = {}
    filtered = any(key in task["generation"] for key in ("top_p", "min_p", "typical_p", "top_h"))
    for n, question in enumerate(questions):
        settings = generation_settings(task, question)
        shared = {key: value for key, value in settings.items() if key not in ("max_new_tokens", "do_sample")}
        if not filtered or not settings["do_sample"]:
            shared.pop("temperature", None)
        groups.setdefault(json.dumps(shared, sort_keys=True), (settings, []))[1].append(n)
    return list(groups.values())


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
