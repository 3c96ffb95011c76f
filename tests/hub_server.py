"""A hub of models on this machine, as far as runs are pushed and fetched: repositories in memory, over HTTP.

Faults are asked for by name: a line that breaks in the middle of a file, a file that is not what is listed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_only_for_tests"


@dataclass
class Repository:
    """Files by commit; the last commit is main."""

    private: bool = True
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def main(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, bytes]) -> str:
        """Keep a state of the files, under a name that follows from them and from what was before."""
        seed = "".join(self.commits) + "".join(
            f"{name}{hashlib.sha1(data).hexdigest()}" for name, data in files.items()
        )
        name = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[name] = files
        return name

    def resolve(self, revision: str) -> str | None:
        return self.main if revision == "main" else revision if revision in self.commits else None


@dataclass
class Hub:
    """What the server holds, what it was asked, and what it should do wrong."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)  # by file: what is listed otherwise than it is
    breaks: dict[str, int] = field(default_factory=dict)  # by file: how often the line breaks in its middle
    down: set[str] = field(default_factory=set)  # files that are answered with an error once the line broke
    damaged: set[str] = field(default_factory=set)  # files of which one byte is another
    drops_commits: bool = False
    url: str = ""

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """A repository with one commit, whose name is returned."""
        self.repositories[name] = Repository(private=private)
        return self.repositories[name].commit(files)

    def fetched(self) -> list[str]:
        """The files that were asked for, in order."""
        return [path.rpartition("/resolve/")[2].partition("/")[2] for method, path, _ in self.requests
                if method == "GET" and "/resolve/" in path]  # fmt: skip


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a free port of this machine, for as long as the block lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._noted()
        if path == "/api/agent-harnesses":
            return self._json({})
        if path.startswith("/api/models/"):
            return self._info(path.removeprefix("/api/models/"))
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        return self._file(name, revision, file)

    def do_POST(self) -> None:
        path = self._noted()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(403, "Forbidden")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            if name.split("/")[0] != "me":
                return self._refuse(403, "Forbidden")
            private = asked.get("private", asked.get("visibility") == "private")
            self.hub.repositories[name] = Repository(private=bool(private))
            self.hub.repositories[name].commit({".gitattributes": b""})
            return self._json({"url": f"{self.hub.url}/{name}"})
        name, _, rest = path.removeprefix("/api/models/").rpartition("/")[0].rpartition("/")
        if name.split("/")[0] != "me":
            return self._refuse(403, "Forbidden")
        if rest == "preupload":
            files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for each in json.loads(body)["files"]]  # fmt: skip
            return self._json({"files": files})
        assert rest == "commit"
        if self.hub.drops_commits:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        repository = self.hub.repositories[name]
        files = dict(repository.commits[repository.main])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                del files[entry["value"]["path"]]
        oid = repository.commit(files)
        return self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _noted(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        return path

    def _found(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        seen = found is not None and (not found.private or self.headers.get("Authorization") == f"Bearer {TOKEN}")
        return found if seen else None

    def _info(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        repository = self._found(name)
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        commit = repository.resolve(revision or "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        siblings = []
        for file, data in repository.commits[commit].items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": _git(data)}
            if file.endswith(".safetensors"):
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
            siblings.append(entry | self.hub.listed.get(file, {}))
        return self._json({"id": name, "sha": commit, "private": repository.private, "siblings": siblings})

    def _file(self, name: str, revision: str, file: str) -> None:
        repository = self._found(name)
        commit = None if repository is None else repository.resolve(revision)
        if repository is None or commit is None or file not in repository.commits[commit]:
            return self._refuse(404, "EntryNotFound")
        data = repository.commits[commit][file]
        etag = hashlib.sha256(data).hexdigest() if file.endswith(".safetensors") else _git(data)
        if file in self.hub.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start and file in self.hub.down:
            return self._refuse(500, "")
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", commit)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.hub.breaks.get(file, 0):
            self.hub.breaks[file] -= 1
            self.wfile.write(data[start : (start + len(data)) // 2])
            self.wfile.flush()
            self.close_connection = True
            return None
        self.wfile.write(data[start:])
        return None

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self._json({"error": code or "broken"}, status, **({"X_Error_Code": code} if code else {}))


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
