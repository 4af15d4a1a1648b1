"""The page as a browser uses it: over its queue, with real models behind it."""

import json
import uuid

import pytest
from test_app import ATTACK, corpus, make_client, runs  # noqa: F401  fixtures

from utils.inference import Predictor
from utils.serving.page import EXAMPLES, TABS


@pytest.fixture(scope="module")
def client(runs):  # noqa: F811
    with make_client(list(runs.values())) as client:
        yield client


def press(client, label: str, *values, which: int = 0) -> list[dict]:
    """Press the `which`th button of this label and return what the browser gets until the event is done."""
    config = client.get("/config").json()
    buttons = [c["id"] for c in config["components"] if c["type"] == "button" and c["props"].get("value") == label]
    button = buttons[which]
    (event,) = [d["id"] for d in config["dependencies"] if [button, "click"] in d["targets"]]
    session = uuid.uuid4().hex
    body = {"data": list(values), "fn_index": event, "session_hash": session}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    stream = client.get("/gradio_api/queue/data", params={"session_hash": session}).text
    return [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]


def outcome(messages: list[dict]) -> list:
    (done,) = [m for m in messages if m["msg"] == "process_completed"]
    assert done["success"], done
    return done["output"]["data"]


def refused(messages: list[dict]) -> str:
    (done,) = [m for m in messages if m["msg"] == "process_completed"]
    assert not done["success"]
    return done["output"]["error"]


PATIENT = ("", False, "", "", "")  # age, pregnant, medications, allergies, conditions
SETTINGS = (0, 6, 1, 1)  # temperature, longest answer, beams, length penalty


def test_there_is_a_tab_a_model(client, runs):  # noqa: F811
    labels = [c["props"]["label"] for c in client.get("/config").json()["components"] if c["type"] == "tabitem"]
    assert labels == list(TABS.values()) and set(EXAMPLES) == set(TABS)
    with make_client([runs["classification"]]) as other:
        config = other.get("/config").json()["components"]
        assert [c["props"]["label"] for c in config if c["type"] == "tabitem"] == ["Classify"]


def test_an_answer_is_streamed_and_is_that_of_the_predictor(client, runs):  # noqa: F811
    question = "What is hepatosis?"
    (expected,) = Predictor.from_pretrained(runs["qa"])([question])
    messages = press(client, "Ask", question, *PATIENT, *SETTINGS)
    assert len([m for m in messages if m["msg"] == "process_generating"]) >= 2
    answer, findings = outcome(messages)
    assert expected["prediction"].split()[0] in answer and "mean probability" in findings


def test_settings_that_contradict_each_other_are_told(client):
    assert "give one of them" in refused(press(client, "Ask", "What is cardiitis?", *PATIENT, 0.7, 6, 4, 1))
    answer, _ = outcome(press(client, "Ask", "What is cardiitis?", *PATIENT, 0, 6, 4, -1))
    assert 'class="text"' in answer


def test_an_age_of_0_is_an_age(client):
    fever = "My baby has a fever of 39."
    answer, _ = outcome(press(client, "Ask", fever, "0", *PATIENT[1:], *SETTINGS))
    assert 'role="alert"' in answer
    answer, _ = outcome(press(client, "Ask", fever, *PATIENT, *SETTINGS))
    assert 'role="alert"' not in answer


def test_passages_are_shown_below_the_answer(runs, corpus):  # noqa: F811
    with make_client([runs["qa"]], corpus_file=corpus) as client:
        _, below = outcome(press(client, "Ask", "What is cardiitis?", *PATIENT, *SETTINGS))
        assert "[1]" in below and "Toy leaflets" in below and "Cardiitis is a disease" in below
        _, below = outcome(press(client, "Ask", "zzyzx", *PATIENT, *SETTINGS))
        assert "No passage" in below


def test_an_emergency_is_a_banner(client):
    answer, findings = outcome(press(client, "Ask", ATTACK, *PATIENT, *SETTINGS))
    assert 'role="alert"' in answer and "112" in answer and "chest pain" in findings


@pytest.mark.parametrize(("which", "levels"), [(0, 1), (1, 2)])
def test_classes_come_with_a_figure(client, which, levels):
    verdict, plot = outcome(press(client, "Classify", "Patient 1: heart murmur.", which=which))
    assert any(ward in verdict for ward in ("allergy", "cardiology", "urology")) and "right" in verdict
    assert plot["type"] == "plotly" and len(json.loads(plot["plot"])["data"]) == levels


def test_a_summary_is_marked_against_its_text(client):
    text = "Doctor: What is wrong?\nPatient: I have fever <b>now</b>."
    summary, source = outcome(press(client, "Summarize", text))
    assert 'class="text"' in summary and "&lt;b&gt;" in source


@pytest.mark.parametrize("text", ["", "  \n", "x" * 60_000])
def test_an_empty_or_huge_text_is_refused(client, text):
    assert "text" in refused(press(client, "Classify", text)).lower()


def test_what_cannot_be_is_told_and_nothing_is_printed(client, capfd):
    assert "`age`" in refused(press(client, "Ask", "What is it?", "old", *PATIENT[1:], *SETTINGS))
    messages = press(client, "Ask", "What is it?", "500", *PATIENT[1:], *SETTINGS)
    assert "`age`" in refused(messages)
    assert "Traceback" not in capfd.readouterr().err


def test_events_of_the_page_are_no_api_and_take_no_files(client):
    assert client.get("/gradio_api/info").json()["named_endpoints"] == {}
    for path in ("run/predict", "call/run", "api/run", "upload", "component_server"):
        assert client.post(f"/gradio_api/{path}", json={"data": ["x"]}).status_code == 404
    for path in ("file=/etc/passwd", "proxy=https://example.org", "openapi.json", "runs", "deep_link"):
        assert client.get(f"/gradio_api/{path}").status_code == 404
