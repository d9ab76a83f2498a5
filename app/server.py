"""The HTTP server: uvicorn, with the choices this service makes."""

import asyncio
import socket
from functools import partial
from types import FrameType
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI

from app.api.context import context_of
from app.connection import Connection, ConnectionLimits
from app.settings import Settings

_log = structlog.get_logger(__name__)

# How often all connections are looked at.
_CHECK_EVERY_S = 0.25


class Server(uvicorn.Server):
    """uvicorn, except that the service says `draining` as soon as it is told to stop."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._engine = context_of(app).engine
        self._checking: asyncio.Task[None] | None = None
        limits = ConnectionLimits(
            head_timeout_s=settings.head_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            max_connections=settings.max_connections,
        )
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=cast("type[asyncio.Protocol]", partial(Connection, limits)),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=settings.grace_s,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and to look after the connections."""
        await super().startup(sockets)
        self._checking = asyncio.create_task(self._check_connections())

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

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal in the engine, then do as uvicorn does."""
        self._engine.drain()
        super().handle_exit(sig, frame)
