"""What every request passes: the token, the limit of the body, headers, and a log without texts."""

import asyncio
import base64
import logging

import pytest
from fastapi import FastAPI, Request
from prometheus_client import generate_latest
from starlette.testclient import TestClient

from utils.arguments import UserError
from utils.serving.batching import make_metrics
from utils.serving.guard import DISCLAIMER, Guard, is_loopback, listen

TOKEN = "s3cret-tök€n"


def make_client(token: str | None = None, max_bytes: int = 1000) -> TestClient:
    app = FastAPI()
    metrics = make_metrics()

    @app.post("/echo")
    async def echo(request: Request) -> dict:
        return {"bytes": len(await request.body())}

    @app.get("/health")
    async def health() -> dict:
        return {}

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the patient is called Jane Doe")

    app.add_middleware(Guard, metrics=metrics, routes=("/echo",), token=token, max_bytes=max_bytes, seconds=60)
    client = TestClient(app, raise_server_exceptions=True)
    client.registry = metrics.registry
    return client


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_the_token_opens_as_a_bearer_and_as_a_browsers_password(given):
    answer = make_client(TOKEN).post("/echo", content=b"abc", headers={"Authorization": given.encode()})
    assert answer.status_code == 200 and answer.json() == {"bytes": 3}


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Bearer wrong", f"Token {TOKEN}", TOKEN, f"Bearer {TOKEN}x", basic("wrong"), "Basic !!"],
)
def test_without_the_token_only_health_answers(given):
    client = make_client(TOKEN)
    headers = {"Authorization": given.encode()} if given else {}
    for method, path in (("POST", "/echo"), ("GET", "/broken"), ("GET", "/nothing"), ("GET", "/docs")):
        answer = client.request(method, path, headers=headers)
        kinds = [challenge.split(" ")[0] for challenge in answer.headers.get_list("www-authenticate")]
        assert answer.status_code == 401 and kinds == ["Bearer", "Basic"]
    assert client.get("/health", headers=headers).status_code == 200


def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not():
    client = make_client(max_bytes=1000)
    assert client.post("/echo", content=b"x" * 1000).json() == {"bytes": 1000}
    assert client.post("/echo", content=b"x" * 1001).status_code == 413
    chunks = (b"x" * 100 for _ in range(11))
    assert client.post("/echo", content=chunks).status_code == 413
    lying = client.post("/echo", content=(b"x" * 100 for _ in range(11)), headers={"Content-Length": "5"})
    assert lying.status_code == 413


def log_of(caplog) -> str:
    """What the application logged; the test's own client logs too."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name == "app")


def test_a_defect_is_one_line_in_the_log_without_what_was_sent(caplog):
    with caplog.at_level(logging.INFO):
        answer = make_client().get("/broken?question=Jane+Doe")
    assert answer.status_code == 500 and answer.json() == {"detail": "internal error"}
    log = log_of(caplog)
    assert "RuntimeError at" in log and "test_guard.py" in log
    assert "Jane" not in log and "Traceback" not in log and not any(r.exc_info for r in caplog.records)


def test_a_request_is_logged_by_its_route_alone(caplog):
    with caplog.at_level(logging.INFO):
        make_client().post("/echo?question=Jane+Doe", content=b"Jane Doe")
    assert "POST /echo 200" in log_of(caplog) and "Jane" not in log_of(caplog)


def test_every_answer_says_that_this_is_no_medical_device():
    client = make_client(TOKEN)
    for answer in (client.get("/health"), client.get("/nothing"), client.post("/echo")):
        assert answer.headers["x-notice"] == DISCLAIMER and answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")


def test_requests_are_counted_by_route_and_status_and_unknown_paths_together():
    client = make_client()
    client.post("/echo", content=b"x")
    for path in ("/a", "/b", "/c"):
        client.get(path)
    text = generate_latest(client.registry).decode()
    assert 'app_requests_total{route="/echo",status="200"} 1.0' in text
    assert 'app_requests_total{route="page",status="404"} 3.0' in text
    assert 'app_request_seconds_count{route="page"} 3.0' in text


def test_a_web_socket_is_closed():
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    guard = Guard(None, make_metrics(), (), None, 10, 60)
    asyncio.run(guard({"type": "websocket", "path": "/", "headers": []}, None, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


# ----- The socket


def test_a_port_in_use_is_one_line():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"`port` {port}") as error:
            listen("127.0.0.1", port)
    assert "\n" not in str(error.value) and "in use" in str(error.value)
    listen("127.0.0.1", port).close()  # free again


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "x" * 300])
def test_an_address_of_another_machine_is_refused(host):
    with pytest.raises(UserError, match="`host`"):
        listen(host, 0)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False), ("::", False)]
    + [("10.0.0.1", False), ("example.org", False)],
)
def test_only_this_machine_is_loopback(host, local):
    assert is_loopback(host) is local
