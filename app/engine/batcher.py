"""One inference thread that turns queued images of many requests into batches.

Work-conserving: an idle device takes what is queued at once; while it is busy, the next batch
fills. A job whose future is cancelled is never computed.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import structlog

from app.engine.protocol import Float32Array, UInt8Array, Vectors
from app.errors import (
    DrainingError,
    InternalError,
    NonFiniteError,
    ServiceError,
    WorkerDeadError,
)

_log = structlog.get_logger(__name__)

# Weight of the newest batch in the running mean of images per second.
_RATE_WEIGHT = 0.2


class ImageVectors(NamedTuple):
    """The vectors of one image: pooled (dim,), patches (patches, dim) or None."""

    pooled: Float32Array
    patches: Float32Array | None


Outcome = ImageVectors | ServiceError


@dataclass(slots=True, eq=False)
class Job:
    """The images of one request on their way through the model.

    `future` gives one outcome per image, in order. The times are `time.monotonic()` seconds.
    """

    pixels: Sequence[UInt8Array]
    patches: bool
    future: Future[list[Outcome]] = field(default_factory=Future)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    _settling: threading.Lock = field(default_factory=threading.Lock)

    def settle(self, index: int, outcome: Outcome) -> None:
        """Note one image's outcome; the last one completes the future, unless it was cancelled."""
        with self._settling:  # the inference thread, or whoever closes the batcher under it
            if self.future.done():
                return
            self.outcomes[index] = outcome
            complete = len(self.outcomes) == len(self.pixels)
            if complete and self.future.set_running_or_notify_cancel():
                self.future.set_result([self.outcomes[i] for i in range(len(self.pixels))])


Ticket = tuple[Job, int]


class Batcher:
    """Queue, batches and the thread that owns the model. Start it once, stop it once."""

    def __init__(
        self,
        embed: Callable[[UInt8Array, bool], Vectors],
        *,
        max_batch_size: int,
        max_wait_s: float = 0,
    ) -> None:
        self._embed = embed
        self._max_batch_size = max_batch_size
        self._max_wait_s = max_wait_s
        self._queue: deque[Ticket] = deque()
        self._running: list[Ticket] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._closed_with: type[ServiceError] | None = None
        self._images_per_s = 0.0
        self._last_batch_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the inference thread still takes work."""
        return self._closed_with is None

    @property
    def images_per_s(self) -> float:
        """Running mean of the device's rate over recent batches; 0 before the first."""
        return self._images_per_s

    @property
    def last_batch_age_s(self) -> float:
        """Seconds since the last batch ended, or since the start."""
        return time.monotonic() - self._last_batch_at

    @property
    def oldest_age_s(self) -> float:
        """Seconds that the oldest queued image has waited; 0 for an empty queue."""
        with self._changed:
            return time.monotonic() - self._queue[0][0].queued_at if self._queue else 0.0

    def submit(self, job: Job) -> None:
        """Queue all images of a job, or raise when the thread is gone or going."""
        with self._changed:
            if self._closed_with is not None:
                raise _closing_error(self._closed_with)
            if self._stopping:
                raise _closing_error(DrainingError)
            self._queue.extend((job, index) for index in range(len(job.pixels)))
            self._changed.notify()

    def stop(self, timeout_s: float) -> None:
        """Finish what is queued within `timeout_s`; what is left then gets `DrainingError`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)
        self._close(DrainingError)

    def _run(self) -> None:
        try:
            while batch := self._take_batch():
                self._compute(batch)
        except BaseException:  # noqa: BLE001 # whatever ends the thread, its callers must hear of it
            _log.critical("inference thread died", exc_info=True)
            self._close(WorkerDeadError)
        else:
            self._close(DrainingError)

    def _close(self, reason: type[ServiceError]) -> None:
        with self._changed:
            self._closed_with = self._closed_with or reason
            left = [*self._running, *self._queue]
            self._queue.clear()
        for job, index in left:
            job.settle(index, _closing_error(reason))

    def _take_batch(self) -> list[Ticket]:
        """Wait for work and take at most one batch of it; an empty list means stop."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if self._max_wait_s:
                    self._wait_for_fuller_batch()
                batch: list[Ticket] = []
                while self._queue and len(batch) < self._max_batch_size:
                    ticket = self._queue.popleft()
                    if not ticket[0].future.cancelled():
                        batch.append(ticket)
                if batch or self._stopping:
                    self._running = batch
                    return batch

    def _wait_for_fuller_batch(self) -> None:
        while self._queue and len(self._queue) < self._max_batch_size and not self._stopping:
            left_s = self._queue[0][0].queued_at + self._max_wait_s - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                return

    def _compute(self, batch: list[Ticket]) -> None:
        started_at = time.monotonic()
        for job, _ in batch:
            job.started_at = job.started_at or started_at
        outcomes = self._embed_or_bisect(batch)
        self._last_batch_at = time.monotonic()
        self._note_rate(len(batch) / max(self._last_batch_at - started_at, 1e-6))
        self._running = []
        for (job, index), outcome in zip(batch, outcomes, strict=True):
            job.settle(index, outcome)

    def _note_rate(self, images_per_s: float) -> None:
        weight = _RATE_WEIGHT if self._images_per_s else 1.0
        self._images_per_s += weight * (images_per_s - self._images_per_s)

    def _embed_or_bisect(self, batch: list[Ticket]) -> list[Outcome]:
        """Compute a batch; when it fails, its halves, so that only the culprit's image fails."""
        try:
            pixels = np.stack([job.pixels[index] for job, index in batch])
            vectors = self._embed(pixels, any(job.patches for job, _ in batch))
            return [_row(vectors, row, job.patches) for row, (job, _) in enumerate(batch)]
        except Exception as error:  # noqa: BLE001 # the thread must outlive any model fault
            _log.error("batch failed", images=len(batch), error=type(error).__name__, exc_info=True)
            if len(batch) == 1:
                return [InternalError("the model failed on this image")]
            middle = len(batch) // 2
            halves = batch[:middle], batch[middle:]
            return [outcome for half in halves for outcome in self._embed_or_bisect(half)]


def _row(vectors: Vectors, row: int, patches: bool) -> Outcome:
    pooled = vectors.pooled[row]
    own_patches = vectors.patches[row] if patches and vectors.patches is not None else None
    if not np.isfinite(pooled).all() or not (own_patches is None or np.isfinite(own_patches).all()):
        return NonFiniteError("the model gave a vector that is not finite")
    if not pooled.any():
        return NonFiniteError("the model gave a vector of length zero, which has no direction")
    return ImageVectors(pooled, own_patches)


def _closing_error(reason: type[ServiceError]) -> ServiceError:
    if reason is WorkerDeadError:
        return WorkerDeadError("the inference thread is gone", retry_after_s=5)
    return DrainingError("the service is shutting down", retry_after_s=5)
