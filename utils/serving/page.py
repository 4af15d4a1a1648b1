"""The web page (Gradio): one tab per loaded model. It loads nothing from other sites and stores nothing."""

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # an alias of TimeoutError from Python 3.11 on
from html import escape
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # must be set before gradio is imported

import gradio as gr
import plotly.graph_objects as go
from fastapi import FastAPI
from gradio.routes import App
from starlette.routing import Mount

from utils.arguments import UserError
from utils.safety import unrecognised
from utils.safety.context import SecondStage
from utils.safety.language import unread_language
from utils.serving.answering import Question, check_after, check_before, check_settings
from utils.serving.batching import Busy
from utils.serving.decoding import Client
from utils.serving.guard import DISCLAIMER, log_defect
from utils.serving.marking import (
    CSS,
    banner,
    describe_classes,
    list_findings,
    list_passages,
    mark_covered,
    mark_spans,
    notes_on,
    plot_classes,
    unrecognised_note,
    warn_of,
)
from utils.serving.openai_backend import Unavailable
from utils.serving.schemas import MAX_BEAMS

TITLE = "Models fine-tuned on medical text"
TABS = {
    "qa": "Ask",
    "classification": "Classify",
    "hierarchical": "Classify hierarchically",
    "summarization": "Summarize",
}
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
NOT_SEARCHED = "<p>Hallucinations were not searched: the rules and word lists are English, and the text is not.</p>"
SUMMARY = '<p><b>Summary</b> (hallucinations that were found are <mark class="hallucinated">marked</mark>)</p>'
SOURCE = '<p><b>Text</b> (words that the summary uses are <mark class="covered">marked</mark>)</p>'
ONE_STAGE = "rules alone, which miss what they do not list: no classifier (`safety_model`) is loaded"
Ask = Callable[[list[Any]], Future]


def make_page(
    models: dict[str, tuple[dict[str, Any], Ask]],
    seconds: float,
    max_characters: int,
    second_stage: SecondStage | None = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        models: task name -> its `task.json` and the function that puts rows into its queue.
        seconds: maximum seconds to wait for an answer.
        max_characters: maximum length of a text.
        second_stage: classifier that checks questions beside the rules.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n**{DISCLAIMER}** In an emergency, call your local emergency number.")
        for name, (task, ask) in models.items():
            with gr.Tab(TABS[name]):
                if name == "qa":
                    _question_tab(task, ask, seconds, max_characters, second_stage)
                elif name == "summarization":
                    _summary_tab(ask, seconds, max_characters)
                else:
                    _class_tab(name, task, ask, seconds, max_characters)
    # each running event of the page holds a thread; the queues of the models limit what waits
    return page.queue(max_size=64, default_concurrency_limit=16, api_open=False)


def mount_page(app: FastAPI, page: gr.Blocks, root_path: str = "") -> asyncio.Event:
    """Mount the page at `/`, with system fonts, and without Gradio's history, monitoring and MCP server.

    Args:
        app: the application.
        page: the page of `make_page`.
        root_path: path under which a proxy publishes the application.

    Returns:
        An event that ends the connections which browsers keep open, once it is set.
    """
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    gr.mount_gradio_app(
        app, page, path="/", css=CSS, theme=theme, footer_links=[], run_history=False, show_error=True,
        ssr_mode=False, enable_monitoring=False, mcp_server=False, pwa=False, root_path=root_path or None,
    )  # fmt: skip
    return next(m.app.stop_event for m in app.routes if isinstance(m, Mount) and isinstance(m.app, App))


# ----- Tabs


def _question_tab(
    task: dict[str, Any], ask: Ask, seconds: float, max_characters: int, second_stage: SecondStage | None
) -> None:
    box = gr.Textbox(label="Question", lines=2, max_length=max_characters)
    with gr.Accordion("Patient (used by the safety checks only)", open=False), gr.Row():
        age = gr.Textbox(label="Age in years", max_length=5)  # `gr.Number` shows 0 for an unknown age
        pregnant = gr.Checkbox(label="Pregnant")
        listed = [
            gr.Textbox(label=f"{kind} (separated by commas)", max_length=500)
            for kind in ("Medications", "Allergies", "Conditions")
        ]
    with gr.Accordion("Settings", open=False), gr.Row():
        settings = task["generation"]
        temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature", info="0: always the most likely token")
        longest = gr.Slider(1, task["max_length"], settings["max_new_tokens"], step=1, label="Maximum length",
                            info="of the answer, in tokens")  # fmt: skip
        beams = gr.Slider(1, MAX_BEAMS, settings.get("num_beams", 1), step=1, label="Beams",
                          info="2 or more: beam search, which needs temperature 0")  # fmt: skip
        penalty = gr.Slider(-2, 2, settings.get("length_penalty", 1), step=0.5, label="Length penalty",
                            info="of beam search; 0 and below favour short answers")  # fmt: skip
    button = gr.Button("Ask", variant="primary")
    gr.Markdown(f"Questions are checked by {'rules and a classifier' if second_stage else ONE_STAGE}.")
    answer, findings = gr.HTML(), gr.HTML()

    def run(
        text: str, age: str, pregnant: bool, drugs: str, allergies: str, conditions: str,
        temperature: float, longest: float, beams: float, penalty: float,
    ) -> Iterator[tuple[str, str]]:  # fmt: skip
        _check_text(text, max_characters)
        patient = {"age": age, "pregnancy": pregnant or None, "medications": drugs, "allergies": allergies}
        patient = {key: value for key, value in (patient | {"conditions": conditions}).items() if value}
        settings = (temperature, int(longest), int(beams), penalty if beams > 1 else None)
        deadline, has_left = time.monotonic() + seconds, threading.Event()
        try:
            check_settings(temperature, *settings[2:])
            unknown = unrecognised_note(unrecognised(patient))
            found, instead = check_before(text, patient, second_stage)
            if instead:
                yield banner(instead), unknown + list_findings(found, unread_language(text))
                return
            texts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
            future = ask([Question(text, *settings, texts.put, Client(deadline, has_left.is_set))])
            future.add_done_callback(lambda _: texts.put(None))
            for so_far in iter(lambda: texts.get(timeout=seconds), None):
                yield f'<div class="text">{escape(so_far)}</div>', ""
            (done,) = future.result()
            found = check_after(done["response"], text, patient)
        except Exception as error:
            raise _as_shown(error) from None
        finally:
            has_left.set()  # Gradio closes this generator when the browser is gone: the model stops, too
        marked = mark_spans(done["response"], found, lambda f: f"level{f['severity']}")
        language = unread_language(done["response"]) or unread_language(text)
        notes = unknown + list_findings(found, language) + notes_on(done) + list_passages(done)
        yield warn_of(found) + f'<div class="text">{marked}</div>', notes

    inputs = [box, age, pregnant, *listed, temperature, longest, beams, penalty]
    _on_ask([button.click, box.submit], run, inputs, [answer, findings])
    _examples("qa", box)


def _class_tab(name: str, task: dict[str, Any], ask: Ask, seconds: float, max_characters: int) -> None:
    parts = task.get("raw_columns", {}).get("parts") or []  # a box for each column whose texts are joined
    boxes = [gr.Textbox(label=name, lines=4, max_length=max_characters) for name in parts or ["Text"]]
    button = gr.Button("Classify", variant="primary")
    verdict, plot = gr.HTML(), gr.Plot(show_label=False)

    def run(*texts: str) -> tuple[str, go.Figure]:
        for text in texts:
            _check_text(text, max_characters)
        try:
            row = dict(zip(parts, texts, strict=True)) if parts else texts[0]
            (found,) = ask([row]).result(timeout=seconds)
        except Exception as error:
            raise _as_shown(error) from None
        return describe_classes(found, task), plot_classes(found, task)

    _on_ask([button.click], run, boxes, [verdict, plot])
    if not parts:
        _examples(name, boxes[0])


def _summary_tab(ask: Ask, seconds: float, max_characters: int) -> None:
    box = gr.Textbox(label="Dialogue or note", lines=8, max_length=max_characters)
    button = gr.Button("Summarize", variant="primary")
    summary, source = gr.HTML(), gr.HTML()

    def run(text: str) -> tuple[str, str]:
        _check_text(text, max_characters)
        try:
            (found,) = ask([text]).result(timeout=seconds)
        except Exception as error:
            raise _as_shown(error) from None
        hallucinations = found["hallucinations"] or []
        marked = mark_spans(found["prediction"], hallucinations, lambda _: "hallucinated")
        listed = "".join(f"<li>{escape(f['text'])}: {escape(f['detail'])}</li>" for f in hallucinations)
        notes = notes_on(found) + (f"<ul>{listed}</ul>" if listed else "")
        notes += NOT_SEARCHED if found["hallucinations"] is None else ""
        covered = mark_covered(text, found["prediction"])
        return f'{SUMMARY}<div class="text">{marked}</div>{notes}', SOURCE + covered

    _on_ask([button.click], run, [box], [summary, source])
    _examples("summarization", box)


def _on_ask(events: list[Callable], run: Callable, inputs: list, outputs: list) -> None:
    for event in events:
        event(run, inputs, outputs, api_visibility="private", show_progress="minimal", trigger_mode="always_last")


def _examples(name: str, box: gr.Textbox) -> None:
    """Add clickable examples. `gr.Examples` would use a route that `Guard` closes."""
    texts = gr.Dataset(label="Examples", components=[box], samples=[[text] for text in EXAMPLES[name]])
    texts.click(lambda row: row[0], texts, box, api_visibility="private", show_progress="hidden")


def _check_text(text: str, max_characters: int) -> None:
    if not text or not text.strip():
        raise gr.Error("The text is empty: enter a text.", print_exception=False)
    if len(text) > max_characters:
        raise gr.Error(f"The text has more than {max_characters} characters: shorten it.", print_exception=False)


def _as_shown(error: Exception) -> gr.Error:
    """Return the error to show. Unexpected exceptions are logged and shown without details."""
    if isinstance(error, Busy | Unavailable | UserError):
        return gr.Error(str(error), print_exception=False)
    if isinstance(error, FutureTimeout | queue.Empty):
        return gr.Error("The time limit is exceeded. Try again later.", print_exception=False)
    log_defect(error)
    return gr.Error("Internal error.", print_exception=False)
