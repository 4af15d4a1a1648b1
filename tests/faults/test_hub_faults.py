"""A Hub that fails: the result is safe on disk, and the error names a command that pushes it later."""

import shlex

import pytest

from tests.hub_server import CUT, SILENT
from utils.json_files import write_json

PUSH = """
import utils.hub, utils.push
utils.push.WAITS = {waits}
utils.hub.PATIENCE = 1
import huggingface_hub.utils._http as http, time
http.time.sleep = lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01))  # the library's own waits
from utils.arguments import user_errors
with user_errors():
    print(utils.push.push("{folder}", "{repo}", None))
"""
PLACES = {  # of the protocol: method, part of the path
    "create": ("POST", "/api/repos/create"), "look": ("GET", "/api/models/"), "announce": ("POST", "/preupload/"),
    "batch": ("POST", "/objects/batch"), "upload": ("PUT", "/lfs/"), "commit": ("POST", "/commit/"),
}  # fmt: skip
QUICK = [("create", 500), ("announce", 403), ("upload", CUT), ("commit", SILENT), ("commit", 429), ("look", CUT)]
ALL = [(place, status) for place in PLACES for status in (401, 403, 429, 500, 503, CUT, SILENT)]


@pytest.fixture
def run_dir(tmp_path, request):
    folder = tmp_path / "it's a run"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(request.node.name.encode() * 100)  # unknown to the Hub
    write_json(folder / "task.json", {"task": "qa"})
    return folder


def failing(place, status, times=10**9):
    method, part = PLACES[place]
    left = [times]

    def fault(given, path):
        if given != method or part not in path or left[0] <= 0:
            return None
        left[0] -= 1
        return status

    return fault


@pytest.mark.parametrize(
    ("place", "status"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.faults) for case in ALL]
)
def test_a_push_that_fails_loses_nothing_and_the_command_it_names_works_later(
    place, status, hub, forks, run_dir, monkeypatch
):
    before = {path: path.read_bytes() for path in run_dir.iterdir()}
    repo = f"tester/{place}-{status}"
    monkeypatch.setattr(hub, "fault", failing(place, status))
    code = PUSH.format(folder=run_dir, repo=repo, waits=())
    done = forks.run(code, [])
    assert done.code == 2 and len(done.errors) == 1 and "Traceback" not in done.output, done.output
    assert str(run_dir) in done.errors[0] and "write-token" not in done.output
    assert {path: path.read_bytes() for path in run_dir.iterdir()} == before and repo not in hub.commits
    words = shlex.split(done.errors[0].partition("push again: ")[2])
    assert words[:2] == ["python", "-c"]
    monkeypatch.setattr(hub, "fault", lambda method, path: None)
    later = forks.run(words[2], [])
    assert later.code == 0, later.output
    assert hub.repos[repo].files["adapter_model.safetensors"] == before[run_dir / "adapter_model.safetensors"]


@pytest.mark.parametrize("place", ["create", "commit"])
def test_what_may_pass_is_tried_again(place, hub, forks, run_dir, monkeypatch):
    monkeypatch.setattr(hub, "fault", failing(place, 503, times=1))
    done = forks.run(PUSH.format(folder=run_dir, repo=f"tester/again-{place}", waits=(0, 0)), [])
    assert done.code == 0 and hub.commits.count(f"tester/again-{place}") == 1, done.output


def test_a_repository_of_somebody_else_is_refused(hub, forks, run_dir, monkeypatch):
    hub.add_repo("other/model", private=False)
    done = forks.run(PUSH.format(folder=run_dir, repo="other/model", waits=()), [])
    assert done.code == 2 and "other/model" in done.errors[0] and "other/model" not in hub.commits
