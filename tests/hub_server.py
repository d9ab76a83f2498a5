"""A stand-in for the Hugging Face hub on the loopback interface.

It serves folders through the few routes that huggingface_hub downloads a repository by, so that the
real client runs against it and nothing leaves the machine.
"""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants

_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")

_Answer = Callable[[str, str, Path, str], None]  # repository, commit, folder, file


class HubServer:
    """Repositories by name, each a history of folders; `url` is what HF_ENDPOINT should be.

    `gated` has, for some repositories, the Authorization header that their files ask for. Set
    `outage` to a status to have every request answered with it, `hangs_up` to have none answered,
    `cuts` to the numbers of bytes after which the next weight files end with their connection,
    `announced_bytes` to have every weight file announced with that size. `resumed_at` lists the
    offsets that were asked for.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.gated: dict[str, str] = {}
        self.outage: HTTPStatus | None = None
        self.hangs_up = False
        self.cuts: list[int] = []
        self.announced_bytes: int | None = None
        self.resumed_at: list[int] = []
        self._commits: dict[tuple[str, str], Path] = {}
        self._branches: dict[tuple[str, str], str] = {}

    def publish(self, repo_id: str, folder: Path, branch: str = "main") -> str:
        """Make a folder the newest commit of a repository, and return the commit's hash.

        The folder is served from where it is: it must stay and must not change.
        """
        digest = hashlib.sha1(usedforsecurity=False)
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        commit = digest.hexdigest()
        self._commits[repo_id, commit] = folder
        self._branches[repo_id, branch] = commit
        return commit

    def has_repository(self, repo_id: str) -> bool:
        """Whether anything was published under this name."""
        return any(repo_id == known for known, _ in self._branches)

    def find_commit(self, repo_id: str, revision: str) -> tuple[str, Path] | None:
        """Return the commit that a branch or a commit hash names, and its folder."""
        commit = self._branches.get((repo_id, revision), revision)
        folder = self._commits.get((repo_id, commit))
        return (commit, folder) if folder is not None else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path  # still quoted: a revision may hold a slash
        if self.hub.hangs_up:
            self.close_connection = True
            return None
        if self.hub.outage is not None:
            return self._answer(self.hub.outage)
        for route, answer in ((_INFO, self._info), (_TREE, self._tree), (_FILE, self._file)):
            match = route.fullmatch(path)
            if match is not None:
                return self._route(match.groupdict(default=""), answer)
        return self._answer(HTTPStatus.NOT_FOUND)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _route(self, quoted: dict[str, str], answer: _Answer) -> None:
        named = {name: unquote(value) for name, value in quoted.items()}
        repo_id = named["repo"]
        if not self.hub.has_repository(repo_id):
            return self._refuse(HTTPStatus.NOT_FOUND, "RepoNotFound")
        found = self.hub.find_commit(repo_id, named["revision"] or "main")
        if found is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        return answer(repo_id, *found, named.get("file", ""))

    def _info(self, repo_id: str, commit: str, folder: Path, _file: str) -> None:
        siblings = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
        self._answer_json({"id": repo_id, "sha": commit, "siblings": siblings, "tags": []})

    def _tree(self, _repo_id: str, _commit: str, folder: Path, _file: str) -> None:
        self._answer_json(
            [
                {
                    "type": "file",
                    "path": path.name,
                    "size": path.stat().st_size,
                    "oid": _blob_id(path),
                }
                for path in sorted(folder.iterdir())
            ]
        )

    def _file(self, repo_id: str, commit: str, folder: Path, file: str) -> None:
        path = folder / file
        if self.hub.gated.get(repo_id) not in (None, self.headers["Authorization"]):
            return self._refuse(HTTPStatus.UNAUTHORIZED, "GatedRepo")
        if not path.is_file():
            return self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob_id(path)}"'}
        content = path.read_bytes()
        if not file.endswith(".safetensors") or self.command == "HEAD":
            if file.endswith(".safetensors") and self.hub.announced_bytes is not None:
                headers["X-Linked-Size"] = str(self.hub.announced_bytes)
            return self._answer(HTTPStatus.OK, content, headers)
        return self._send_weights(content, headers)

    def _send_weights(self, content: bytes, headers: dict[str, str]) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start:
            self.hub.resumed_at.append(start)
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        status = HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK
        if not self.hub.cuts:
            return self._answer(status, content[start:], headers)
        self._answer(status, content[start:], headers, sent_bytes=self.hub.cuts.pop(0))
        self.close_connection = True
        return self.connection.shutdown(socket.SHUT_RDWR)

    def _refuse(self, status: HTTPStatus, error_code: str) -> None:
        self._answer(status, headers={"X-Error-Code": error_code})

    def _answer_json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self._answer(HTTPStatus.OK, body, {"Content-Type": "application/json"})

    def _answer(
        self,
        status: HTTPStatus,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        sent_bytes: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent_bytes])


def _blob_id(path: Path) -> str:
    """Return the hash that git gives the file."""
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def client_environment(url: str, cache: Path) -> dict[str, str]:
    """Return the variables that make huggingface_hub of a new process use this hub and cache."""
    return {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(cache)}


@contextmanager
def point_client_at(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make huggingface_hub of this process use this hub and cache, and drop its connections after.

    It reads the environment only once, so this sets what it read.
    """
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        try:
            yield
        finally:
            close_session()


@contextmanager
def run_hub_server() -> Iterator[HubServer]:
    """Serve an empty hub on a free loopback port until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        hub = HubServer(f"http://127.0.0.1:{server.server_port}")
        server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
