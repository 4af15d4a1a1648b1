"""Web page and REST API for fine-tuned models.

    python app.py --model outputs/quickstart-qa
    python app.py --model outputs/quickstart-qa --model outputs/quickstart-classification --port 8080
    python app.py --model outputs/first-classifier --model outputs/second-classifier
    python app.py --model outputs/quickstart-qa --corpus_file leaflets.csv
    python app.py --model outputs/phi3-qlora --backend openai --base_url http://127.0.0.1:8000/v1

The page is at `/`, the API documentation at `/docs` and the Prometheus metrics at `/metrics`.

- Several models of one task: a request names one of them in `model`, by the last part of its path; without, the first
  one answers. The page shows their answers side by side.
- Token: if the environment variable APP_TOKEN is set, every request except `/health` must send `Authorization: Bearer
  TOKEN`. A browser asks for a password instead: enter the token there.
- `--corpus_file` adds passages of your own texts to each question; the answer cites them.
- `--backend openai` sends questions to a server such as vLLM that hosts the base model and the adapter. Start vLLM
  with `--lora-modules NAME=DIR`, where NAME is `--served_model`, by default the last part of `--model`.
- Hugging Face Space: see deployment/space/README.md.

Not a medical device: answers may be wrong and are for research only.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import utils  # noqa: F401  # before torch and bitsandbytes, whose threads and messages it settles

# isort: split
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from utils.arguments import UserError, parse_recipe, user_errors
from utils.inference import Predictor
from utils.retrieval import read_corpus
from utils.runtimes.llama_cpp import LlamaCpp
from utils.safety import risk_level, unrecognised
from utils.safety.context import SecondStage
from utils.safety.language import unread_language
from utils.safety.second_stage import load_second_stage
from utils.serving.answering import (
    Deliver,
    Question,
    answer_as_read,
    answer_from_passages,
    answer_here,
    check_after,
    check_before,
    warm_up_checks,
)
from utils.serving.batching import Batcher, Busy, Metrics, make_metrics
from utils.serving.connections import Connection
from utils.serving.decoding import Client
from utils.serving.guard import DISCLAIMER, Guard, is_loopback, listen
from utils.serving.llama_cpp import answer_by_llama_cpp
from utils.serving.models import CLASSIFIERS, find_model, name_models
from utils.serving.openai_backend import State, answer_there, connect, read_task, read_tokenizer
from utils.serving.page import TITLE, OnText, add_page
from utils.serving.refusals import REFUSED, status_and_detail
from utils.serving.schemas import (
    ClassifyAnswer,
    ClassifyRequest,
    GenerateAnswer,
    GenerateRequest,
    Health,
    LoadedModel,
    Problem,
    SummarizeAnswer,
    SummarizeRequest,
)
from utils.shown_examples import find_examples
from utils.task import read_input

logger = logging.getLogger("app")
ROUTES = (
    "/generate", "/classify", "/summarize", "/models", "/live", "/ready", "/health", "/metrics", "/docs",
    "/openapi.json",
)  # fmt: skip
MAX_BYTES = 1_000_000  # per request body

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 413, 422, 429, 500, 503, 504)
}


@dataclass
class AppArguments:
    """Models to serve, address and limits."""

    model: list[str] = field(
        default_factory=lambda: os.environ.get("APP_MODEL", "").split(),
        metadata={
            "help": "`output_dir` or Hub repository of a run; may be given several times. Default: variable APP_MODEL."
        },
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Where the base model of the adapters is now, if it has moved since training."}
    )
    host: str = field(
        default_factory=lambda: os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        metadata={"help": "Address to listen on; 0.0.0.0 listens on all network interfaces."},
    )
    port: int = field(
        default_factory=lambda: cast(int, os.environ.get("GRADIO_SERVER_PORT", 7860)),  # argparse converts a text
        metadata={"help": "Port to listen on; 0 picks a free one."},
    )
    root_path: str = field(
        default_factory=lambda: os.environ.get("GRADIO_ROOT_PATH", ""),
        metadata={"help": "Path under which a proxy publishes the app, such as /medical."},
    )
    allowed_hosts: list[str] | None = field(
        default=None,
        metadata={
            "help": "Host names by which clients may call the app; * allows all. Default: this machine's own "
            "names without a token on a loopback address, else all."
        },
    )
    cors_origins: list[str] | None = field(
        default=None, metadata={"help": "Origins whose pages may call the API: https://HOST. Default: none."}
    )
    frame_ancestors: list[str] = field(
        # The page of a Space is a frame on the Hub
        default_factory=lambda: ["https://huggingface.co"] if os.environ.get("SPACE_ID") else [],
        metadata={"help": "Origins whose pages may show this one in a frame: https://HOST. Default: none."},
    )
    revision: str | None = field(
        default=None, metadata={"help": "Commit, tag or branch of `model` on the Hub; a commit never changes."}
    )
    backend: Literal["local", "openai"] = field(
        default="local", metadata={"help": "Who generates answers: this process or the server at `base_url`."}
    )
    base_url: str | None = field(
        default=None, metadata={"help": "URL of an OpenAI-compatible server: http://HOST:PORT/v1."}
    )
    served_model: str | None = field(
        default=None,
        metadata={
            "help": "Name of the model on that server; default: the last part of `model`.",
            "needs": ("base_url", None),
        },
    )
    corpus_file: str | None = field(
        default=None,
        metadata={"help": "File of texts to answer from and cite: column `text`; optional `id`, `title`, `source`."},
    )
    examples_file: str | None = field(
        default=None,
        metadata={
            "help": "Jsonl file with `question` and `answer`, for a model trained with `retrieve_examples`. Default: "
            "its training rows, which only its output folder has."
        },
    )
    safety_model: str | None = field(
        default=None,
        metadata={
            "help": "Second stage of the safety checks of questions: `output_dir` or Hub repository of "
            "`make safety-classifier`. Default: the rules work alone."
        },
    )
    batch_size: int = field(
        default=32, metadata={"help": "Maximum rows per batch; waiting requests are batched together."}
    )
    batch_wait_ms: float = field(
        default=0.0, metadata={"help": "Milliseconds an incomplete batch waits; under load batches fill without it."}
    )
    queue_size: int = field(
        default=256, metadata={"help": "Maximum requests waiting for a model; further ones get status 429."}
    )
    time_limit: float = field(
        default=60.0,
        metadata={
            "help": "Maximum seconds to answer a request (status 504 then), and for a client to send it or read on."
        },
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("`model` is not given: pass --model DIR, the `output_dir` of a finished run.")
        if not 0 <= self.port <= 65535:
            raise UserError(f"`port` is {self.port}: set 1 to 65535, or 0 for any free port.")
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+", self.root_path):
            raise UserError(f"`root_path` is {self.root_path}: begin with / and end without, as in /medical.")
        for key in ("cors_origins", "frame_ancestors"):
            for origin in getattr(self, key) or ():
                if origin != "*" and not re.fullmatch(r"https?://[\w.-]+(:\d+)?", origin):
                    raise UserError(f"`{key}` has {origin}: write https://HOST or https://HOST:PORT, or *.")
        for key in ("batch_size", "queue_size"):
            if getattr(self, key) < 1:
                raise UserError(f"`{key}` is {getattr(self, key)}: set 1 or more.")
        if not 0 <= self.batch_wait_ms <= 1000:
            raise UserError(f"`batch_wait_ms` is {self.batch_wait_ms}: set 0 to 1000.")
        if not 0 < self.time_limit <= 3600:
            raise UserError(f"`time_limit` is {self.time_limit}: set more than 0 and at most 3600 seconds.")
        if (self.backend == "openai") != (self.base_url is not None):
            raise UserError("`base_url` and `backend: openai` belong together: set both or neither.")


class Served(NamedTuple):
    """A loaded model: its `task.json`, its queue, and a function that returns `ok` or the problem of the server that
    hosts it, or None if this process does."""

    task: dict[str, Any]
    batcher: Batcher
    server_state: Callable[[], str] | None


def load(model: str, args: AppArguments, metrics: Metrics, label: str | None = None) -> Served:
    """Load a model into this process, or connect to the server that hosts it.

    Args:
        model: `output_dir` or Hub repository of a run.
        args: backend, corpus and limits.
        metrics: metrics of the application.
        label: name of its queue in the metrics; default: its task.

    Raises:
        UserError: `model` is not a run, needs more than one text as input, or cannot be used with the corpus.
    """
    task = read_task(model, args.revision)
    retriever = None
    if task["task"] == "qa" and args.corpus_file is not None:
        retriever = read_corpus(args.corpus_file, task)
    if task["task"] == "qa" and args.base_url is not None:
        name = args.served_model or Path(model).name
        client, tokenizer = (
            connect(args.base_url, os.environ.get("OPENAI_API_KEY"), args.time_limit),
            read_tokenizer(model, args.revision),
        )

        def ask(rows: list[Question], deliver: Deliver) -> None:
            for i, row in enumerate(rows):
                deliver(i, answer_there(client, name, tokenizer, task, row, args.time_limit))

        if retriever:
            ask = partial(answer_from_passages, ask, retriever, tokenizer, task)
        examples = find_examples(Path(model), args.examples_file, task)  # a repository has none
        ask = partial(answer_as_read, ask, task, tokenizer, examples)
        # the server does its own batching, so each question is sent immediately
        batcher = Batcher(label or "qa", ask, metrics, 1, args.batch_wait_ms, args.queue_size, threads=args.batch_size)
        return Served(task, batcher, State(client, name))
    examples_file = args.examples_file if task["task"] == "qa" else None
    predictor = Predictor.from_pretrained(model, args.revision, args.base_model, examples_file=examples_file)
    task = predictor.task
    if task["task"] == "summarization":
        task["generation"]["max_time"] = args.time_limit  # seconds: the client has its 504 after that

    def answer(rows: list[Any], deliver: Deliver) -> None:
        if isinstance(predictor.model, LlamaCpp):
            return answer_by_llama_cpp(predictor, predictor.model, rows, deliver)
        if task["task"] == "qa":
            return answer_here(predictor, rows, args.batch_size, deliver)
        for i, result in enumerate(predictor(rows, args.batch_size)):
            deliver(i, result)

    if retriever:
        answer = partial(answer_from_passages, answer, retriever, predictor.tokenizer, task)
    if task["task"] == "qa":
        answer = partial(answer_as_read, answer, task, predictor.tokenizer, predictor.examples)
    warm_up = Question("warm up", max_length=1) if task["task"] == "qa" else "warm up"
    answer([warm_up], lambda *_: None)  # the first call is slow
    batcher = Batcher(label or task["task"], answer, metrics, args.batch_size, args.batch_wait_ms, args.queue_size)
    return Served(task, batcher, None)


def load_models(args: AppArguments, metrics: Metrics) -> dict[str, Served]:
    """Load all models, after a look at the task of each, because loading takes minutes.

    Returns:
        Name of a model, from `name_models`, -> loaded model.

    Raises:
        UserError: a model cannot be loaded, is given twice, or an argument needs a model of another task.
    """
    names = name_models(args.model)
    tasks = [read_task(model, args.revision)["task"] for model in args.model]
    for key in ("corpus_file", "examples_file"):
        if getattr(args, key) is not None and "qa" not in tasks:
            raise UserError(f"`{key}` needs a `model` of task qa: add one, or drop `{key}`.")
    if args.safety_model is not None and "qa" not in tasks:
        raise UserError("`safety_model` checks questions, so it needs a `model` of task qa: add one, or drop it.")
    if args.served_model is not None and tasks.count("qa") > 1:
        raise UserError("`served_model` names one model, and several of task qa are given: drop it, or serve one.")
    served = [Path(model).name for model, task in zip(args.model, tasks, strict=True) if task == "qa"]
    if args.base_url is not None and len(set(served)) < len(served):
        raise UserError(
            "`model` has two of task qa that the server knows by one name, the last part: rename a folder."
        )
    models = {}
    for place, (name, task) in enumerate(zip(names, tasks, strict=True)):
        label = task if task not in tasks[:place] else f"{task} {name}"  # a dashboard of one model keeps its label
        models[name] = load(args.model[place], args, metrics, label)
    return models


def join_models(argv: list[str]) -> list[str]:
    """Turn `--model A --model B` into `--model A B`, the list syntax of `parse_recipe`."""
    given, rest = [], []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--model":
            given.append(next(arguments, ""))
        elif argument.startswith("--model="):
            given.append(argument.removeprefix("--model="))
        else:
            rest.append(argument)
    return [*rest, "--model", *given] if given else rest


def show_first(result: dict[str, Any], top_k: int) -> dict[str, Any]:
    """Limit the probabilities of a classifier's result to the `top_k` most likely classes per level, or of several
    labels to these labels, if they are more."""
    levels = result["probabilities"]
    if isinstance(levels, dict):
        chosen = result["prediction"] if isinstance(result["prediction"], list) else ()
        return result | {"probabilities": dict(itertools.islice(levels.items(), max(top_k, len(chosen))))}
    return result | {"probabilities": [dict(itertools.islice(level.items(), top_k)) for level in levels]}


def milliseconds_since(start: float) -> float:
    return round(1000 * (time.perf_counter() - start), 1)


async def until_disconnect(request: Request) -> None:
    """Return once the client has closed the connection. The body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refuse(request: Request, error: Exception) -> JSONResponse:
    """Turn an exception into a one-line JSON response that repeats nothing of the request."""
    status, detail = status_and_detail(error)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else None
    return JSONResponse({"detail": detail}, status, headers)


def make_app(
    models: dict[str, Served],
    args: AppArguments,
    metrics: Metrics,
    token: str | None,
    second_stage: SecondStage | None = None,
) -> FastAPI:
    """Build the application: API, page, metrics and middleware.

    Args:
        models: name -> loaded model.
        args: host and limits.
        metrics: metrics of the application.
        token: required by every request except those of probes; None requires no token.
        second_stage: classifier that checks questions beside the rules.
    """
    stages = ["rules", "classifier"] if second_stage else ["rules"]

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for served in models.values():  # uvicorn has waited for requests
            await asyncio.to_thread(served.batcher.close)

    # The middleware checks the token; this says so in the API's description
    secured = [Security(HTTPBearer(auto_error=False, description="The token in APP_TOKEN."))] if token else []
    app = FastAPIOffline(title=TITLE, description=DISCLAIMER, version="1", redoc_url=None, lifespan=lifespan)
    hosts = args.allowed_hosts
    if hosts is None and is_loopback(args.host) and token is None:  # against DNS rebinding: sites at 127.0.0.1
        hosts = ["127.0.0.1", "localhost", "[::1]", args.host]

    async def in_thread(check: Callable, *given: Any) -> Any:
        return await asyncio.wait_for(asyncio.to_thread(check, *given), args.time_limit)

    async def ask(served: Served, rows: list[Any], http: Request) -> list[dict[str, Any]]:
        """Wait for the results, until the time limit or until the client closes the connection."""
        # A row that lacks a column is refused by itself, not with the batch that it would be part of
        rows = [read_input(row, served.task, f"text {i}") if isinstance(row, dict) else row
                for i, row in enumerate(rows, 1)]  # fmt: skip
        has_left = threading.Event()
        if served.task["task"] == "qa":
            client = Client(time.monotonic() + args.time_limit, has_left.is_set)
            rows = [row._replace(client=client) for row in rows]
        results = asyncio.wrap_future(served.batcher.submit(rows))
        leaving = asyncio.create_task(until_disconnect(http))
        try:
            await asyncio.wait({results, leaving}, timeout=args.time_limit, return_when=asyncio.FIRST_COMPLETED)
            if results.done():
                return results.result()
            if leaving.done():
                raise HTTPException(499, "the client has closed the connection")
            raise asyncio.TimeoutError
        finally:
            has_left.set()  # generation stops at its next token
            leaving.cancel()
            results.cancel()

    async def answer_question(
        request: GenerateRequest, http: Request, on_text: OnText | None = None
    ) -> GenerateAnswer:
        start = time.perf_counter()
        served = find_model(models, ("qa",), request.model)
        patient = request.patient_context.model_dump(exclude_none=True) if request.patient_context else None
        found: list[dict[str, Any]] = []
        instead = None
        if request.use_safety:
            found, instead = await in_thread(check_before, request.question, patient, second_stage)
        answer: dict[str, Any] = {"response": instead, "finished": True, "cut": False}
        answer |= {"confidence": None, "confidence_note": None}
        if instead is None:
            settings = (request.temperature, request.max_length, request.num_beams, request.length_penalty)
            (answer,) = await ask(served, [Question(request.question, *settings, on_text)], http)
            if request.use_safety:
                found += await in_thread(check_after, answer["response"], request.question, patient)
        report: dict[str, Any] | None = None
        if request.use_safety:
            unread = unread_language(answer["response"]) or unread_language(request.question)
            report = {"risk_level": risk_level(found), "warnings": found, "stages": stages, "unread_language": unread}
            report["unrecognised"] = unrecognised(patient)
        more = {"safety_report": report, "inference_time_ms": milliseconds_since(start)}
        return GenerateAnswer.model_validate(answer | more)

    async def classify_texts(request: ClassifyRequest, http: Request) -> tuple[ClassifyAnswer, dict[str, Any]]:
        start = time.perf_counter()
        served = find_model(models, (request.task,) if request.task else CLASSIFIERS, request.model)
        results = await ask(served, request.texts or [request.text], http)
        shown = [show_first(result, request.top_k) for result in results]
        answer = {"results": shown, "inference_time_ms": milliseconds_since(start)}
        return ClassifyAnswer.model_validate(answer), served.task

    @app.post("/generate", responses=PROBLEMS, dependencies=secured)
    async def generate(request: GenerateRequest, http: Request) -> GenerateAnswer:
        """Answer a question. Emergencies and harmful requests get a fixed reply, and no model is asked."""
        return await answer_question(request, http)

    @app.post("/classify", responses=PROBLEMS, dependencies=secured)
    async def classify(request: ClassifyRequest, http: Request) -> ClassifyAnswer:
        """Classify one or more texts, flat or along a tree of classes. A text is an object of columns for a model that
        was trained on several."""
        return (await classify_texts(request, http))[0]

    @app.post("/summarize", responses=PROBLEMS, dependencies=secured)
    async def summarize(request: SummarizeRequest, http: Request) -> SummarizeAnswer:
        """Summarize a dialogue or note and list the hallucinations of the summary."""
        start = time.perf_counter()
        served = find_model(models, ("summarization",), request.model)
        (found,) = await ask(served, [request.text], http)
        return SummarizeAnswer(summary=found.pop("prediction"), **found, inference_time_ms=milliseconds_since(start))

    @app.get("/models", responses=PROBLEMS, dependencies=secured)
    def loaded_models() -> list[LoadedModel]:
        """List the models. A request names one of them in `model`; without, the first one of its task answers."""
        return [LoadedModel(name=name, task=served.task["task"]) for name, served in models.items()]

    def describe_health(states: list[str], response: Response) -> Health:
        wrong = [state for state in states if state != "ok"]
        response.status_code = 503 if wrong else 200
        gpu = torch.cuda.is_available()
        return Health(status=wrong[0] if wrong else "ok", model_loaded=not wrong, gpu_available=gpu)

    @app.get("/live", responses={503: {"model": Health}})
    def live(response: Response) -> Health:
        """Report whether this process works; if not, only a restart helps. Needs no token."""
        return describe_health([served.batcher.state() for served in models.values()], response)

    @app.get("/ready", responses={503: {"model": Health}})
    def ready(response: Response) -> Health:
        """Report whether this process takes requests. A server that hosts the model is not asked: while it is down,
        emergencies still get their answer here. Needs no token."""
        stopping = ["the app is stopping" for served in models.values() if served.batcher.closed]
        return describe_health([*stopping, *(served.batcher.state() for served in models.values())], response)

    @app.get("/health", responses={503: {"model": Health}})
    def health(response: Response) -> Health:
        """Report whether every model can answer, also those that another server hosts. Needs no token."""
        here = [served.batcher.state() for served in models.values()]
        there = [served.server_state() for served in models.values() if served.server_state]
        return describe_health([*here, *there], response)

    @app.get("/metrics", response_class=PlainTextResponse, dependencies=secured)
    def prometheus() -> PlainTextResponse:
        """Prometheus metrics: requests, latency, queue lengths and batch sizes."""
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    for kind in REFUSED:
        app.add_exception_handler(kind, refuse)
    app.add_middleware(
        Guard, metrics=metrics, routes=ROUTES, token=token, max_bytes=MAX_BYTES, seconds=args.time_limit,
        root_path=args.root_path, allowed_hosts=hosts, frame_ancestors=args.frame_ancestors,
    )  # fmt: skip
    # Outermost, since a browser asks by a request without token
    headers = ["Authorization", "Content-Type"]
    app.add_middleware(
        CORSMiddleware, allow_origins=args.cors_origins or [], allow_methods=["POST"], allow_headers=headers
    )
    tasks = {name: served.task for name, served in models.items()}
    add_page(app, tasks, answer_question, classify_texts, summarize, args.root_path, second_stage is not None)
    return app


def main(argv: list[str] | None = None) -> None:
    with user_errors():
        (args, _) = parse_recipe((AppArguments,), join_models(sys.argv[1:] if argv is None else argv), __doc__)
        token = os.environ.get("APP_TOKEN")
        if token is not None and not token.strip():
            raise UserError("`APP_TOKEN` is empty: set a token, or unset the variable.")
        listener = listen(args.host, args.port)  # fails before the models are loaded, which takes minutes
        metrics = make_metrics()
        models = load_models(args, metrics)
        second_stage = load_second_stage(args.safety_model) if args.safety_model is not None else None
        if any(served.task["task"] == "qa" for served in models.values()):
            warm_up_checks()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if token is None and not is_loopback(args.host):
        logger.warning("`host` is %s and APP_TOKEN is not set: anyone who can reach it can use the models.", args.host)
    app = make_app(models, args, metrics, token, second_stage)
    # no access log: it would contain query strings
    config = uvicorn.Config(
        app, http=cast(type[Connection], partial(Connection, seconds=args.time_limit)), ws="none", access_log=False,
        timeout_graceful_shutdown=int(args.time_limit) + 1,
    )  # fmt: skip
    logger.info("http://%s:%d", args.host, listener.getsockname()[1])
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
