"""The REST API on real, tiny models: it answers as `Predictor` does, within its limits, and never with a 5xx."""

import contextlib
import gc
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from conftest import ROOT, qa_flags, run_here, toy_rows, write_rows
from fastapi.testclient import TestClient
from test_run_classification import class_flags
from test_run_hierarchical import tree_flags, tree_rows
from test_run_summarization import summary_flags

import app as served_app
import run_classification
import run_hierarchical
import run_qa_sft
import run_summarization
from utils.arguments import UserError, parse_recipe
from utils.citations import cite
from utils.inference import Predictor
from utils.retrieval import NO_SUPPORT, add_passages, read_corpus
from utils.safety.second_stage import load_second_stage
from utils.serving import decoding
from utils.serving.answering import check_after
from utils.serving.batching import make_metrics
from utils.serving.guard import DISCLAIMER, listen
from utils.serving.models import name_models
from utils.serving.schemas import MAX_CHARACTERS, MAX_TEXTS

ATTACK = "I have crushing chest pain right now."


FOLDERS: dict[str, str] = {}  # several test files take `runs` from here, and each has a fixture of its own then


@pytest.fixture(scope="session")
def runs(tiny_llama, tiny_bert, tiny_t5, data, tmp_path_factory) -> dict[str, str]:
    """Task -> folder of a short run."""
    if FOLDERS:
        return FOLDERS
    folder = tmp_path_factory.mktemp("served")
    tree = write_rows(folder / "tree.csv", tree_rows())
    few = {"max_eval_samples": 8, "max_predict_samples": 8}
    asked = {
        "qa": (run_qa_sft, qa_flags(tiny_llama, folder / "qa", train_file=data.qa, answer_column="answer", **few)),
        "classification": (run_classification, class_flags(tiny_bert, folder / "classes", train_file=data.notes)),
        "hierarchical": (run_hierarchical, tree_flags(tiny_bert, folder / "tree", train_file=tree)),
        "summarization": (run_summarization, summary_flags(tiny_t5, folder / "notes", train_file=data.dialogues)),
    }
    for name, (script, argv) in asked.items():
        done = run_here(script.main, script.ARGUMENTS, argv)
        assert done.code == 0, done.stderr
        FOLDERS[name] = str(done.folder)
    return FOLDERS


def make_client(folders: list[str], token: str | None = None, **limits) -> TestClient:
    """The whole application on real models; use it as a context, which ends its threads."""
    argv = ["--model", *folders, *(text for key, value in limits.items() for text in (f"--{key}", str(value)))]
    args, _ = parse_recipe((served_app.AppArguments,), argv)
    metrics = make_metrics()
    models = served_app.load_models(args, metrics)
    second_stage = load_second_stage(args.safety_model) if args.safety_model else None
    served = served_app.make_app(models, args, metrics, token, second_stage)
    client = TestClient(served, base_url="http://127.0.0.1")
    client.models = {served.task["task"]: served for served in reversed(models.values())}  # the first of each task
    return client


@pytest.fixture(scope="module")
def client(runs):
    with make_client(list(runs.values())) as client:
        yield client


def post(client, path: str, **body):
    return client.post(path, json=body)


# ----- Answers


def test_generate_answers_as_the_predictor_does(client, runs):
    questions = ["What is cardiitis?", "What is hepatosis and how does it begin?", "What is otalgia?"]
    expected = Predictor.from_pretrained(runs["qa"])(questions)
    for question, answer in zip(questions, expected, strict=True):
        body = post(client, "/generate", question=question).json()
        assert set(body) == {
            "response", "safety_report", "inference_time_ms", "finished", "cut", "confidence", "confidence_note",
            "passages", "supported", "wrong_citations",
        }  # fmt: skip
        assert body["passages"] is body["supported"] is body["wrong_citations"] is None  # there is no corpus
        assert body["response"] == answer["prediction"] and body["finished"] == answer["finished"] and not body["cut"]
        assert body["inference_time_ms"] > 0 and 0 < body["confidence"] < 1
        assert set(body["safety_report"]) == {"risk_level", "warnings", "stages", "unrecognised", "unread_language"}


def test_classify_answers_as_the_predictor_does(client, runs):
    texts = ["Patient 1: heart murmur.", "Patient 2: kidney stone and urine.", "pollen " * 60]
    for name in ("classification", "hierarchical"):
        expected = Predictor.from_pretrained(runs[name])(texts)
        body = post(client, "/classify", texts=texts, top_k=2, task=name).json()
        assert set(body) == {"results", "inference_time_ms"}
        for found, wanted in zip(body["results"], expected, strict=True):
            levels = wanted["probabilities"] if name == "hierarchical" else [wanted["probabilities"]]
            first = [dict(list(level.items())[:2]) for level in levels]
            rounded = pytest.approx(wanted["confidence"], abs=1e-5)
            assert found["confidence"] == rounded and found["prediction"] == wanted["prediction"]
            shown = found["probabilities"] if name == "hierarchical" else [found["probabilities"]]
            assert [list(level) for level in shown] == [list(level) for level in first]
            assert found["cut"] == wanted["cut"]
        assert body["results"][-1]["cut"] and not body["results"][0]["cut"]


def test_one_text_is_classified_by_the_flat_model_unless_asked_otherwise(client):
    (one,) = post(client, "/classify", text="Patient 1: heart murmur.").json()["results"]
    assert isinstance(one["prediction"], str) and len(one["probabilities"]) == 3 and "abstained" in one


def test_summarize_answers_as_the_predictor_does(client, runs):
    text = "Doctor: What brings you in?\nPatient: I have fever.\nDoctor: It is your liver."
    (expected,) = Predictor.from_pretrained(runs["summarization"])([text])
    body = post(client, "/summarize", text=text).json()
    assert body.pop("inference_time_ms") > 0
    assert body == {"summary": expected.pop("prediction"), **expected}


def test_requests_at_the_same_time_get_their_own_answers(client, runs):
    texts = [f"Patient {n}: {['heart', 'kidney stone', 'pollen'][n % 3]}" + " fever" * (n % 7) for n in range(60)]
    expected = Predictor.from_pretrained(runs["classification"])(texts)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: post(client, "/classify", text=text, top_k=3), texts))
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.status_code == 200
        found = answer.json()["results"][0]["probabilities"]
        assert found == pytest.approx(wanted["probabilities"], abs=1e-5)


def test_questions_with_different_settings_do_not_disturb_each_other(client, runs):
    question = "What is cardiitis?"
    asked = [{"max_length": n, "temperature": t} for n in (1, 4, None) for t in (0, 0.0, None)] * 3
    asked = [{key: value for key, value in settings.items() if value is not None} for settings in asked]
    alone = [post(client, "/generate", question=question, **settings).json()["response"] for settings in asked]
    with ThreadPoolExecutor(9) as pool:
        together = list(pool.map(lambda s: post(client, "/generate", question=question, **s).json(), asked))
    assert [answer["response"] for answer in together] == alone
    assert len(alone[0]) < len(alone[8]) and not together[0]["finished"]


def test_a_temperature_draws_and_zero_does_not(client):
    def answers(temperature: float) -> set[str]:
        body = {"question": "What is cardiitis?", "temperature": temperature, "max_length": 30}
        return {post(client, "/generate", **body).json()["response"] for _ in range(4)}

    assert answers(0) == answers(1e-300) and len(answers(0)) == 1 and len(answers(2)) > 1


def test_beams_find_a_likelier_answer_of_the_same_length(client):
    def answer(**settings) -> dict:
        return post(client, "/generate", question="What is cardiitis?", max_length=12, **settings).json()

    greedy, beams = answer(), answer(num_beams=8)
    assert not greedy["finished"] and not beams["finished"] and beams["confidence"] > greedy["confidence"]
    assert answer(num_beams=1) | {"inference_time_ms": 0} == greedy | {"inference_time_ms": 0}


def test_questions_with_beams_are_answered_beside_others(client):
    asked = [{"num_beams": 4}, {"num_beams": 4, "length_penalty": -1.0}, {}, {"temperature": 0.0, "num_beams": 4}] * 3
    alone = [post(client, "/generate", question="What is otalgia?", **settings).json() for settings in asked[:4]]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda s: post(client, "/generate", question="What is otalgia?", **s).json(), asked))
    assert [answer["response"] for answer in answers] == [answer["response"] for answer in alone] * 3
    assert alone[0]["response"] == alone[3]["response"]


BOUNDS = [
    {"temperature": 0}, {"temperature": 2}, {"max_length": 1}, {"max_length": 4096}, {"num_beams": 1},
    {"num_beams": 8}, {"num_beams": 2, "length_penalty": -2}, {"num_beams": 2, "length_penalty": 2.0},
    {"num_beams": 1, "temperature": 2},
]  # fmt: skip


@pytest.mark.parametrize("settings", BOUNDS, ids=str)
def test_the_bounds_of_the_settings_are_allowed(client, settings):
    assert post(client, "/generate", question="What is cardiitis?", **settings).status_code == 200


def test_a_question_that_the_model_does_not_take_whole_is_called_cut(client):
    body = post(client, "/generate", question="What is cardiitis and " * 200).json()
    assert body["cut"] and isinstance(body["response"], str)


def test_an_adapter_whose_base_model_has_moved_is_served(runs, tiny_llama, tmp_path):
    moved, run = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(tiny_llama, moved)
    shutil.copytree(runs["qa"], run)
    task = json.loads((run / "task.json").read_text())
    (run / "task.json").write_text(json.dumps(task | {"base_model": "nowhere/base"}))
    with pytest.raises(UserError, match="--base_model"):
        make_client([str(run)])
    with make_client([str(run)], base_model=moved) as client:
        body = post(client, "/generate", question="What is otalgia?").json()
    assert body["response"] == Predictor.from_pretrained(runs["qa"])(["What is otalgia?"])[0]["prediction"]


def test_an_application_that_has_ended_holds_no_model(runs, monkeypatch):
    loaded = []

    def load(folder: str, *args: Any, **kwargs: Any) -> Predictor:
        predictor = real(folder)
        loaded.append(weakref.ref(predictor))
        return predictor

    real = Predictor.from_pretrained
    monkeypatch.setattr(Predictor, "from_pretrained", load)
    with make_client([runs["classification"]]) as client:
        assert post(client, "/classify", text="x").status_code == 200 and loaded[0]() is not None
    gc.collect()
    assert loaded[0]() is None and post(client, "/classify", text="x").status_code == 429


def test_a_model_that_is_not_loaded_is_named(runs):
    with make_client([runs["classification"]]) as client:
        for path, body in (("/generate", {"question": "What?"}), ("/summarize", {"text": "Doctor: hello."})):
            answer = post(client, path, **body)
            assert answer.status_code == 404 and "no model of task" in answer.json()["detail"]
        assert post(client, "/classify", text="x", task="hierarchical").status_code == 404
        assert post(client, "/classify", text="x").status_code == 200


# ----- Passages


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> str:
    rows = [{"id": r["id"], "source": "Toy leaflets", "text": r["answer"]} for r in toy_rows()]
    return str(write_rows(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows))


def test_answers_come_with_the_passages_that_the_model_was_shown(runs, corpus):
    questions = ["What is cardiitis?", "What is hepatosis and how does it begin?", "zzyzx"] * 4
    predictor = Predictor.from_pretrained(runs["qa"])
    retriever = read_corpus(corpus, predictor.task)
    rows = [{"question": question} for question in questions]
    asked, passages = add_passages(rows, retriever, 3, predictor.tokenizer, predictor.task)
    plain = [answer["prediction"] for answer in predictor.predict(asked)]
    with make_client([runs["qa"]], corpus_file=corpus) as client, ThreadPoolExecutor(6) as pool:
        bodies = list(pool.map(lambda question: post(client, "/generate", question=question).json(), questions))
        harmful = post(client, "/generate", question=ATTACK).json()
    for body, text, own in zip(bodies, plain, passages, strict=True):
        expected = cite(text, own)
        assert body["response"] == expected.pop("prediction")
        assert {key: body[key] for key in expected} == expected
    assert bodies[0]["passages"][0]["source"] == "Toy leaflets" and bodies[2]["passages"] == []
    assert NO_SUPPORT in bodies[2]["response"] and bodies[2]["supported"] == 0.0
    assert harmful["passages"] is None and "112" in harmful["response"]


def test_the_safety_checks_read_an_answer_without_its_citations():
    answer = cite("You can take warfarin together with ibuprofen. Drink water.", [])["prediction"]
    plain = answer.replace(f" [{NO_SUPPORT}]", "")
    found, expected = check_after(answer, "", None), check_after(plain, "", None)
    assert [f["rule"] for f in found] == [f["rule"] for f in expected] != []
    for one, other in zip(found, expected, strict=True):
        words = [text[slice(*f["span"])] for text, f in ((answer, one), (plain, other))]
        assert words[0].replace(f" [{NO_SUPPORT}]", "") == words[1]


# ----- Several models of one task


@pytest.fixture(scope="module")
def two(runs, tmp_path_factory):
    """A client of two classifiers with the same weights; the second one's classes have other names."""
    folder = shutil.copytree(runs["classification"], tmp_path_factory.mktemp("lab") / "second")
    task = json.loads((folder / "task.json").read_text())
    task["labels"] = [f"{label}, again" for label in task["labels"]]
    (folder / "task.json").write_text(json.dumps(task))
    with make_client([runs["classification"], runs["hierarchical"], str(folder)]) as client:
        yield client


def test_a_request_names_one_of_several_models_and_without_gets_the_first(two, runs):
    first, tree, second = two.get("/models").json()
    assert first == {"name": Path(runs["classification"]).name, "task": "classification"}
    assert tree["task"] == "hierarchical" and second == {"name": "second", "task": "classification"}

    def predict(**body):
        return post(two, "/classify", text="Patient 1: heart murmur.", **body).json()["results"][0]["prediction"]

    assert predict() == predict(model=first["name"]) == predict(task="classification")
    assert predict(model="second") == f"{predict()}, again"
    assert isinstance(predict(model=tree["name"]), list)
    for wrong in ({"model": "third"}, {"model": tree["name"], "task": "classification"}):
        answer = post(two, "/classify", text="x", **wrong)
        assert answer.status_code == 404 and "second" in answer.json()["detail"] and "third" not in answer.text
    assert post(two, "/summarize", text="x", model="second").status_code == 404
    assert 'app_queue_length{task="classification second"} 0.0' in two.get("/metrics").text


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["outputs/a"], ["a"]),
        (["outputs/a/", "lab/b"], ["a", "b"]),
        (["alice/qa", "bob/qa", "c"], ["alice/qa", "bob/qa", "c"]),
        (["x/lab/qa", "y/lab/qa", "z/other/qa"], ["x/lab/qa", "y/lab/qa", "other/qa"]),
        (["qa", "lab/qa"], ["qa", "lab/qa"]),
    ],
)
def test_the_name_of_a_model_is_as_short_as_tells_it_from_others(given, names):
    assert name_models(given) == names


# ----- Safety


def test_an_emergency_is_met_with_where_to_call_and_no_model_is_asked(client):
    before = rows_asked(client)
    body = post(client, "/generate", question=ATTACK).json()
    assert "112" in body["response"] and body["safety_report"]["risk_level"] == 4 and body["confidence"] is None
    (warning,) = body["safety_report"]["warnings"]
    start, end = warning.pop("span")
    assert "chest" in ATTACK[start:end]
    assert set(warning) == {"rule", "kind", "severity", "message", "source", "where"}
    assert rows_asked(client) == before > 0


def rows_asked(client) -> float:
    lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith('app_batch_rows_sum{task="qa"}')]
    return float(line.split()[-1])


def test_without_the_checks_the_report_is_null_and_not_a_clean_one(client):
    body = post(client, "/generate", question=ATTACK, use_safety=False).json()
    assert body["safety_report"] is None and "112" not in body["response"]


def test_a_second_stage_alarms_where_the_rules_are_silent_and_the_report_says_who_checked(runs, danger_reader):
    with make_client([runs["qa"]]) as client:
        body = post(client, "/generate", question="What is ataxia?").json()
    silent = {"risk_level": 0, "warnings": [], "stages": ["rules"], "unread_language": None, "unrecognised": []}
    assert body["safety_report"] == silent
    with make_client([runs["qa"]], safety_model=danger_reader) as client:
        body = post(client, "/generate", question="What is ataxia?").json()
        unchecked = post(client, "/generate", question="What is ataxia?", use_safety=False).json()
    (warning,) = body["safety_report"]["warnings"]
    assert warning["rule"] == "second_stage" and body["safety_report"]["stages"] == ["rules", "classifier"]
    assert body["confidence"] is None and unchecked["safety_report"] is None and unchecked["confidence"] is not None


def test_a_second_stage_without_questions_is_refused(runs, capsys):
    with pytest.raises(SystemExit) as stop:
        served_app.main(["--model", runs["classification"], "--safety_model", runs["classification"], "--port", "0"])
    assert stop.value.code == 2 and "`safety_model`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "patient",
    [
        {"age": 70, "medications": ["warfarin"], "pregnancy": False, "kidney": 45.0, "conditions": "gout, asthma"},
        {"kidney": "dialysis", "weight": 70, "pregnancy": "no", "allergies": ["penicillin"]},
        {},
    ],
)
def test_a_patient_takes_part(client, patient):
    assert post(client, "/generate", question="What is cardiitis?", patient_context=patient).status_code == 200


def test_what_no_check_knows_of_a_patient_is_in_the_report(client):
    patient = {"medications": ["warfarin", "zorblax"], "conditions": "frobnitis"}
    report = post(client, "/generate", question="What is it?", patient_context=patient).json()["safety_report"]
    unknown = [("medications", "zorblax"), ("conditions", "frobnitis")]
    assert report["unrecognised"] == [{"key": key, "value": value} for key, value in unknown]


def test_an_infants_age_from_the_context_makes_a_fever_an_emergency(client):
    def risk(age: float) -> int:
        answer = post(client, "/generate", question="My baby has a fever of 39.", patient_context={"age": age})
        return answer.json()["safety_report"]["risk_level"]

    assert risk(0.1) == 4 > risk(2)


# ----- Bad input

SECRET = "Jane Doe 1970"
BAD = [
    ("/generate", {}),
    ("/generate", {"question": ""}),
    ("/generate", {"question": " \n\t "}),
    ("/generate", {"question": 7}),
    ("/generate", {"question": [SECRET]}),
    ("/generate", {"question": None}),
    ("/generate", {"question": "x" * (MAX_CHARACTERS + 1)}),
    ("/generate", {"question": "What?", "patient": SECRET}),
    ("/generate", {"question": "What?", "temperature": -0.1}),
    ("/generate", {"question": "What?", "temperature": 2.1}),
    ("/generate", {"question": "What?", "temperature": "0.5"}),
    ("/generate", {"question": "What?", "max_length": 0}),
    ("/generate", {"question": "What?", "max_length": 4097}),
    ("/generate", {"question": "What?", "max_length": 1.5}),
    ("/generate", {"question": "What?", "num_beams": 0}),
    ("/generate", {"question": "What?", "num_beams": 9}),
    ("/generate", {"question": "What?", "num_beams": 2.5}),
    ("/generate", {"question": "What?", "num_beams": 2, "temperature": 0.5}),
    ("/generate", {"question": "What?", "num_beams": 2, "length_penalty": -2.1}),
    ("/generate", {"question": "What?", "num_beams": 2, "length_penalty": 2.1}),
    ("/generate", {"question": "What?", "num_beams": 1, "length_penalty": 1.0}),
    ("/generate", {"question": "What?", "length_penalty": 1.0}),
    ("/generate", {"question": "What?", "use_safety": "yes"}),
    ("/generate", {"question": "What?", "patient_context": SECRET}),
    ("/generate", {"question": "What?", "patient_context": {"age": -1}}),
    ("/generate", {"question": "What?", "patient_context": {"age": 131}}),
    ("/generate", {"question": "What?", "patient_context": {"name": SECRET}}),
    ("/generate", {"question": "What?", "patient_context": {"medications": [1]}}),
    ("/generate", {"question": "What?", "patient_context": {"kidney": -1}}),
    ("/classify", {}),
    ("/classify", {"text": "x", "texts": ["y"]}),
    ("/classify", {"texts": []}),
    ("/classify", {"texts": ["x", " "]}),
    ("/classify", {"texts": ["x"] * (MAX_TEXTS + 1)}),
    ("/classify", {"text": "x", "top_k": 0}),
    ("/classify", {"text": "x", "task": "qa"}),
    ("/summarize", {"text": {"a": SECRET}}),
    ("/summarize", {"text": ""}),
]


@pytest.mark.parametrize(("path", "body"), BAD, ids=str)
def test_bad_input_is_422_and_not_repeated(client, path, body):
    answer = client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert SECRET not in answer.text and len(answer.text) < 2000


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"\xff\xfe\x00", b'{"question": "\\ud800"}',
     b'{"question": "What?", "temperature": NaN}',
     b'{"question": "What?", "temperature": Infinity}', b'{"question": "What?", "max_length": 1e400}',
     b"[" * 100_000, b'{"question": ' + b"[" * 10_000],
)  # fmt: skip
def test_what_is_no_request_is_refused(client, content):
    answer = client.post("/generate", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text


def test_a_form_of_another_site_is_no_request(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = client.post("/classify", content=b'{"text": "x"}', headers={"content-type": kind})
        assert answer.status_code in (415, 422)


def test_strange_texts_are_answered_and_empty_ones_refused(client):
    for text in ("\x00\x01", "\u202e\u2028"):  # nothing is left of them
        assert post(client, "/classify", text=text).status_code == 422
        assert post(client, "/generate", question=text).status_code == 422
    for text in (
        "\U0001f9e0" * 50,
        "a" * 5000,
        "{text} {0} {{",
        "<|im_end|><s>[SEP]",
        "x" * 1,
    ):
        assert post(client, "/classify", text=text).status_code == 200
        assert post(client, "/generate", question=text).status_code == 200


def test_a_body_of_a_megabyte_is_refused(client):
    assert client.post("/classify", content=b"x" * 1_000_001).status_code == 413


# ----- Limits


def test_a_full_queue_is_429_and_no_request_is_lost(runs):
    with make_client([runs["qa"]], queue_size=1, batch_size=1) as client:
        body = {"question": "What is cardiitis?", "max_length": 100}
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: post(client, "/generate", **body), range(24)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 429}
        assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)
        assert len({a.json()["response"] for a in answers if a.status_code == 200}) == 1


def test_what_takes_too_long_is_504_and_the_next_request_is_answered(runs):
    with make_client([runs["qa"]], time_limit=0.05) as client:
        body = {"question": "What is cardiitis?", "max_length": 250}
        with ThreadPoolExecutor(6) as pool:
            codes = [a.status_code for a in pool.map(lambda _: post(client, "/generate", **body), range(6))]
        assert 504 in codes and set(codes) <= {200, 504}
        client.models["qa"].batcher.submit([]).result(10)  # nothing is left to do
        assert client.get("/health").status_code == 200


def test_the_token_guards_everything_but_health(runs):
    with make_client([runs["classification"]], token="right") as client:
        for path in ("/", "/docs", "/openapi.json", "/metrics", "/models", "/page/classify", "/static/page.js"):
            assert client.get(path).status_code == 401
        assert post(client, "/classify", text="x").status_code == 401
        assert client.get("/health").status_code == 200
        client.headers["Authorization"] = "Bearer right"
        assert post(client, "/classify", text="x").status_code == 200
        assert DISCLAIMER in client.get("/").text


def test_no_other_site_may_read_an_answer_or_reach_the_app_by_another_name(client):
    for path in ("/health", "/models", "/"):
        answer = client.get(path, headers={"Origin": "http://localhost:3000"})
        assert answer.status_code == 200 and not any(name.startswith("access-control") for name in answer.headers)
    asked = {"Origin": "http://x.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/classify", headers=asked).status_code == 400
    for host in ("rebound.example", "127.0.0.1.rebound.example", "rebound.example:7860", "[::2]:80", ""):
        answer = client.get("/health", headers={"Host": host})
        assert answer.status_code == 400 and "--allowed_hosts" in answer.json()["detail"]
    assert all(client.get("/health", headers={"Host": host}).is_success for host in ("LOCALHOST:1", "[::1]:7860"))


def test_hosts_and_origins_that_are_named_may_come(runs):
    named = {"allowed_hosts": "ward.example", "cors_origins": "https://portal.example"}
    with make_client([runs["classification"]], token="right", **named) as client:
        client.headers["Host"] = "ward.example"
        asked = {"Origin": "https://portal.example", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "Authorization, Content-Type"}  # fmt: skip
        allowed = client.options("/classify", headers=asked)  # a browser asks this without the token
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://portal.example"
        origin = {"Origin": "https://portal.example"}
        for token, status in (("wrong", 401), ("right", 200)):
            headers = origin | {"Authorization": f"Bearer {token}"}
            answer = client.post("/classify", json={"text": "x"}, headers=headers)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "https://portal.example"
        assert client.options("/classify", headers=asked | {"Origin": "https://other.example"}).status_code == 400
        assert client.get("/health", headers={"Host": "other.example"}).status_code == 400
        for host in ("127.0.0.1:7860", "10.1.2.3:7860", "[fd00::2]:7860"):  # of Docker's and Kubernetes' probes
            assert client.get("/health", headers={"Host": host}).status_code == 200
            refused = client.get("/models", headers={"Host": host})
            assert refused.status_code == 400 and "APP_TOKEN" not in refused.json()["detail"]


NGINX = """
daemon off; error_log stderr; pid {folder}/pid; events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port};
        location /med/ {{ proxy_pass {url}{path}; proxy_set_header Host $http_host; proxy_buffering off; }}
    }}
}}
"""


@pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx")
@pytest.mark.parametrize("path", ["/", ""], ids=["the prefix removed", "the prefix kept"])
def test_behind_a_proxy_under_a_path_page_and_documentation_find_their_files(runs, tmp_path, path):
    with serving([runs["classification"]], root_path="/med", allowed_hosts="*") as url:
        port = int(listen("127.0.0.1", 0).getsockname()[1]) + 1
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, url=url, path=path))
        proxy = subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])
        base = f"http://127.0.0.1:{port}"
        try:
            page = _get(f"{base}/med/", proxy).text
            assert '<base href="/med/">' in page
            for file in re.findall(r"(?:src|href)=\"(static/[^\"]+)", page):
                assert httpx.get(f"{base}/med/{file}").status_code == 200, file
            docs = httpx.get(f"{base}/med/docs").text
            for file in re.findall(r"(?:src|href|url)[=:] ?[\"'](/[^\"']+)", docs):
                assert file.startswith("/med/") and httpx.get(f"{base}{file}").status_code == 200, file
            assert httpx.get(f"{base}/med/openapi.json").json()["servers"] == [{"url": "/med"}]
            answer = httpx.post(f"{base}/med/classify", json={"text": "Patient 1: heart murmur."}, timeout=60)
            assert answer.json()["results"]
            assert httpx.get(f"{base}/med/health").json()["model_loaded"]
        finally:
            proxy.terminate()
            proxy.wait(10)


# ----- Clients that leave


@pytest.mark.parametrize("path", ["/generate", "/page/generate"])
def test_the_answer_to_a_client_that_has_left_ends_at_its_next_token(runs, monkeypatch, path):
    body = json.dumps({"question": "What is cardiitis?", "max_length": 4000}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    ended: list[int] = []
    end, watch = decoding._Watch.end, decoding._Watch.__call__
    monkeypatch.setattr(decoding._Watch, "end", lambda *args: (ended.append(len(args[2])), end(*args)))
    # 0.1 s a token, of which none ends an answer: a large model
    monkeypatch.setattr(
        decoding._Watch, "__call__", lambda *args, **kwargs: (time.sleep(0.1), watch(*args, **kwargs))[1]
    )
    monkeypatch.setattr(served_app, "answer_here", partial(_endless, served_app.answer_here))
    with serving([runs["qa"]]) as url:
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port)) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            time.sleep(1)
        start = time.monotonic()
        answer = httpx.post(f"{url}/generate", json={"question": "What is otalgia?", "max_length": 2}, timeout=60)
        assert answer.status_code == 200 and time.monotonic() - start < 20
        assert path != "/generate" or 'route="/generate",status="499"' in httpx.get(f"{url}/metrics").text
    assert ended[-2] < 60 and ended[-1] == 2


def _endless(answer_here, predictor, *args) -> None:
    predictor.task["stop"], predictor.tokenizer.eos_token = predictor.tokenizer.unk_token or "<|im_start|>", None
    answer_here(predictor, *args)


# ----- What is around the answers


def test_health_says_what_is_loaded(client):
    for path in ("/health", "/live", "/ready"):
        assert client.get(path).json() == {"status": "ok", "model_loaded": True, "gpu_available": False}


def test_a_server_that_is_down_takes_no_pod_out_of_service_and_emergencies_get_their_answer(runs):
    more = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1"}
    with make_client([runs["qa"]], token="secret", **more) as client:
        assert client.get("/live").status_code == client.get("/ready").status_code == 200
        assert client.get("/health").status_code == 503
        client.headers["Authorization"] = "Bearer secret"
        assert post(client, "/generate", question="What is cardiitis?").status_code == 503
        found = post(client, "/generate", question="I took 40 paracetamol tablets an hour ago, what now?").json()
        assert "112" in found["response"] and found["safety_report"]["risk_level"] == 4


def test_a_device_that_has_failed_needs_a_restart(runs, monkeypatch):
    with make_client([runs["classification"]]) as client:
        monkeypatch.setattr(client.models["classification"].batcher, "has_failed", True)
        for path in ("/live", "/ready", "/health"):
            answer = client.get(path)
            assert answer.status_code == 503 and "device" in answer.json()["status"]


def test_the_api_says_that_it_needs_a_token_where_it_does(runs):
    for token in (None, "secret"):
        with make_client([runs["classification"]], token=token) as client:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            api = client.get("/openapi.json", headers=headers).json()
        assert ("HTTPBearer" in api.get("components", {}).get("securitySchemes", {})) == bool(token)
        for path, calls in api["paths"].items():
            for call in calls.values():
                assert bool(call.get("security")) == (bool(token) and path not in ("/health", "/live", "/ready"))


@pytest.mark.parametrize(("given", "expected"), [(None, "'none'"), ("https://portal.example.org",) * 2])
def test_other_pages_frame_this_one_only_if_they_are_named(runs, given, expected):
    with make_client([runs["classification"]], **({"frame_ancestors": given} if given else {})) as client:
        assert f"frame-ancestors {expected}" in client.get("/").headers["content-security-policy"]


def test_the_description_and_the_page_need_no_other_site(client):
    docs = client.get("/docs").text
    assert "http" not in docs.replace("http://www.w3.org", "")
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    api = client.get("/openapi.json").json()
    assert api["info"]["description"] == DISCLAIMER
    assert {"/generate", "/classify", "/summarize", "/health"} <= set(api["paths"])
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", client.get("/").text)


def test_metrics_count_requests_by_status(client):
    post(client, "/classify", text="x")
    post(client, "/classify")
    text = client.get("/metrics").text
    for status in (200, 422):
        assert f'app_requests_total{{route="/classify",status="{status}"}}' in text
    assert 'app_queue_length{task="qa"} 0.0' in text and "app_request_seconds_bucket" in text


# ----- The command


def refused(capsys, *argv: str, **environment: str) -> str:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        for key, value in environment.items():
            patch.setenv(key, value)
        served_app.main(list(argv))
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2 and len(errors) == 1
    return errors[0]


def test_mistakes_are_one_line(capsys, runs, tiny_llama, tmp_path):
    qa = runs["qa"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"`port` {port}" in refused(capsys, "--model", qa, "--port", port)
    assert "`model` is not given" in refused(capsys)
    assert "`model` is not given" in refused(capsys, APP_MODEL=" ")
    assert "no task.json" in refused(capsys, "--model", str(tiny_llama), "--port", "0")
    assert "no task.json" in refused(capsys, "--model", str(tmp_path / "nothing"), "--port", "0")
    assert "given twice" in refused(capsys, "--model", qa, "--model", f"{qa}/", "--port", "0")
    assert "`port` is 70000" in refused(capsys, "--model", qa, "--port", "70000")
    assert "`backend`" in refused(capsys, "--model", qa, "--backend", "vllm")
    assert "belong together" in refused(capsys, "--model", qa, "--backend", "openai")
    assert "belong together" in refused(capsys, "--model", qa, "--base_url", "http://127.0.0.1:1/v1")
    assert "`base_url`" in refused(
        capsys, "--model", qa, "--backend", "openai", "--base_url", "no address", "--port", "0"
    )
    assert "`served_model`" in refused(capsys, "--model", qa, "--served_model", "phi", "--port", "0")
    assert "`revision`" in refused(capsys, "--model", qa, "--revision", "v1", "--port", "0")
    twin = shutil.copytree(qa, tmp_path / Path(qa).name)
    there = ("--backend", "openai", "--base_url", "http://127.0.0.1:1/v1", "--port", "0")
    assert "by one name" in refused(capsys, "--model", qa, "--model", str(twin), *there)
    two = ("--model", qa, "--model", str(twin.rename(tmp_path / "twin")))
    assert "`served_model`" in refused(capsys, *two, "--served_model", "x", *there)
    assert "does not exist" in refused(capsys, "--model", qa, "--corpus_file", "no_such.csv", "--port", "0")
    for key in ("corpus_file", "examples_file"):
        found = refused(capsys, "--model", runs["classification"], f"--{key}", "no_such.csv", "--port", "0")
        assert f"`{key}` needs a `model` of task qa" in found
    assert "`APP_TOKEN` is empty" in refused(capsys, "--model", qa, APP_TOKEN=" ")
    for key, value in (("batch_size", "0"), ("queue_size", "0"), ("batch_wait_ms", "-1"), ("time_limit", "0")):
        assert f"`{key}` is" in refused(capsys, "--model", qa, f"--{key}", value)


def test_a_run_that_needs_more_than_a_text_is_refused(capsys, runs, tmp_path):
    folder = shutil.copytree(runs["classification"], tmp_path / "run")
    task = json.loads((folder / "task.json").read_text()) | {"text_template": "{age} {text}"}
    (folder / "task.json").write_text(json.dumps(task))
    assert "{age}" in refused(capsys, "--model", str(folder), "--port", "0")


def test_models_may_be_given_one_by_one_or_together():
    expected = ["--port", "1", "--model", "a", "b", "c"]
    assert served_app.join_models(["--model", "a", "--port", "1", "--model=b", "--model", "c"]) == expected
    assert served_app.join_models(["--help"]) == ["--help"]


def test_the_server_ends_after_it_has_answered(runs):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "app.py", "--model", runs["qa"], "--port", str(port)]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    url = f"http://127.0.0.1:{port}"
    try:
        assert _get(f"{url}/health", process).json()["status"] == "ok"
        with httpx.Client() as browser:  # which keeps its connection
            assert browser.get(url).status_code == 200
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            body = json.dumps({"question": "What is cardiitis?", "max_length": 250})
            asked.request("POST", "/generate", body, {"Content-Type": "application/json"})
            while 'app_batch_rows_count{task="qa"} 1.0' not in httpx.get(f"{url}/metrics").text:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            answer = asked.getresponse()
            assert answer.status == 200 and json.load(answer)["response"]
            assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
    log = process.stderr.read()
    assert "cardiitis" not in log and "Traceback" not in log and "POST /generate 200" in log


@contextlib.contextmanager
def serving(folders: list[str], token: str | None = None, **limits) -> Iterator[str]:
    """The address of a server with these models, in a thread."""
    client, listener = make_client(folders, token, **limits), listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(client.app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def _get(url: str, process: subprocess.Popen) -> httpx.Response:
    until = time.time() + 120
    while True:
        try:
            return httpx.get(url, timeout=120)
        except httpx.ConnectError:
            assert process.poll() is None, process.stderr.read()
            assert time.time() < until
            time.sleep(0.2)
