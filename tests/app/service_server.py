"""The service behind a real socket: uvicorn in a thread on a free loopback port."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPResponse

import httpx
import uvicorn
from fastapi import FastAPI

from app.api.context import ApiContext, context_of, set_context
from app.engine.lifecycle import Engine
from app.engine.protocol import NO_TEXTS, Embedder, NoTexts, TextEmbedder
from app.intake.fetch import Fetcher
from app.main import create_app
from app.settings import Settings
from app.wire.server import Server

_WAIT_S = 30


@dataclass(frozen=True)
class ServiceServer:
    """A running service: a client for it, its application, its address, and what runs it."""

    client: httpx.Client
    app: FastAPI
    port: int
    server: Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> Engine:
        context: ApiContext = self.app.state.context
        return context.engine

    def wait_for_status(self, status: str) -> httpx.Response:
        """Ask /healthz until it says `status`."""
        give_up_at = time.monotonic() + _WAIT_S
        while True:
            answer = self.client.get("/healthz")
            if answer.json()["status"] == status:
                return answer
            assert time.monotonic() < give_up_at, f"never {status}: {answer.text}"
            time.sleep(0.01)

    def ask_raw(self, request: bytes) -> httpx.Response:
        """Send bytes as they are and read the one answer to them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=_WAIT_S) as connection:
            connection.sendall(request)
            with HTTPResponse(connection) as answer:
                answer.begin()
                return httpx.Response(
                    answer.status, headers=answer.getheaders(), content=answer.read()
                )


@contextmanager
def run_service(
    settings: Settings,
    embedder: Embedder | None = None,
    fetcher: Fetcher | None = None,
    texts: TextEmbedder | NoTexts = NO_TEXTS,
) -> Iterator[ServiceServer]:
    """Serve until the block ends; without an embedder the model may still be loading.

    A `fetcher` takes the place of the service's own.
    """
    app = create_app(settings, embedder, texts)
    if fetcher is not None:
        set_context(app, replace(context_of(app), fetcher=fetcher))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    server = Server(app, settings)
    thread = threading.Thread(target=server.run, args=([listener],), name="test-server")
    thread.start()
    try:
        _wait_until_started(server, thread)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=_WAIT_S, trust_env=False
        ) as client:
            yield ServiceServer(client, app, port, server)
    finally:
        server.should_exit = True
        thread.join(_WAIT_S)
        listener.close()
    assert not thread.is_alive(), "the server did not stop"


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    give_up_at = time.monotonic() + _WAIT_S
    while not server.started:
        assert thread.is_alive(), "the server ended while starting"
        assert time.monotonic() < give_up_at, "the server did not start"
        time.sleep(0.005)
