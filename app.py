"""A web page and a REST API for what runs have saved, one model a task.

    python app.py --model outputs/quickstart-qa
    python app.py --model outputs/quickstart-qa --model outputs/quickstart-classification --port 8080
    python app.py --model outputs/quickstart-qa --corpus_file leaflets.csv
    python app.py --model outputs/phi3-qlora --backend openai --base_url http://127.0.0.1:8000/v1

The page is at `/`, the description of the API at `/docs`, numbers for Prometheus at `/metrics`. With the environment
variable APP_TOKEN set, everything but `/health` asks for it: `Authorization: Bearer TOKEN`, or in the browser as the
password. With `--corpus_file` a question is asked together with passages of your own texts, and its answer cites them.
With `--backend openai` questions go to a server such as vLLM, which holds base model and adapter; it is told its
models' names with `--lora-modules NAME=DIR`, and NAME is the last part of `--model` or `--served_model`.

As a Hugging Face Space: this repository as it is, with the variable APP_MODEL in the Space's settings (an adapter's
repository), and GRADIO_SERVER_NAME=0.0.0.0 should the Space not set that itself. What a Space adds to requirements.txt
resolves with it (pip's dry run), but none was started.

Not a medical device: answers may be wrong and are for research only.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.trustedhost import TrustedHostMiddleware

from utils.arguments import UserError, parse_recipe, user_errors
from utils.inference import Predictor
from utils.retrieval import read_corpus
from utils.safety import risk_level
from utils.serving.answering import (
    Question,
    answer_from_passages,
    answer_here,
    check_after,
    check_before,
)
from utils.serving.batching import Batcher, Busy, Metrics, make_metrics
from utils.serving.guard import DISCLAIMER, Guard, Server, is_loopback, listen
from utils.serving.openai_backend import Unavailable, answer_there, connect, read_task, read_tokenizer, state_of
from utils.serving.page import TITLE, make_page, mount_page
from utils.serving.schemas import (
    MOST_CHARACTERS,
    ClassifyAnswer,
    ClassifyRequest,
    GenerateAnswer,
    GenerateRequest,
    Health,
    Problem,
    SummarizeAnswer,
    SummarizeRequest,
)

logger = logging.getLogger("app")
ROUTES = ("/generate", "/classify", "/summarize", "/health", "/metrics", "/docs", "/openapi.json")
MOST_BYTES = 1_000_000  # of a request's body

PROBLEMS = {status: {"model": Problem} for status in (400, 401, 404, 413, 422, 429, 500, 503, 504)}


@dataclass
class AppArguments:
    """What to serve, where, and within which limits."""

    model: list[str] = field(
        default_factory=lambda: os.environ.get("APP_MODEL", "").split(),
        metadata={"help": "A run's `output_dir` or its Hub repository, one a task; default: APP_MODEL."},
    )
    host: str = field(
        default_factory=lambda: os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        metadata={"help": "Address to listen on; 0.0.0.0 is every one of this machine."},
    )
    port: int = field(default=7860, metadata={"help": "Port to listen on."})
    backend: Literal["local", "openai"] = field(
        default="local", metadata={"help": "Who answers questions: this process, or the server at `base_url`."}
    )
    base_url: str | None = field(default=None, metadata={"help": "Of that server, http://HOST:PORT/v1."})
    served_model: str | None = field(
        default=None, metadata={"help": "The model's name on that server; default: the last part of `model`."}
    )
    corpus_file: str | None = field(
        default=None,
        metadata={"help": "Your own texts, to answer from and to cite: column `text`; `title`, `source` if there."},
    )
    batch_size: int = field(default=32, metadata={"help": "Rows a batch, of as many requests as wait."})
    batch_wait_ms: float = field(
        default=0.0, metadata={"help": "How long an incomplete batch waits for more; a crowd fills them without it."}
    )
    queue_size: int = field(default=256, metadata={"help": "Requests that may wait for a model; one more gets 429."})
    time_limit: float = field(default=60.0, metadata={"help": "Seconds that a request may take; more gets 504."})

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("`model` is not given: write --model DIR, the `output_dir` of a run that has ended.")
        if not 0 <= self.port <= 65535:
            raise UserError(f"`port` is {self.port}: give 1 to 65535, or 0 for any that is free.")
        for key in ("batch_size", "queue_size"):
            if getattr(self, key) < 1:
                raise UserError(f"`{key}` is {getattr(self, key)}: give 1 or more.")
        if not 0 <= self.batch_wait_ms <= 1000:
            raise UserError(f"`batch_wait_ms` is {self.batch_wait_ms}: give 0 to 1000.")
        if not 0 < self.time_limit <= 3600:
            raise UserError(f"`time_limit` is {self.time_limit}: give seconds, up to 3600.")
        if (self.backend == "openai") != (self.base_url is not None):
            raise UserError("`base_url` and `backend: openai` belong together: give both or none.")


class Served(NamedTuple):
    """A model that is loaded: its `task.json`, its queue, and what says `ok` or what is wrong with it."""

    task: dict[str, Any]
    batcher: Batcher
    state: Callable[[], str]


def load(model: str, args: AppArguments, metrics: Metrics) -> Served:
    """Load a model, or find out what a server has to be asked for it.

    Raises:
        UserError: it is no run's folder, or takes more than a text; or the corpus cannot be used.
    """
    task = read_task(model)
    retriever = None
    if task["task"] == "qa" and args.corpus_file is not None:
        retriever = read_corpus(args.corpus_file, task)
    limits = {"batch_wait_ms": args.batch_wait_ms, "queue_size": args.queue_size}
    if task["task"] == "qa" and args.base_url is not None:
        name = args.served_model or Path(model).name
        client = connect(args.base_url, os.environ.get("OPENAI_API_KEY"), args.time_limit)

        def ask(rows: list[Question]) -> list[dict[str, Any]]:
            return [answer_there(client, name, task, row) for row in rows]

        if retriever:
            ask = partial(answer_from_passages, ask, retriever, read_tokenizer(model), task)
        # the server makes its own batches: each question goes there at once
        batcher = Batcher("qa", ask, metrics, batch_size=1, threads=args.batch_size, **limits)
        return Served(task, batcher, lambda: state_of(client, name))
    predictor = Predictor.from_pretrained(model)
    task = predictor.task
    if "generation" in task:
        task["generation"]["max_time"] = args.time_limit  # seconds: nobody waits for what comes later

    def answer(rows: list[Any]) -> list[dict[str, Any]]:
        if task["task"] == "qa":
            return answer_here(predictor, rows, args.batch_size)
        return predictor(rows, args.batch_size)

    if retriever:
        answer = partial(answer_from_passages, answer, retriever, predictor.tokenizer, task)
    answer([Question("warm up", max_length=1) if task["task"] == "qa" else "warm up"])  # the first call is slow
    batcher = Batcher(task["task"], answer, metrics, batch_size=args.batch_size, **limits)
    return Served(task, batcher, batcher.state)


def join_models(argv: list[str]) -> list[str]:
    """`--model A --model B` -> `--model A B`, which is how `parse_recipe` takes a list."""
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
    """A classifier's result with its `top_k` likeliest classes, of each level."""
    levels = result["probabilities"]
    if isinstance(levels, dict):
        return result | {"probabilities": dict(itertools.islice(levels.items(), top_k))}
    return result | {"probabilities": [dict(itertools.islice(level.items(), top_k)) for level in levels]}


def milliseconds_since(start: float) -> float:
    return round(1000 * (time.perf_counter() - start), 1)


def refuse(request: Request, error: Exception) -> JSONResponse:
    """What cannot be answered -> one line and a status; nothing of what was sent."""
    if isinstance(error, RequestValidationError):
        return JSONResponse({"detail": [{key: e[key] for key in ("type", "loc", "msg")} for e in error.errors()]}, 422)
    if isinstance(error, Busy):
        return JSONResponse({"detail": str(error)}, 429, {"Retry-After": str(error.retry_after)})
    if isinstance(error, asyncio.TimeoutError):
        return JSONResponse({"detail": "the time limit is over, try again later"}, 504)
    return JSONResponse({"detail": str(error)}, 503 if isinstance(error, Unavailable) else 422)


def make_app(models: dict[str, Served], args: AppArguments, metrics: Metrics, token: str | None) -> FastAPI:
    """The application: API, page, metrics and what every request passes.

    Args:
        models: task name -> model.
        args: limits.
        metrics: where it counts.
        token: that every request but `/health` has to show; None: no request has to.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for served in models.values():  # uvicorn has waited for the requests; what the page still asked for ends here
            await asyncio.to_thread(served.batcher.close)

    app = FastAPIOffline(title=TITLE, description=DISCLAIMER, version="1", redoc_url=None, lifespan=lifespan)

    async def ask(name: str, rows: list[Any]) -> list[dict[str, Any]]:
        if name not in models:
            raise HTTPException(404, f"no model of task {name} is loaded: start app.py with the folder of one")
        return await asyncio.wait_for(asyncio.wrap_future(models[name].batcher.submit(rows)), args.time_limit)

    @app.post("/generate", responses=PROBLEMS)
    async def generate(request: GenerateRequest) -> GenerateAnswer:
        """Answer a question. An emergency or a harmful request is met with what to do, and no model is asked."""
        start = time.perf_counter()
        patient = request.patient_context and request.patient_context.model_dump(exclude_none=True)
        found, instead = [], None
        if request.use_safety:
            found, instead = await asyncio.to_thread(check_before, request.question, patient)
        answer = {"response": instead, "finished": True, "cut": False, "confidence": None, "confidence_note": None}
        if instead is None:
            settings = (request.temperature, request.max_length, request.num_beams, request.length_penalty)
            (answer,) = await ask("qa", [Question(request.question, *settings)])
            if request.use_safety:
                found += await asyncio.to_thread(check_after, answer["response"], request.question, patient)
        report = {"risk_level": risk_level(found), "warnings": found} if request.use_safety else None
        return GenerateAnswer(**answer, safety_report=report, inference_time_ms=milliseconds_since(start))

    @app.post("/classify", responses=PROBLEMS)
    async def classify(request: ClassifyRequest) -> ClassifyAnswer:
        """Sort one text or several into classes, or down a tree of classes."""
        start = time.perf_counter()
        name = request.task or ("hierarchical" if "classification" not in models else "classification")
        results = await ask(name, request.texts or [request.text])
        results = [show_first(result, request.top_k) for result in results]
        return ClassifyAnswer(results=results, inference_time_ms=milliseconds_since(start))

    @app.post("/summarize", responses=PROBLEMS)
    async def summarize(request: SummarizeRequest) -> SummarizeAnswer:
        """Summarize a dialogue or a note, and say what the summary invents."""
        start = time.perf_counter()
        (found,) = await ask("summarization", [request.text])
        return SummarizeAnswer(summary=found.pop("prediction"), **found, inference_time_ms=milliseconds_since(start))

    @app.get("/health", responses={503: {"model": Health}})
    def health() -> Health:
        """Whether every model can answer; needs no token."""
        wrong = [state for state in (served.state() for served in models.values()) if state != "ok"]
        report = Health(
            status=wrong[0] if wrong else "ok", model_loaded=not wrong, gpu_available=torch.cuda.is_available()
        )
        return JSONResponse(report.model_dump(), 503) if wrong else report

    @app.get("/metrics", response_class=PlainTextResponse)
    def prometheus() -> PlainTextResponse:
        """Requests, seconds, queues and batches for Prometheus."""
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    for kind in (RequestValidationError, UserError, Busy, Unavailable, asyncio.TimeoutError):
        app.add_exception_handler(kind, refuse)
    app.add_middleware(CORSMiddleware)  # no origin may read an answer; Gradio would let every one otherwise
    if is_loopback(args.host) and token is None:  # else a site whose name resolves to 127.0.0.1 could
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", args.host])
    app.add_middleware(Guard, metrics=metrics, routes=ROUTES, token=token, most_bytes=MOST_BYTES)
    page = make_page(
        {name: (m.task, m.batcher.submit) for name, m in models.items()}, args.time_limit, MOST_CHARACTERS
    )
    app.state.stop = mount_page(app, page)
    return app


def main(argv: list[str] | None = None) -> None:
    with user_errors():
        (args, _) = parse_recipe((AppArguments,), join_models(sys.argv[1:] if argv is None else argv), __doc__)
        token = os.environ.get("APP_TOKEN")
        if token is not None and not token.strip():
            raise UserError("`APP_TOKEN` is empty: give a token, or unset the variable.")
        listener = listen(args.host, args.port)  # before minutes of loading
        metrics = make_metrics()
        folders: dict[str, str] = {}
        for model in args.model:
            name = read_task(model)["task"]
            if name in folders:
                raise UserError(f"`model` {model} is the second one of task {name}: give one a task.")
            folders[name] = model
        if args.corpus_file is not None and "qa" not in folders:
            raise UserError("`corpus_file` is for questions, and no `model` is of task qa: leave it out, or give one.")
        models = {name: load(model, args, metrics) for name, model in folders.items()}
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if token is None and not is_loopback(args.host):
        logger.warning("`host` is %s and APP_TOKEN is not set: whoever reaches this machine may ask.", args.host)
    app = make_app(models, args, metrics, token)
    # uvicorn's own access log would hold query strings
    config = uvicorn.Config(app, access_log=False, timeout_graceful_shutdown=int(args.time_limit) + 1)
    logger.info("http://%s:%d", args.host, listener.getsockname()[1])
    Server(config, app.state.stop).run([listener])


if __name__ == "__main__":
    main()
