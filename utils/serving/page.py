"""The web page: a file of HTML, its script and its style, and the routes that write an answer as HTML.

The page loads nothing from other sites. Its routes take the requests of the REST API and return its answers, each
with the HTML that shows it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from utils.serving.guard import DISCLAIMER
from utils.serving.marking import answer_html, classes_html, summary_html
from utils.serving.refusals import status_and_detail
from utils.serving.schemas import (
    MAX_CHARACTERS,
    ClassifyAnswer,
    ClassifyRequest,
    GenerateAnswer,
    GenerateRequest,
    SummarizeAnswer,
    SummarizeRequest,
)

TITLE = "Models fine-tuned on medical text"
STATIC = Path(__file__).parent / "static"
EXAMPLES = {
    "qa": ["What is ataxia?", "Can I take ibuprofen while I am on warfarin?", "I have crushing chest pain right now."],
    "classification": [
        "A hole in the wall between the two upper chambers of the heart.",
        "Loss of hearing in old age.",
    ],
    "hierarchical": ["Acute inflammation of the middle ear, right side", "Broken wrist after a fall, first visit"],
    "summarization": [
        "Doctor: What brings you in today?\nPatient: My left knee has hurt for two weeks, since I fell.\n"
        "Doctor: Any fever?\nPatient: No.\nDoctor: Do you take anything for it?\n"
        "Patient: Ibuprofen, 400 mg, twice a day.\nDoctor: Keep to that for another week and rest the knee."
    ],
}
ONE_STAGE = "rules alone, which miss what they do not list: the app runs without --safety_model"
OnText = Callable[[str], None]
Generate = Callable[[GenerateRequest, Request, OnText], Awaitable[GenerateAnswer]]
Classify = Callable[[ClassifyRequest, Request], Awaitable[tuple[ClassifyAnswer, dict[str, Any]]]]
Summarize = Callable[[SummarizeRequest, Request], Awaitable[SummarizeAnswer]]


def add_page(
    app: FastAPI,
    tasks: Mapping[str, dict[str, Any]],
    generate: Generate,
    classify: Classify,
    summarize: Summarize,
    root_path: str = "",
    has_second_stage: bool = False,
) -> None:
    """Add the page at `/`, its files at `/static`, and its routes at `/page`.

    Args:
        app: the application.
        tasks: name of a model -> its `task.json`.
        generate: answers a question, and calls a function with the answer so far whenever it grows.
        classify: classifies texts, and returns the `task.json` of the model, too.
        summarize: summarizes a text.
        root_path: path under which a proxy publishes the application.
        has_second_stage: whether a classifier checks questions beside the rules.
    """
    router = APIRouter(prefix="/page", include_in_schema=False)
    text = page_html(tasks, root_path, has_second_stage)

    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(text)

    @router.post("/generate")
    async def stream_answer(request: GenerateRequest, http: Request) -> StreamingResponse:
        """Stream lines of JSON: `text`, the answer so far, and last `answer` and `html`, or `detail` of an error."""
        loop, texts = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def on_text(so_far: str) -> None:
            loop.call_soon_threadsafe(texts.put_nowait, so_far)

        answering = asyncio.ensure_future(generate(request, http, on_text))
        answering.add_done_callback(lambda _: texts.put_nowait(None))
        first = await texts.get()
        if first is None:
            answering.result()  # its error has a status of its own as long as nothing was sent

        async def lines() -> AsyncIterator[str]:
            so_far = first
            try:
                while so_far is not None:
                    yield _line(text=so_far)
                    so_far = await texts.get()
                answer = answering.result().model_dump()
                yield _line(answer=answer, html=answer_html(answer))
            except Exception as error:
                yield _line(detail=status_and_detail(error)[1])
            finally:
                answering.cancel()  # the browser is gone: the model stops, too

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @router.post("/classify")
    async def show_classes(request: ClassifyRequest, http: Request) -> dict[str, Any]:
        found, task = await classify(request, http)
        answer = found.model_dump()
        html = "".join(classes_html(result, task) for result in answer["results"])
        return {"answer": answer, "html": html}

    @router.post("/summarize")
    async def show_summary(request: SummarizeRequest, http: Request) -> dict[str, Any]:
        answer = (await summarize(request, http)).model_dump()
        return {"answer": answer, "html": summary_html(answer, request.text)}

    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def page_html(tasks: Mapping[str, dict[str, Any]], root_path: str, has_second_stage: bool) -> str:
    """Return the page, with what its script has to know about the models as JSON in it."""
    models = [
        {"name": name, "task": task["task"], "parts": task.get("raw_columns", {}).get("parts") or []}
        | {"column": task.get("raw_columns", {}).get("input")}
        for name, task in tasks.items()
    ]
    config = json.dumps({"models": models, "examples": EXAMPLES, "max_characters": MAX_CHARACTERS})
    filled = {
        "BASE": f"{root_path}/",
        "TITLE": TITLE,
        "DISCLAIMER": DISCLAIMER,
        "STAGES": "rules and a classifier" if has_second_stage else ONE_STAGE,
        "MAX_CHARACTERS": str(MAX_CHARACTERS),
    }
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    for key, value in filled.items():
        text = text.replace(f"{{{{{key}}}}}", escape(value))
    return text.replace("{{CONFIG}}", config.replace("<", "\\u003c"))  # JSON in a script element ends at </script>


def _line(**values: Any) -> str:
    return json.dumps(values) + "\n"
