"""A small Hugging Face hub for the tests: repositories of data sets, as much of its API as pushing uses.

Commits are all or none and name their parent, as the hub's do: another one than the newest is answered 412. Files of
over a kilobyte are kept by their SHA-256 (LFS) and read from another host, to which the hub redirects.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from sharing.servers import HANDLER, Server

TOKEN = "hf_ofthetests"
LARGE = 1024


class Repository:
    """Files by path, blobs by SHA-256, and the ids of commits, the newest last."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.files: dict[str, bytes] = {}
        self.commits = [hashlib.sha1(b"").hexdigest()]


class _Hub(HANDLER):
    def handle_any(self) -> None:
        server: Any = self.server
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        server.asked.append(f"{self.command} {path}")
        if server.before is not None and server.before(self, path):
            return
        for pattern, name in _ROUTES:
            if found := re.fullmatch(f"(?:GET|HEAD|POST|PUT) {pattern}", f"{self.command} {path}"):
                allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                repository = server.repositories.get(found.groupdict().get("repo"))
                if not allowed and (self.command == "POST" or (repository is not None and repository.private)):
                    self.answer(401, b'{"error": "Invalid username or password."}')
                    return
                with server.lock:
                    getattr(self, name)(server, repository, found)
                return
        self.answer(404, b'{"error": "no such route"}')

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def create(self, server: Any, repository: Any, found: Any) -> None:
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"lab/{asked['name']}"
        private = asked.get("private", asked.get("visibility") == "private")
        if repo in server.repositories:
            told = {"error": "You already created this dataset repo", "url": f"{server.url}/datasets/{repo}"}
            self.answer(409, json.dumps(told).encode())
            return
        server.repositories[repo] = Repository(bool(private))
        self.json({"url": f"{server.url}/datasets/{repo}", "id": repo})

    def yaml(self, server: Any, repository: Any, found: Any) -> None:
        self.json({"errors": [], "warnings": []})

    def info(self, server: Any, repository: Any, found: Any) -> None:
        if repository is None:
            self.answer(404, b'{"error": "Repository not found"}', X_Error_Code="RepoNotFound")
            return
        self.json({"id": found["repo"], "sha": repository.commits[-1], "private": repository.private, "tags": []})

    def preupload(self, server: Any, repository: Any, found: Any) -> None:
        told = []
        for one in json.loads(self.body)["files"]:
            mode = "lfs" if one["size"] > LARGE else "regular"
            told.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None})
        self.json({"files": told})

    def batch(self, server: Any, repository: Any, found: Any) -> None:
        told = []
        for one in json.loads(self.body)["objects"]:
            upload = {"href": f"{server.url}/lfs/{one['oid']}", "header": {}}
            actions = {} if one["oid"] in server.objects else {"actions": {"upload": upload}}
            told.append({"oid": one["oid"], "size": one["size"], **actions})
        self.json({"transfer": "basic", "objects": told})

    def lfs(self, server: Any, repository: Any, found: Any) -> None:
        if hashlib.sha256(self.body).hexdigest() != found["oid"]:
            self.answer(400, b'{"error": "another SHA-256"}')
            return
        server.objects[found["oid"]] = self.body
        self.answer(200)

    def commit(self, server: Any, repository: Any, found: Any) -> None:
        lines = [json.loads(line) for line in self.body.splitlines()]
        if lines[0]["value"].get("parentCommit", repository.commits[-1]) != repository.commits[-1]:
            self.answer(412, b'{"error": "A commit has happened since. Please refresh and try again."}')
            return
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            else:
                repository.files[value["path"]] = server.objects[value["oid"]]
        repository.commits.append(hashlib.sha1(self.body + repository.commits[-1].encode()).hexdigest())
        sha = repository.commits[-1]
        self.json({"commitUrl": f"{server.url}/datasets/{found['repo']}/commit/{sha}", "commitOid": sha})

    def resolve(self, server: Any, repository: Any, found: Any) -> None:
        if repository is None or found["file"] not in repository.files:
            self.answer(404, b"Entry not found", X_Error_Code="EntryNotFound")
            return
        data = repository.files[found["file"]]
        if len(data) > LARGE:
            self.answer(302, Location=f"{server.elsewhere}/{hashlib.sha256(data).hexdigest()}")
        else:
            self.give(data, ETag='"x"')


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_ROUTES = (
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "yaml"),
    (rf"/api/datasets/{_REPO}(/revision/main)?", "info"),
    (rf"/api/datasets/{_REPO}/preupload/main", "preupload"),
    (rf"/datasets/{_REPO}\.git/info/lfs/objects/batch", "batch"),
    (r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs"),
    (rf"/api/datasets/{_REPO}/commit/main", "commit"),
    (rf"/datasets/{_REPO}/resolve/main/(?P<file>.+)", "resolve"),
)


class _Elsewhere(HANDLER):
    """Gives the large files; a token that comes here has gone too far."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.headers.get("Authorization"))
        oid = self.path.strip("/")
        if oid in server.objects:
            self.give(server.objects[oid], ETag='"x"')
        else:
            self.answer(404)

    do_HEAD = do_GET


@contextlib.contextmanager
def hub() -> Iterator[Server]:
    """A hub without repositories: `repositories`, `objects` (large files), `tokens_elsewhere`."""
    server: Any = Server(_Hub)
    other: Any = Server(_Elsewhere)
    server.repositories, server.url = {}, f"http://127.0.0.1:{server.port}"
    server.elsewhere, other.objects, server.tokens_elsewhere = (
        f"http://localhost:{other.port}",
        server.objects,
        other.asked,
    )
    server.lock = threading.RLock()
    try:
        yield server
    finally:
        for one in (server, other):
            one.shutdown()
            one.server_close()
