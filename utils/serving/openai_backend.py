"""Question answering with an OpenAI-compatible server such as vLLM, which hosts the base model and the adapter."""

import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from openai import APIStatusError, BadRequestError, OpenAI, OpenAIError, Stream, Timeout
from openai.types import Completion, CompletionChoice
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.control_tokens import BREAK, as_text, keep_control_tokens
from utils.evaluation.confidence import lower_repeated
from utils.serving.answering import Question, as_row, generation_settings, state_confidence
from utils.task import load_task
from utils.templates import fill_template


class Unavailable(Exception):
    """The server at `base_url` does not answer or fails. The message contains nothing of the question."""


def connect(base_url: str, api_key: str | None, seconds: float) -> OpenAI:
    """Return a client of an OpenAI-compatible server.

    Args:
        base_url: URL of the server, such as http://127.0.0.1:8000/v1.
        api_key: API key, or None if the server needs none.
        seconds: read timeout.

    Raises:
        UserError: `base_url` is not a valid address.
    """
    try:
        url = urlsplit(base_url)
        is_address = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0  # a bad port raises
    except ValueError:
        is_address = False
    if not is_address:
        raise UserError(f"`base_url` {base_url} is not a valid address: use http://HOST:PORT/v1.")
    # two seconds to connect, so that a server that is down is reported quickly
    timeout = Timeout(seconds, connect=2.0)
    return OpenAI(base_url=base_url, api_key=api_key or "none", timeout=timeout, max_retries=0)


def answer_there(
    client: OpenAI,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    task: dict[str, Any],
    question: Question,
    seconds: float,
) -> dict[str, Any]:
    """Answer a question with a model of the server. The server applies its chat template, and would read control
    tokens in the question as structure, so each gets a space after its first character.

    Args:
        client: client of the server.
        name: name of the model on the server.
        tokenizer, task: of the run.
        question: question and settings.
        seconds: maximum seconds of the answer.

    Returns:
        A dict as in `answer_here`; `cut` is always False.

    Raises:
        Unavailable: the server is down, does not have the model or fails.
        UserError: beam search is requested, which the protocol does not have, or the server rejects the question,
            most likely because of its length.
    """
    template = keep_control_tokens(tokenizer, task["prompt_template"])
    user = fill_template(template, task["columns"], as_row(question, task))
    user = as_text(tokenizer, user).replace(BREAK, " ")
    settings = generation_settings(task, question)
    if settings.get("num_beams", 1) > 1:
        raise UserError(
            "`num_beams` above 1 is not supported by `backend: openai`: leave it out or start without `base_url`."
        )
    longest, penalty = settings["max_new_tokens"], settings.get("repetition_penalty", 1.0)
    temperature = settings.get("temperature", 1.0) if settings["do_sample"] else 0.0
    more = {"repetition_penalty": penalty} if penalty != 1.0 else None  # an extension of vLLM
    start = time.monotonic()
    text, finish = "", None
    log_p: list[float] = []
    stream: Stream[ChatCompletionChunk] | Stream[Completion]
    try:
        if task["chat"]:
            messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": user}]
            if task["system_prompt"]:
                messages.insert(0, {"role": "system", "content": task["system_prompt"]})
            stream = client.chat.completions.create(
                messages=messages, model=name, max_tokens=longest, temperature=temperature, stream=True,
                logprobs=True, extra_body=more,
            )  # fmt: skip
        else:
            stream = client.completions.create(
                prompt=user, model=name, max_tokens=longest, temperature=temperature, stream=True,
                logprobs=1, extra_body=more,
            )  # fmt: skip
        for choice in (chunk.choices[0] for chunk in stream if chunk.choices):
            if isinstance(choice, CompletionChoice):
                text += choice.text or ""
                log_p += (choice.logprobs and choice.logprobs.token_logprobs) or []
            else:
                text += choice.delta.content or ""
                log_p += [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []]
            finish = choice.finish_reason or finish
            if time.monotonic() - start > seconds or question.client.is_gone():
                stream.close()  # the server stops, too
                raise Unavailable("the server at `base_url` exceeded the time limit")
            if question.on_text:
                question.on_text(text.strip())
    except BadRequestError as error:
        raise UserError(
            f"the server rejects this question (status {error.status_code}): it may be too long, shorten it."
        ) from error
    except APIStatusError as error:
        raise Unavailable(f"the server at `base_url` returns status {error.status_code} for model {name}") from error
    except (OpenAIError, ValueError) as error:
        raise Unavailable("the server at `base_url` does not answer") from error
    if finish is None:
        raise Unavailable("the server at `base_url` closed the connection during its answer")
    confidence = lower_repeated(float(np.exp(np.mean(log_p))), text) if log_p else None
    sure = state_confidence(confidence, task, question)
    return {"response": text.strip(), "finished": finish == "stop", "cut": False, **sure}


def read_task(model: str, revision: str | None = None) -> dict[str, Any]:
    """Return what `load_task` reads from a run's `output_dir` or Hub repository; no weights are downloaded.

    Raises:
        UserError: there is no readable `task.json`.
    """
    try:
        if Path(model).is_dir():
            return load_task(Path(model))
        patterns = ["task.json", "recipe.yaml"]
        return load_task(Path(snapshot_download(model, revision=revision, allow_patterns=patterns)))
    except UserError:
        raise
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f"`model` {model} has no task.json that can be read: pass the `output_dir` of a finished run or its Hub "
            "repository."
        ) from error


def read_tokenizer(model: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a run's `output_dir` or Hub repository, which finds control tokens in a question and
    measures how many passages fit a prompt.

    Raises:
        UserError: there is no tokenizer.
    """
    try:
        return AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(f"`model` {model} has no tokenizer, which reads the questions: pass another run.") from error


class State:
    """`ok` or the problem of the server, asked at most every `SECONDS`: probes of many pods must not load it."""

    SECONDS = 5.0

    def __init__(self, client: OpenAI, name: str) -> None:
        self.client, self.name = client, name
        self.known, self.until = "", 0.0
        self.lock = threading.Lock()

    def __call__(self) -> str:
        with self.lock:
            if time.monotonic() >= self.until:
                self.known = self._ask()
                self.until = time.monotonic() + self.SECONDS
            return self.known

    def _ask(self) -> str:
        try:
            found = {model.id for model in self.client.with_options(timeout=2.0).models.list()}
        except (OpenAIError, ValueError):
            return "the server at `base_url` does not answer"
        return "ok" if self.name in found else f"the server at `base_url` has no model {self.name}"
