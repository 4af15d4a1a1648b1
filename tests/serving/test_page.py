"""The routes of the page on real models: the answers of the API, each with the HTML that shows it."""

import json
import re

import pytest
from fastapi.testclient import TestClient
from test_app import ATTACK, corpus, make_client, runs  # noqa: F401  fixtures

from utils.serving.page import EXAMPLES, page_html


@pytest.fixture(scope="module")
def client(runs):  # noqa: F811
    with make_client(list(runs.values())) as client:
        yield client


def show(client: TestClient, path: str, **body) -> dict:
    answer = client.post(f"/page/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(client: TestClient, question: str, **body) -> list[dict]:
    """The lines that answer a question."""
    answer = client.post("/page/generate", json={"question": question, **body})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def config_of(html: str) -> dict:
    return json.loads(re.search(r'id="config">(.*?)</script>', html)[1])


def test_an_answer_is_streamed_and_is_that_of_the_api(client):
    question = "What is hepatosis?"
    *texts, last = ask(client, question)
    assert len(texts) >= 2 and all(set(line) == {"text"} for line in texts)
    expected = client.post("/generate", json={"question": question}).json()
    assert last["answer"] | {"inference_time_ms": 0} == expected | {"inference_time_ms": 0}
    assert "mean probability" in last["html"] and "does not mean" in last["html"]


def test_an_emergency_is_a_banner_and_no_model_writes(client):
    (last,) = ask(client, ATTACK)
    assert 'role="alert"' in last["html"] and "112" in last["html"] and "chest pain" in last["html"]
    (last,) = ask(client, "My baby has a fever of 39.", patient_context={"age": 0})  # an age of 0 is an age
    assert 'role="alert"' in last["html"]


def test_a_question_that_cannot_be_asked_has_the_status_of_the_api(runs, client):  # noqa: F811
    for body in ({}, {"question": " "}, {"question": "x", "num_beams": 4, "temperature": 0.5}):
        assert client.post("/page/generate", json=body).status_code == 422
    assert client.post("/page/generate", json={"question": "x", "model": "none"}).status_code == 404
    with make_client([runs["qa"]], time_limit=1e-5) as hurried:
        body = {"question": "What is cardiitis?", "max_length": 250}
        answer = hurried.post("/page/generate", json=body)
        *_, last = answer.text.splitlines()  # too late before the first word, or after it
        assert answer.status_code == 504 or set(json.loads(last)) == {"detail"}


def test_passages_are_shown_below_the_answer(runs, corpus):  # noqa: F811
    with make_client([runs["qa"]], corpus_file=corpus) as client:
        html = ask(client, "What is cardiitis?")[-1]["html"]
        assert "[1]" in html and "Toy leaflets" in html and "Cardiitis is a disease" in html
        assert "No passage" in ask(client, "zzyzx")[-1]["html"]


@pytest.mark.parametrize(("task", "levels"), [("classification", 1), ("hierarchical", 2)])
def test_classes_come_with_bars(client, task, levels):
    body = {"text": "Patient 1: heart murmur.", "task": task}
    shown = show(client, "classify", **body)
    expected = client.post("/classify", json=body).json()
    assert shown["answer"]["results"] == expected["results"]
    assert shown["html"].count('<ol class="bars">') == levels and "right" in shown["html"]


def test_a_summary_is_marked_against_its_text(client):
    shown = show(client, "summarize", text="Doctor: What is wrong?\nPatient: I have fever <b>now</b>.")
    assert 'class="text"' in shown["html"] and "&lt;b&gt;" in shown["html"] and "<b>now" not in shown["html"]
    assert shown["answer"]["summary"]


def test_the_page_knows_its_models_and_is_as_safe_as_its_routes(client, runs):  # noqa: F811
    page = client.get("/")
    config = config_of(page.text)
    assert [model["task"] for model in config["models"]] == list(runs) and set(EXAMPLES) == set(runs)
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "http" not in policy
    assert "unsafe-eval" not in client.get("/docs").headers["content-security-policy"]
    paths = client.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path.startswith("/page")]  # of the page alone
    for path in ("static/../page.py", "static/%2e%2e/page.py", "static/"):
        assert client.get(path).status_code == 404


def test_a_name_cannot_end_the_script_or_the_page():
    name = '</script><script>alert("x")</script>'
    task = {"task": "classification", "raw_columns": {"parts": [name], "input": "text"}}
    html = page_html({name: task}, "/a&b", True)
    (model,) = config_of(html)["models"]
    assert model == {"name": name, "task": "classification", "parts": [name], "column": "text"}
    assert "alert(" not in re.sub(r'id="config">.*?</script>', "", html) and 'href="/a&amp;b/"' in html
    assert "{{" not in html
