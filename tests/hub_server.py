"""A Hub on 127.0.0.1: enough of its HTTP API for the real `huggingface_hub`, `transformers` and `peft` clients.

    with serve_hub() as hub:
        hub.add_repo("org/base", folder)
        subprocess.run([...], env=os.environ | hub.env(tmp_path))

Files go the plain LFS way: `env` turns Xet off. The clients read HF_* when they are imported, hence the subprocess.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKENS = {"write-token": "write", "read-token": "read"}
USER = "tester"
REPO = r"(?P<repo>[^/]+(?:/[^/]+)?)"
CUT, SILENT = 1, 2  # faults beside an HTTP status: an answer that ends half way, and none
SILENCE = 6.0  # seconds
LFS_SUFFIXES = (".safetensors", ".png", ".bin", ".model")


@dataclass
class Repo:
    private: bool
    gated: bool = False
    branches: dict[str, list[str]] = field(default_factory=lambda: {"main": []})  # oldest commit first
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{id(self)} {branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch].append(oid)
        return oid

    def resolve(self, revision: str) -> str | None:
        return (
            self.branches[revision][-1]
            if revision in self.branches
            else revision
            if revision in self.commits
            else None
        )

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.branches["main"][-1]]


@dataclass
class Hub:
    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)  # every path that a client offered or committed
    commits: list[str] = field(default_factory=list)  # repository of each commit that a client made
    requests: list[str] = field(default_factory=list)
    fault: Callable[[str, str], int | None] = lambda method, path: None  # -> status to answer, or one of FAULTS
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add_repo(self, repo_id: str, folder: Path | None = None, private: bool = False, gated: bool = False) -> Repo:
        """Put a repository there without a client, e.g. a base model. The terms of a gated one are never accepted."""
        self.repos[repo_id] = repo = Repo(private, gated)
        paths = sorted(p for p in folder.rglob("*") if p.is_file()) if folder else []
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"} | files)
        return repo

    def env(self, home: Path, token: str | None = "write-token") -> dict[str, str]:
        """The variables that point a client in a subprocess here, with its own empty cache."""
        return {
            "HF_ENDPOINT": self.url, "HF_TOKEN": token or "", "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ETAG_TIMEOUT": "120", "HF_HUB_DOWNLOAD_TIMEOUT": "120",  # else a busy machine looks offline
        }  # fmt: skip


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty Hub on a free port until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        authorization = self.headers.get("Authorization", "")
        self.role = TOKENS.get(authorization.removeprefix("Bearer "))
        fault = self.hub.fault(self.command, path)
        if fault == CUT:  # half of an answer
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"half": ')
            self.close_connection = True
            return None
        if fault == SILENT:
            time.sleep(SILENCE)
            self.close_connection = True
            return None
        if fault:
            return self._error(fault, message="as the test wants it")
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
            if authorization and not self.role:
                return self._error(401, message="Invalid credentials in Authorization header")
            for method, pattern, handler in ROUTES:
                match = re.fullmatch(pattern.replace("REPO", REPO), path)
                if match and self.command in method:
                    return self._route(handler, match.groupdict(), body)
            return self._error(404)

    def _route(self, handler: str, parts: dict[str, str], body: bytes) -> None:
        if "repo" in parts:
            repo = self.hub.repos.get(parts["repo"])
            if repo is None or (repo.private and not self.role):
                return self._error(404 if self.role else 401, "RepoNotFound")
            if repo.gated and handler == "_resolve":
                return self._error(403 if self.role else 401, "GatedRepo", "Access is restricted. Please log in.")
            if parts.get("revision") and not repo.resolve(parts["revision"]) and handler != "_branch":
                return self._error(404, "RevisionNotFound")
            if handler in ("_preupload", "_batch", "_commit", "_branch") and self.role != "write":
                return self._error(403, message="You don't have write access to this repo")
        return getattr(self, handler)(parts, body)

    def _whoami(self, parts: dict[str, str], body: bytes) -> None:
        if not self.role:
            return self._error(401, message="Invalid username or password.")
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": self.role}}
        self._json({"type": "user", "name": USER, "orgs": [], "auth": auth})

    def _create(self, parts: dict[str, str], body: bytes) -> None:
        given = json.loads(body)
        repo_id = f"{given.get('organization') or USER}/{given['name']}"
        if self.role != "write":
            return self._error(403, message="You don't have the rights to create a model")
        exists = repo_id in self.hub.repos
        if not exists:  # the real Hub makes a repository public where nothing is said
            self.hub.add_repo(repo_id, private=given.get("visibility") == "private" or given.get("private", False))
        self._json({"url": f"{self.hub.url}/{repo_id}", "name": repo_id}, 409 if exists else 200)

    def _validate(self, parts: dict[str, str], body: bytes) -> None:
        match = re.match(r"---\n(.*?)\n---", json.loads(body)["content"], re.DOTALL)
        metadata = yaml.safe_load(match.group(1)) if match else {}
        base = metadata.get("base_model")
        errors = []
        if base is not None and not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", base):
            errors = [{"message": f'"base_model" with value "{base}" is not valid. Use a model id from the Hub.'}]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _preupload(self, parts: dict[str, str], body: bytes) -> None:
        repo = self.hub.repos[parts["repo"]]
        stored, answer = repo.commits[repo.resolve(parts["revision"])], []
        for given in json.loads(body)["files"]:
            name = given["path"]
            self.hub.received.append(name)
            mode = "lfs" if name.endswith(LFS_SUFFIXES) else "regular"
            oid = _oid(name, stored[name]) if name in stored else None
            answer.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answer})

    def _batch(self, parts: dict[str, str], body: bytes) -> None:
        objects = []
        for given in json.loads(body)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.url}/lfs/{given['oid']}", "header": {}},
                "verify": {"href": f"{self.hub.url}/lfs/verify", "header": {}},
            }
            objects.append(given | ({} if given["oid"] in self.hub.lfs else {"actions": actions}))
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, parts: dict[str, str], body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != parts["oid"]:
            return self._error(400)
        self.hub.lfs[parts["oid"]] = body
        self._json({})

    def _verify(self, parts: dict[str, str], body: bytes) -> None:
        given = json.loads(body)
        self._json({}, 200 if len(self.hub.lfs.get(given["oid"], b"")) == given["size"] else 404)

    def _commit(self, parts: dict[str, str], body: bytes) -> None:
        repo, branch = self.hub.repos[parts["repo"]], parts["revision"]
        files = dict(repo.commits[repo.resolve(branch)])
        for line in body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "header":
                continue
            self.hub.received.append(value["path"])
            is_lfs = key == "lfsFile"
            files[value["path"]] = self.hub.lfs[value["oid"]] if is_lfs else base64.b64decode(value["content"])
        oid = repo.commit(branch, files)
        self.hub.commits.append(parts["repo"])
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{parts['repo']}/commit/{oid}"})

    def _branch(self, parts: dict[str, str], body: bytes) -> None:
        branches = self.hub.repos[parts["repo"]].branches
        exists = parts["revision"] in branches
        branches.setdefault(parts["revision"], list(branches["main"]))
        self._json({}, 409 if exists else 200)

    def _info(self, parts: dict[str, str], body: bytes) -> None:
        repo = self.hub.repos[parts["repo"]]
        oid = repo.resolve(parts.get("revision") or "main")
        siblings = [{"rfilename": name} for name in repo.commits[oid]]
        self._json({"id": parts["repo"], "sha": oid, "private": repo.private, "siblings": siblings, "tags": []})

    def _refs(self, parts: dict[str, str], body: bytes) -> None:
        branches = self.hub.repos[parts["repo"]].branches
        refs = [{"name": b, "ref": f"refs/heads/{b}", "targetCommit": oids[-1]} for b, oids in branches.items()]
        self._json({"branches": refs, "tags": [], "converts": []})

    def _tree(self, parts: dict[str, str], body: bytes) -> None:
        repo, folder = self.hub.repos[parts["repo"]], (parts.get("folder") or "").strip("/")
        files = repo.commits[repo.resolve(parts["revision"])].items()
        entries = [_entry(name, data) for name, data in files if name.startswith(f"{folder}/" if folder else "")]
        if folder and not entries:
            return self._error(404, "EntryNotFound")
        self._json(entries)

    def _paths_info(self, parts: dict[str, str], body: bytes) -> None:
        repo, wanted = self.hub.repos[parts["repo"]], json.loads(body)["paths"]
        files = repo.commits[repo.resolve(parts["revision"])]
        self._json([_entry(name, files[name]) for name in wanted if name in files])

    def _resolve(self, parts: dict[str, str], body: bytes) -> None:
        repo = self.hub.repos[parts["repo"]]
        oid = repo.resolve(parts["revision"])
        data = repo.commits[oid].get(parts["file"])
        if data is None:
            return self._error(404, "EntryNotFound", headers={"X-Repo-Commit": oid})
        etag = _oid(parts["file"], data)
        headers = {"X-Repo-Commit": oid, "ETag": f'"{etag}"'}
        if parts["file"].endswith(LFS_SUFFIXES):
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        self._send(200, data, "application/octet-stream", headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", {})

    def _error(self, status: int, code: str = "", message: str = "", headers: dict[str, str] | None = None) -> None:
        given = {"X-Error-Code": code, "X-Error-Message": message}
        body = json.dumps({"error": message or code or "Not Found"}).encode()
        self._send(status, body, "application/json", {k: v for k, v in given.items() if v} | (headers or {}))

    def _send(self, status: int, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _oid(name: str, data: bytes) -> str:
    """sha256 for LFS files, git's blob hash for the others."""
    if name.endswith(LFS_SUFFIXES):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    oid = _oid(name, data)
    lfs = {"lfs": {"oid": oid, "size": len(data), "pointerSize": 134}} if name.endswith(LFS_SUFFIXES) else {}
    return {"type": "file", "path": name, "size": len(data), "oid": oid} | lfs


ROUTES = (
    ("GET", "/api/whoami-v2", "_whoami"),
    ("POST", "/api/repos/create", "_create"),
    ("POST", "/api/validate-yaml", "_validate"),
    ("POST", "/api/models/REPO/preupload/(?P<revision>[^/]+)", "_preupload"),
    ("POST", "/api/models/REPO/commit/(?P<revision>[^/]+)", "_commit"),
    ("POST", "/api/models/REPO/branch/(?P<revision>[^/]+)", "_branch"),
    ("POST", "/api/(?:models|datasets)/REPO/paths-info/(?P<revision>[^/]+)", "_paths_info"),
    ("POST", "/REPO.git/info/lfs/objects/batch", "_batch"),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", "_upload"),
    ("POST", "/lfs/verify", "_verify"),
    ("GET", "/api/models/REPO/refs", "_refs"),
    ("GET", "/api/(?:models|datasets)/REPO/tree/(?P<revision>[^/]+)(?P<folder>/.*)?", "_tree"),
    ("GET", "/api/(?:models|datasets)/REPO/revision/(?P<revision>[^/]+)", "_info"),
    ("GET", "/api/(?:models|datasets)/REPO", "_info"),
    ("GET HEAD", "(?:/datasets)?/REPO/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "_resolve"),
)
