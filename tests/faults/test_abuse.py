"""The app on a real socket, and clients that are slow, silent, huge, strange, or gone: nobody else waits for them."""

import contextlib
import json
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import qa_flags, run_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import run_qa_sft
from app import MAX_BYTES
from tests.faults.served import head, read_answer, request, start_server
from utils.serving.connections import MAX_CONNECTIONS
from utils.serving.schemas import MAX_CHARACTERS

SECONDS = 5.0  # `time_limit` of the server
ASK = {"text": "a murmur of the heart"}


@pytest.fixture(scope="module")
def server(danger_reader, tiny_llama, data, tmp_path_factory):
    argv = qa_flags(
        tiny_llama, tmp_path_factory.mktemp("abuse") / "qa", train_file=data.qa, answer_column="answer", max_steps=1,
        evaluate_test=False, max_eval_samples=4,
    )  # fmt: skip
    done = run_here(run_qa_sft.main, run_qa_sft.ARGUMENTS, argv)
    assert done.code == 0, done.stderr
    with start_server([danger_reader, str(done.folder)], SECONDS) as server:
        yield server


def seconds_to_answer(server) -> float:
    """What another user waits for an answer."""
    start = time.monotonic()
    assert server.post("/classify", ASK).status == 200
    return time.monotonic() - start


# ----- Slow, silent, gone


def is_closed(connection) -> bool:
    """Whether the server has ended a connection, after all that it has sent."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


def test_who_sends_or_reads_too_slowly_is_cut_off_and_hinders_nobody(server):
    body = json.dumps(ASK).encode()
    whole = request("/classify", body)
    drops = {
        "nothing": b"", "a head": head("/classify") + b"\r\nX: " + b"x" * 500, "a body": whole[:-5] + b" " * 5,
        "a chunk": head("/classify", "Transfer-Encoding: chunked") + b"\r\n\r\n" + b"1\r\n \r\n" * 100,
        "too long": head("/classify", f"Content-Length: {2 * MAX_BYTES}") + b"\r\n\r\n" + b" " * 500,
        "a second head": request("/classify", body) + head("/classify") + b"\r\nX: " + b"x" * 500,
        "to somewhere": head("/nothing", "Content-Length: 1000") + b"\r\n\r\n" + b"x" * 500,
    }  # fmt: skip
    starts = {"a body": len(whole) - 5, "a second head": len(whole)}
    sent = {
        name: starts.get(name, data.find(b"\r\n\r\n") + 4 if name != "a head" else 30) for name, data in drops.items()
    }
    clients = {name: server.connect() for name in drops}
    for name, client in clients.items():
        client.sendall(drops[name][: sent[name]])
    clients["never reads"] = server.connect()
    clients["never reads"].setblocking(False)
    asked = head("/openapi.json", method="GET") + b"\r\n\r\n"
    with contextlib.suppress(BlockingIOError):
        for _ in range(2000):
            clients["never reads"].send(asked)
    start, longest, closed = time.monotonic(), 0.0, set()
    while len(closed) < len(drops) and time.monotonic() < start + 3 * SECONDS:
        for name in drops.keys() - closed:
            with contextlib.suppress(ConnectionError):
                if sent[name] < len(drops[name]) - 1:
                    clients[name].send(drops[name][sent[name] :][:1])
                    sent[name] += 1
            if is_closed(clients[name]):
                closed.add(name)
        longest = max(longest, seconds_to_answer(server))
        time.sleep(0.1)
    assert drops.keys() - closed == set() and longest < SECONDS
    until = time.monotonic() + 2 * SECONDS
    with pytest.raises(ConnectionError):  # a byte to a connection that the server has reset
        while time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                clients["never reads"].send(b" ")
            time.sleep(0.1)
    for client in clients.values():
        client.close()


def test_a_body_that_never_ends_is_408(server):
    with server.connect() as connection:
        connection.sendall(head("/classify", "Content-Length: 100") + b"\r\n\r\n{")
        start = time.monotonic()
        answer = read_answer(connection)
    assert answer.status == 408 and "detail" in answer.json and time.monotonic() - start < SECONDS + 2


def test_connections_without_a_request_take_no_place_from_others(server):
    idle = []
    try:
        for _ in range(MAX_CONNECTIONS + 100):
            idle.append(server.connect())
        assert seconds_to_answer(server) < SECONDS
        assert server.files() < MAX_CONNECTIONS + 100
        assert is_closed(idle[0]) and not is_closed(idle[-1])
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize(("path", "abrupt"), [("/generate", False), ("/generate", True), ("/page/generate", True)])
def test_who_leaves_without_an_answer_gives_the_model_back(server, path, abrupt):
    long = json.dumps({"question": "What is cardiitis?", "max_length": 4000}).encode()
    for _ in range(20):
        connection = server.connect()
        connection.sendall(request(path, long))
        if path.startswith("/page"):  # while the answer streams
            assert connection.recv(1)
        if abrupt:  # a reset instead of an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    start = time.monotonic()
    assert server.post("/generate", {"question": "What is otalgia?", "max_length": 2}).status == 200
    assert time.monotonic() - start < SECONDS
    metrics = server.send(head("/metrics", method="GET") + b"\r\n\r\n").content.decode()
    assert 'app_queue_length{task="qa"} 0.0' in metrics


# ----- Bodies


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("more", "status"), [(-1, 200), (0, 200), (1, 413), (100_000, 413)])
def test_a_body_up_to_the_limit_is_read(server, more, status, chunked):
    body = json.dumps(ASK).encode().ljust(MAX_BYTES + more)
    data = request("/classify", body)
    if chunked:
        parts = (body[i : i + 10_000] for i in range(0, len(body), 10_000))
        data = head("/classify", "Transfer-Encoding: chunked") + b"\r\n\r\n"
        data += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    assert server.send(data).status == status


BODY = json.dumps(ASK).encode()
N = len(BODY)


@pytest.mark.parametrize(
    "lines",
    [
        [f"Content-Length: {N - 1}"], [f"Content-Length: -{N}"], [f"Content-Length: +{N}"], ["Content-Length: x"],
        ["Content-Length: "], ["Content-Length: 0"], [f"Content-Length: {N}, {N}"], ["Content-Length: " + "9" * 5000],
        [f"Content-Length: {N}", f"Content-Length: {N + 1}"], [f"Content-Length: {N}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip"], ["Transfer-Encoding: chunked, chunked"], ["Transfer-Encoding: chunked"],
        ["Expect: 100-continue", "Content-Length: 5"], [f"Content-Length: {N}", "X: " + "x" * 100_000], [],
        [f"Content-Length: {N}", "X: \x00"], [f"Content-Length: {N}", "Upgrade: websocket", "Connection: Upgrade"],
    ],
    ids=lambda lines: " ".join(lines)[:60],
)  # fmt: skip
def test_a_length_that_is_wrong_is_no_server_error(server, lines):
    assert server.send(head("/classify", *lines) + b"\r\n\r\n" + BODY + b"\r\n\r\n").status < 500
    assert seconds_to_answer(server) < SECONDS


@pytest.mark.parametrize(
    "body",
    [
        b'{"text":' * 5_000, b"[" * 999_999, b'{"text": "x", "top_k": %s}' % (b"9" * 5_000), b"1e999", b"-" * 9,
        b'{"text": "x", "top_k": 1e308}', b'{"text": "x", "top_k": -0.0}', b'{"text": "x", "\\ud800": 1}',
        b'{"text": {"\\udfff": "x"}}', b'{"text": {"a": "\\udfff"}}', b'{"%s": 1}' % (b"k" * 900_000), b"\xed\xa0\x80",
        b"{%s}" % b",".join(b'"k%d": 1' % i for i in range(60_000)), b'{"texts": [%s]}' % b",".join([b"1"] * 90_000),
        b'{"text": "\\u0000"}', b'"' + b"\xff" * 100 + b'"', b"\xef\xbb\xbf" + BODY, BODY.decode().encode("utf-16"),
    ],
    ids=lambda body: repr(body[:30]),
)  # fmt: skip
@pytest.mark.parametrize("path", ["/classify", "/generate"])
def test_what_is_no_request_is_a_short_answer(server, path, body):
    answer = server.post(path, body)
    assert 400 <= answer.status < 500 or (answer.status == 200 and b"murmur" in body.replace(b"\0", b""))
    assert answer.json and len(answer.content) < 10_000


# ----- Texts

ANY = st.characters(exclude_categories=())  # with lone surrogates
TEXTS = st.one_of(
    st.text(ANY, max_size=40),
    st.text(
        st.sampled_from("\0\u0301\u0489\u200b\u200d\u202e\u2066\u2069\ud83d\udfff\ufeff\ufffe\U000e0041a "),
        max_size=40,
    ),
    st.builds(lambda text, n: text * n, st.text(ANY, min_size=1, max_size=3), st.integers(1, 2000)),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
PATIENTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("age", "kidney", "medications", "allergies", "conditions", "pregnancy"), VALUES)
)
PATHS = ["/classify", "/generate", "/summarize", "/page/classify", "/page/generate"]
REQUESTS = st.one_of(
    st.tuples(st.just("/classify"), st.fixed_dictionaries({"text": TEXTS | VALUES})),
    st.tuples(st.just("/classify"), st.fixed_dictionaries({"texts": st.lists(TEXTS, max_size=5)})),
    st.tuples(
        st.just("/generate"),
        st.fixed_dictionaries({"question": TEXTS, "max_length": st.just(2)}, optional={"patient_context": PATIENTS}),
    ),
    st.tuples(st.sampled_from(PATHS), st.dictionaries(TEXTS, VALUES, max_size=5)),
)  # fmt: skip


def check_answer(answer) -> None:
    assert 200 <= answer.status < 500 and answer.json


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(REQUESTS)
def test_whatever_is_written_the_answer_is_json(server, asked):
    path, body = asked
    check_answer(server.post(path, body))


FLOODS = ["\u0301", "I want to kill ", "<|im_end|>"]
MORE_FLOODS = ["a\u0301", "\u202e", "1 mg ", "aspirin ", "\n", "-", "𝕳", "x", "٣ ", "("]


@pytest.mark.parametrize(
    "flood", [*FLOODS, *(pytest.param(flood, marks=pytest.mark.faults) for flood in MORE_FLOODS)], ids=repr
)
def test_a_flood_of_one_character_or_phrase_delays_nobody(server, flood):
    text = (flood * MAX_CHARACTERS)[: MAX_CHARACTERS - 1] + "x"
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(server.post, "/generate", {"question": text, "max_length": 2})
        classified = pool.submit(server.post, "/classify", {"text": text})
        assert seconds_to_answer(server) < SECONDS
        for future in (asked, classified):
            status = future.result().status
            assert status in (200, 422, 504)


# ----- The long part


@pytest.mark.faults
def test_100000_requests_leave_the_memory_flat(whole, table):
    scripts = ("run_qa_sft.py", "run_classification.py", "run_summarization.py")
    with start_server([str(whole(script).folder) for script in scripts], 60) as server:
        every = [
            head("/health", method="GET") + b"\r\n\r\n", request("/classify", BODY),
            request("/classify", b'{"text": 1}'), head("/nothing", method="GET") + b"\r\n\r\n",
            request("/classify", json.dumps({"texts": ["a cough", "hives"]}).encode()),
            request("/generate", b'{"question": "What is otalgia?", "max_length": 2}'),
            request("/generate", b'{"question": "I have crushing chest pain right now."}'),
            request("/summarize", b'{"text": ""}'), head("/metrics", method="GET") + b"\r\n\r\n",
            request("/summarize", json.dumps({"text": "Doctor: What brings you in? Patient: A cough."}).encode()),
        ]  # fmt: skip
        weights = [40, 20, 20, 8, 2, 3, 3, 2, 1, 1]

        def ask(number: int) -> dict[int, int]:
            """Ask as one client, over one connection after another, and count the answers by status."""
            rng, counts = random.Random(number), dict[int, int]()
            for _ in range(number % 2 + 1):
                with server.connect() as connection:
                    for data in rng.choices(every, weights, k=200 // (number % 2 + 1)):
                        connection.sendall(data)
                        status = read_answer(connection).status
                        counts[status] = counts.get(status, 0) + 1
            return counts

        memory, statuses = [], dict[int, int]()
        with ThreadPoolExecutor(4) as pool:
            for start in range(0, 500, 50):
                for counts in pool.map(ask, range(start, start + 50)):
                    statuses = {s: statuses.get(s, 0) + counts.get(s, 0) for s in statuses | counts}
                memory.append(round(server.memory()))
                print(f"{sum(statuses.values())} requests: {memory[-1]} MB")
        assert sum(statuses.values()) == 100_000 and set(statuses) <= {200, 404, 422}
        table["app"] = table.get("app", {}) | {
            "requests": 100_000, "answers_by_status": {str(key): n for key, n in sorted(statuses.items())},
            "resident_mb_after_each_10000": memory,
        }  # fmt: skip
        assert memory[-1] < 1.05 * memory[0] + 10


@pytest.mark.faults
def test_every_character_of_every_plane_is_answered(server, table):
    texts = ["".join(map(chr, range(start, start + 1024))) for start in range(0, 0x110000, 1024)]
    for number, text in enumerate(texts):
        path, body = (
            ("/classify", {"text": text}) if number % 4 else ("/generate", {"question": text, "max_length": 1})
        )
        answer = server.post(path, body)
        check_answer(answer)
    table["app"] = table.get("app", {}) | {"characters_of_every_plane": len(texts) * 1024, "server_errors": 0}
