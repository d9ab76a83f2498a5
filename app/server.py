"""The HTTP server: uvicorn, with the choices this service makes."""

from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.api.context import context_of
from app.settings import Settings

_MAX_HEAD_BYTES = 16 * 2**10


class Server(uvicorn.Server):
    """uvicorn, except that the service says `draining` as soon as it is told to stop."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._engine = context_of(app).engine
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http="h11",  # httptools takes headers of any size
                h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=settings.grace_s,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal in the engine, then do as uvicorn does."""
        self._engine.drain()
        super().handle_exit(sig, frame)
