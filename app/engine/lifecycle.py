"""The engine's life: loading, ready, draining; and what of it goes wrong."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Literal

from app.engine.protocol import SelfTestError
from app.engine.service import EmbeddingService
from app.errors import NotReadyError, WorkerDeadError

Status = Literal["ok", "loading", "draining", "dead", "stalled", "selftest_failed", "failed"]

_WATCH_EVERY_S = 0.5
# By then whoever closes it has let accepted work finish; this is for the batch on the device.
_LAST_BATCH_S = 5.0


class Engine:
    """Holds the service from the moment the model is loaded; tells the truth until then.

    `build` makes it of what `start` is told to load.
    """

    def __init__(self, build: Callable[[Any], EmbeddingService]) -> None:
        self._build = build
        self._service: EmbeddingService | None = None
        self._failed_with: Exception | None = None
        self._draining = False
        self._started_at = time.monotonic()

    @property
    def status(self) -> Status:
        """What /healthz says."""
        if self._failed_with is not None:
            return "selftest_failed" if isinstance(self._failed_with, SelfTestError) else "failed"
        if self._draining:
            return "draining"
        if self._service is None:
            return "loading"
        if self._service.stalled:
            return "stalled"
        return "ok" if self._service.batcher.alive else "dead"

    @property
    def needs_restart(self) -> bool:
        """Whether only a new process will compute again: what supervisors act on."""
        return self.status in ("dead", "stalled")

    @property
    def uptime_s(self) -> float:
        """Seconds since the engine was made."""
        return time.monotonic() - self._started_at

    @property
    def service(self) -> EmbeddingService | None:
        """The service, once its model is loaded."""
        return self._service

    def require_service(self) -> EmbeddingService:
        """Return the service, or raise the error that says why there is none to use."""
        status = self.status
        if self._failed_with is not None:
            raise NotReadyError("the model could not be loaded", retry_after_s=30)
        if self._service is None:
            raise NotReadyError("the model is not loaded yet", retry_after_s=5)
        if status == "dead":
            raise WorkerDeadError("the inference thread is gone", retry_after_s=5)
        if status == "stalled":
            raise WorkerDeadError("the engine does not answer", retry_after_s=30)
        return self._service

    async def start(self, load: Callable[[], Any]) -> None:
        """Load the model in a thread and begin to serve it; raises what `load` raises."""
        try:
            self._service = self._build(await asyncio.to_thread(load))
        except Exception as error:
            self._failed_with = error
            raise

    async def watch(self) -> None:
        """Return when only a new process will compute again; until then nobody waits in vain."""
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            if self._service is None:
                continue
            if self._service.batcher.stalled:
                self._service.batcher.fail_all()
            if self._service.lost:
                return

    def drain(self) -> None:
        """Say `draining` from now on; accepted requests are still served."""
        self._draining = True

    async def close(self, timeout_s: float = _LAST_BATCH_S) -> None:
        """Finish accepted work within `timeout_s` and end all threads."""
        self.drain()
        if self._service is not None:
            await asyncio.to_thread(self._service.close, timeout_s)
