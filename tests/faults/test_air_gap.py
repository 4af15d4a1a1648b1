"""Without a network, under a trace of the system calls: everything works, and nothing tries to connect elsewhere."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import read_jsonl, write_rows

from tests.faults.conftest import KILLED, SCRIPTS
from tests.forks import start_forks

pytestmark = pytest.mark.faults
APP = """
import json, subprocess, sys, time, urllib.request
server = subprocess.Popen([sys.executable, "app.py", "--model", "{model}", "--port", "{port}"])
def ask(path, body=None):
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request("http://127.0.0.1:{port}" + path, data, {{"Content-Type": "application/json"}})
    return urllib.request.urlopen(request, timeout=60).read().decode()
try:
    for _ in range(600):
        try:
            print(ask("/health"))
            break
        except OSError:
            assert server.poll() is None
            time.sleep(0.5)
    print(ask("/classify", {{"text": "a murmur of the heart"}}))
    print(len(ask("/")), len(ask("/docs")))
finally:
    server.terminate()
    server.wait()
"""
EVALUATION = """
import runpy, sys
sys.argv = ["utils.evaluation", "--output_dir", "{model}"]
runpy.run_module("utils.evaluation", run_name="__main__")
"""


def outside(trace: str) -> list[str]:
    """Return the calls that name an address outside this machine."""
    addresses = re.findall(r"sin6?_addr[^)]*?\"([0-9a-f.:]+)\"|inet_addr\(\"([0-9.]+)\"\)", trace)
    return [a or b for a, b in addresses if not (a or b).startswith(("127.", "::1", "0.0.0.0"))]


def test_a_trace_shows_an_address_outside():
    line = 'connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("%s")}, 16) = -1 ENETUNREACH'
    assert outside(line % "10.1.2.3") == ["10.1.2.3"] and outside(line % "127.0.0.1") == []


def test_everything_works_without_a_network_and_asks_for_none(command, data, tmp_path, table):
    if not (shutil.which("unshare") and shutil.which("strace")):
        pytest.skip("needs unshare and strace")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a network namespace")
    trace = tmp_path / "trace"
    loopback = 'ip link set lo up 2>/dev/null || ifconfig lo up; exec "$@"'
    under = ["unshare", "-n", "sh", "-c", loopback, "sh", "strace", "-f", "-qq", "--seccomp-bpf", "-e",
             "trace=connect,sendto,sendmsg", "-o", str(trace)]  # fmt: skip
    env = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "0") | {"HF_HOME": str(tmp_path / "home")}
    rows = write_rows(tmp_path / "rows.jsonl", [{"note": f"a murmur of the heart {n}"} for n in range(9)])
    done = {}
    with start_forks(tmp_path, env, under) as forks:
        for script in SCRIPTS:
            done[script] = forks.run(script, command(script, tmp_path / script / "run"))
        model = tmp_path / KILLED / "run"
        words = ["--model", str(model), "--input_file", str(rows), "--output_file", str(tmp_path / "out.jsonl")]
        done["predict.py"] = forks.run("predict.py", words)
        for kind, run in (("merged", "run_qa_sft.py"), ("onnx", KILLED)):
            folders = ["--model", str(tmp_path / run / "run"), "--output_dir", str(tmp_path / kind)]
            done[f"export.py, {kind}"] = forks.run("export.py", [*folders, "--format", kind])
        done["evaluation"] = forks.run(EVALUATION.format(model=model), [])
        done["app.py"] = forks.run(APP.format(model=model, port=17860 + os.getpid() % 1000), [])
    assert {name: end.output[-2000:] for name, end in done.items() if end.code != 0} == {}
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 9
    assert outside(trace.read_text(errors="replace")) == []
    table["air_gap"] = {"works_without_a_network": sorted(done), "connections_outside": 0}
