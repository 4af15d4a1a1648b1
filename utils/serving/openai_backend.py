"""Answers by a server that speaks OpenAI's protocol, such as vLLM, which holds base model and adapter."""

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from openai import APIStatusError, BadRequestError, OpenAI, OpenAIError, Timeout
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from utils.arguments import UserError
from utils.prompts import fill_template
from utils.serving.answering import Question, generation_settings, state_confidence


class Unavailable(Exception):
    """The server that generates does not answer, or refuses. The message holds nothing of a question."""


def connect(base_url: str, api_key: str | None, seconds: float) -> OpenAI:
    """A client of the server at `base_url`, such as http://127.0.0.1:8000/v1.

    Raises:
        UserError: `base_url` is none.
    """
    try:
        url = urlsplit(base_url)
        is_address = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0  # a bad port raises
    except ValueError:
        is_address = False
    if not is_address:
        raise UserError(f"`base_url` {base_url} is no address: write http://HOST:PORT/v1.")
    # two seconds to connect: a server that is down is told at once
    timeout = Timeout(seconds, connect=2.0)
    return OpenAI(base_url=base_url, api_key=api_key or "none", timeout=timeout, max_retries=0)


def answer_there(client: OpenAI, name: str, task: dict[str, Any], question: Question) -> dict[str, Any]:
    """Answer a question with the model `name` of a server; as `answer_here`, with the server's own chat template.

    Raises:
        Unavailable: the server is down, has no such model or fails.
        UserError: the question asks for beam search, which is no part of the protocol; or the server refuses it, for
            its length most likely.
    """
    user = fill_template(task["prompt_template"], task["columns"], {task["columns"]["question"]: question.text})
    settings = generation_settings(task, question)
    if settings.get("num_beams", 1) > 1:
        raise UserError(
            "`num_beams` is for models that this process holds: leave it out, or start without `base_url`."
        )
    asked = {
        "model": name,
        "max_tokens": settings["max_new_tokens"],
        "temperature": settings.get("temperature", 1.0) if settings["do_sample"] else 0.0,
        "stream": True,
    }
    if settings.get("repetition_penalty", 1.0) != 1.0:  # vLLM knows it, OpenAI does not
        asked["extra_body"] = {"repetition_penalty": settings["repetition_penalty"]}
    start = time.monotonic()
    text, finish, log_p = "", None, []
    try:
        if task["chat"]:
            system = [{"role": "system", "content": task["system_prompt"]}] if task["system_prompt"] else []
            messages = [*system, {"role": "user", "content": user}]
            stream = client.chat.completions.create(messages=messages, logprobs=True, **asked)
        else:
            stream = client.completions.create(prompt=user, logprobs=1, **asked)
        for choice in (chunk.choices[0] for chunk in stream if chunk.choices):
            text += (choice.delta.content if task["chat"] else choice.text) or ""
            if choice.logprobs and task["chat"]:
                log_p += [token.logprob for token in choice.logprobs.content or []]
            elif choice.logprobs:
                log_p += choice.logprobs.token_logprobs or []
            finish = choice.finish_reason or finish
            if time.monotonic() - start > client.timeout.read:
                raise Unavailable("the server at `base_url` takes too long")
            if question.on_text:
                question.on_text(text.strip())
    except BadRequestError as error:
        raise UserError(
            f"the server refuses this question (status {error.status_code}); it may be too long."
        ) from error
    except APIStatusError as error:
        raise Unavailable(f"the server at `base_url` answers {error.status_code} to model {name}") from error
    except (OpenAIError, ValueError) as error:
        raise Unavailable("the server at `base_url` does not answer") from error
    if finish is None:
        raise Unavailable("the server at `base_url` broke off in the middle of its answer")
    confidence = float(np.exp(np.mean(log_p))) if log_p else None
    sure = state_confidence(confidence, task, question)
    return {"response": text.strip(), "finished": finish == "stop", "cut": False, **sure}


def read_task(model: str) -> dict[str, Any]:
    """The `task.json` of a run's folder or Hub repository, without its weights.

    Raises:
        UserError: it has none.
    """
    try:
        path = Path(model, "task.json") if Path(model).is_dir() else Path(hf_hub_download(model, "task.json"))
        return json.loads(path.read_text(encoding="utf-8"))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f"`model` {model} has no task.json that can be read: give the `output_dir` of a run that has ended, or "
            "its Hub repository."
        ) from error


def read_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a run's folder or Hub repository: it measures how many passages a question may bring along.

    Raises:
        UserError: it has none.
    """
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(f"`model` {model} has no tokenizer, which `corpus_file` needs: give a run's.") from error


def state_of(client: OpenAI, name: str) -> str:
    """`ok`, or what is wrong with the server, for `GET /health`."""
    try:
        known = {model.id for model in client.with_options(timeout=2.0).models.list()}
    except (OpenAIError, ValueError):
        return "the server at `base_url` does not answer"
    return "ok" if name in known else f"the server at `base_url` has no model {name}"
