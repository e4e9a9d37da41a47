"""A small Hugging Face hub on the loopback: listings, files with ranges, and faults on request."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

REVISION = "0123456789abcdef0123456789abcdef01234567"
"""The commit of every repository, but for those under `Hub.commits`."""
LARGE = 10_000
"""Files from this size on are listed as large ones, under their SHA-256; smaller ones under Git's hash."""


@dataclass
class Hub:
    """Serves repositories, kept as folders: one commit of each, or several."""

    repositories: dict[str, Path]
    """By `models/owner/name` or `datasets/owner/name`, at `REVISION`."""
    commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    """By the same names, other commits than `REVISION`."""
    refs: dict[str, dict[str, str]] = field(default_factory=dict)
    """By the same names, the commits of branches and tags; main is at `REVISION` if it is not listed."""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By the same names, status and error code in place of an answer."""
    gated: dict[str, str] = field(default_factory=dict)
    """By the same names, how access is granted; listings are public, files are refused."""
    breaks: dict[str, int] = field(default_factory=dict)
    """File name to how often its transfer still breaks off in the middle."""
    damages: set[str] = field(default_factory=set)
    """Names of files that arrive with one bit changed."""
    status: int = 200
    """The status of every answer. With any status but 200 comes the advice to retry at once."""
    ranges: list[str] = field(default_factory=list)
    """The `Range` headers seen."""

    def __post_init__(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self, repositories: dict[str, Path]) -> None:
        """Serve other repositories, without faults."""
        self.repositories, self.status = repositories, 200
        for record in (self.breaks, self.damages, self.ranges, self.commits, self.refs, self.refused, self.gated):
            record.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlparse(request.path).path)
        if self.status != 200:
            return self._send(request, self.status, b"{}", body, {"Retry-After": "0"})
        if api := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/(tree|revision)/(.+))?", path):
            return self._answer_about(request, api[1], api[2], api[3] or "main", body)
        if file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([0-9a-f]+)/(.+)", path):
            name = f"{(file[1] or 'models/')}{file[2]}"
            if name in self.gated:
                return self._send(request, 403, b"{}", body, {"X-Error-Code": "GatedRepo"})
            folder = self._folders(name).get(file[3])
            if folder is not None and (folder / file[4]).is_file():
                return self._send_file(request, folder / file[4], file[3], body)
        return self._send(request, 404, b"{}", body, {"X-Error-Code": "EntryNotFound"})

    def _folders(self, name: str) -> dict[str, Path]:
        """The folder of each commit of a repository."""
        served = {REVISION: self.repositories[name]} if name in self.repositories else {}
        return served | self.commits.get(name, {})

    def _answer_about(
        self, request: BaseHTTPRequestHandler, name: str, what: str | None, revision: str, body: bool
    ) -> None:
        """The files of a revision as a tree, or the repository's info with its files."""
        if name in self.refused:
            status, code = self.refused[name]
            return self._send(request, status, b"{}", body, {"X-Error-Code": code} if code else {})
        commit = ({"main": REVISION} | self.refs.get(name, {})).get(revision, revision)
        folders = self._folders(name)
        if commit not in folders:
            missing = "RevisionNotFound" if folders else "RepoNotFound"
            return self._send(request, 404, b"{}", body, {"X-Error-Code": missing})
        answer: Any = _listing(folders[commit])
        if what != "tree":
            answer = {
                "id": name.partition("/")[2],
                "sha": commit,
                "gated": self.gated.get(name, False),
                "siblings": [_sibling(entry) for entry in answer],
            }
        return self._send(request, 200, json.dumps(answer).encode(), body)

    def _send_file(self, request: BaseHTTPRequestHandler, path: Path, commit: str, body: bool) -> None:
        content = path.read_bytes()
        headers = {"ETag": f'"{_listed_hash(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if path.name in self.damages:
            content = bytes([content[0] ^ 1]) + content[1:]
        status, start = 200, 0
        if wanted := request.headers.get("Range"):
            self.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part = content[start:]
        if body and self.breaks.get(path.name, 0) > 0:
            self.breaks[path.name] -= 1
            self._head(request, status, len(part), headers)
            request.wfile.write(part[: len(part) // 2])
            request.wfile.flush()
            request.close_connection = True
            return
        self._send(request, status, part, body, headers)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        body: bool,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._head(request, status, len(content), headers or {})
        if body:
            request.wfile.write(content)

    @staticmethod
    def _head(request: BaseHTTPRequestHandler, status: int, length: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            request.send_header(name, value)
        request.end_headers()


def _listing(folder: Path) -> list[dict[str, Any]]:
    return [_entry(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    entry = {
        "type": "file",
        "path": path.relative_to(folder).as_posix(),
        "size": len(content),
        "oid": _git_hash(content),
    }
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": _listed_hash(content), "size": len(content), "pointerSize": 130}
    return entry


def _sibling(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a listing as the info of a repository holds it."""
    sibling = {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
    if "lfs" in entry:
        sibling["lfs"] = {"sha256": entry["lfs"]["oid"], "size": entry["size"], "pointerSize": 130}
    return sibling


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listed_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else _git_hash(content)
