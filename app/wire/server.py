"""The HTTP server: uvicorn, with the choices this service makes."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI

from app.api.context import context_of
from app.settings import Settings
from app.wire.connection import Connection, ConnectionLimits
from app.wire.listeners import url_of
from app.wire.parse_budget import ParseBudget

_log = structlog.get_logger(__name__)

# How often all connections are looked at.
_CHECK_EVERY_S = 0.25
# Longer than proxies keep an idle connection: who closes first loses no request to the other.
_KEEP_ALIVE_S = 75
# For the answers to those whom the end of the grace cuts short.
_LAST_WORDS_S = 1
_LAST_WRITES_S = 0.05
_CLOSE = (b"connection", b"close")


class Server(uvicorn.Server):
    """uvicorn, except in how it looks after connections and how it ends.

    At the first signal the service says `draining` and asks clients to close, but goes on for
    `drain_delay_s`, in which balancers learn of it. Then the listener closes, and what was accepted
    has `grace_s` to finish; the rest is told so. A second signal ends all that at once.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._engine = context_of(app).engine
        self._drain_delay_s = settings.drain_delay_s
        self._grace_s = settings.grace_s
        self._accept_until: float | None = None
        self._checking: asyncio.Task[None] | None = None
        limits = ConnectionLimits(
            head_timeout_s=settings.head_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            max_connections=settings.max_connections,
        )
        self._connection = partial(Connection, limits, ParseBudget())
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", self._connection),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                # By then the connections have been cut short, and had time to say so.
                timeout_graceful_shutdown=settings.grace_s + _LAST_WORDS_S,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGHUP as uvicorn takes SIGTERM, unless it is ignored, as under nohup."""
        with super().capture_signals():
            before = signal.getsignal(signal.SIGHUP)
            if (
                before is signal.SIG_IGN
                or threading.current_thread() is not threading.main_thread()
            ):
                yield
                return
            signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or at the second signal stop."""
        if self._accept_until is None:
            self._engine.drain()
            self._ask_clients_to_close()
            self._accept_until = time.monotonic() + self._drain_delay_s
        else:
            self.force_exit = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, and to look after the connections."""
        await super().startup(sockets)
        if not self.should_exit:  # or the start has failed already, and said so
            for listener in sockets or []:
                _log.info("listening", url=url_of(listener))
        self._checking = asyncio.create_task(self._check_connections())

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to stop accepting; called ten times a second."""
        ending = await super().on_tick(counter)
        accepting = time.monotonic() < (self._accept_until or 0) and not self.force_exit
        return ending and not accepting

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, finish what was accepted, end the application."""
        self._ask_clients_to_close()
        await self._close_listeners(sockets or [])
        asyncio.get_running_loop().call_later(self._grace_s, self._cut_connections_short)
        await super().shutdown(sockets)
        self._cut_connections_short()  # a second signal leaves some
        await asyncio.sleep(_LAST_WRITES_S)

    def _ask_clients_to_close(self) -> None:
        """Add `Connection: close` to all answers from now on."""
        if _CLOSE in self.config.encoded_headers:
            return
        self.config.encoded_headers.append(_CLOSE)
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
        for connection in self._connections():
            connection.ask_to_close()

    async def _close_listeners(self, sockets: list[socket.socket]) -> None:
        """Stop to listen, but accept who has connected by then: a closed listener resets them."""
        accepted = [
            connection
            for server in self.servers
            for listener in server.sockets
            for connection in _accept_all(listener.fileno(), self.config.backlog)
        ]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        make = partial(self._connection, self.config, self.server_state, self.lifespan.state)
        for connection in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)

    def _cut_connections_short(self) -> None:
        for connection in self._connections():
            connection.cut_short()

    async def _check_connections(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            # When the loop itself was held up, clients may have sent what it has not seen yet.
            elapsed_s = min(loop.time() - last, 2 * _CHECK_EVERY_S)
            last = loop.time()
            for connection in self._connections():
                try:
                    connection.check_deadline(elapsed_s)
                except Exception:  # noqa: BLE001 # one connection must not keep the others unchecked
                    _log.exception("a connection could not be checked")

    def _connections(self) -> list[Connection]:
        return [one for one in self.server_state.connections if isinstance(one, Connection)]


def _accept_all(listener: int, limit: int) -> Iterator[socket.socket]:
    """Accept those in the queue of a listener, given its file descriptor."""
    with suppress(OSError), socket.socket(fileno=os.dup(listener)) as queue:
        queue.setblocking(False)
        for _ in range(limit):
            yield queue.accept()[0]
