"""One inference thread that turns queued images of many requests into batches.

Work-conserving: an idle device takes what is queued at once; while it is busy, the next batch
fills. A job whose future is cancelled is never computed. When the thread's loop dies, its callers
hear of it at once, and after a pause it begins anew; dying often, it is lost for good.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog

from app.engine.forward import Forward, Outcome, Wanted
from app.engine.protocol import DeviceLostError, Embedder, UInt8Array
from app.engine.running_mean import RunningMean
from app.errors import DrainingError, ServiceError, WorkerDeadError
from app.observe.metrics import batch_size

_log = structlog.get_logger(__name__)

# Weight of the newest batch in the running mean of images per second.
_RATE_WEIGHT = 0.2
# A batch that takes longer than both, the second times its expected time, will not come back.
_STALL_S = 60.0
_STALL_FACTOR = 20
# Long enough for probes to see it.
RESTART_DELAY_S = 5.0
_RESTARTS = 3
_RESTARTS_WITHIN_S = 600.0


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
        embedder: Embedder,
        *,
        max_batch_size: int,
        max_wait_s: float = 0,
        restart_delay_s: float = RESTART_DELAY_S,
    ) -> None:
        self._forward = Forward(embedder, max_batch_size)
        self._max_wait_s = max_wait_s
        self._restart_delay_s = restart_delay_s
        self._deaths: deque[float] = deque(maxlen=_RESTARTS + 1)
        self._queue: deque[Ticket] = deque()
        self._running: list[Ticket] = []
        self._running_since: float | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._closed_with: type[ServiceError] | None = None
        self._lost = False
        self._rate = RunningMean(_RATE_WEIGHT)
        self._last_batch_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the inference thread still takes work."""
        return self._closed_with is None and self._thread.is_alive()

    @property
    def stalled(self) -> bool:
        """Whether the batch on the device has been there too long to be hoped for."""
        return self._running_for_s > self._stall_s

    @property
    def lost(self) -> bool:
        """Whether only a new process will compute again."""
        gone = not self._stopping and not self._thread.is_alive()
        return self._lost or gone or self._running_for_s > 2 * self._stall_s

    @property
    def _running_for_s(self) -> float:
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def _stall_s(self) -> float:
        rate = self.images_per_s
        expected_s = len(self._running) / rate if rate else 0.0
        return max(_STALL_S, _STALL_FACTOR * expected_s)

    @property
    def images_per_s(self) -> float:
        """Running mean of the device's rate over recent batches; 0 before the first."""
        return self._rate.value

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

    def fail_all(self) -> None:
        """Tell everybody who waits that nothing will be computed: the device is stalled."""
        self._fail(WorkerDeadError)

    def _run(self) -> None:
        while True:
            try:
                while batch := self._take_batch():
                    self._compute(batch)
            except BaseException as error:  # noqa: BLE001 # callers must hear of whatever ends it
                _log.critical("inference thread died", exc_info=True)
                self._close(WorkerDeadError)
                hopeless = isinstance(error, DeviceLostError)
            else:
                self._close(DrainingError)
                return
            if not self._may_restart(hopeless=hopeless):
                return

    def _may_restart(self, *, hopeless: bool) -> bool:
        """Wait a while and open again, unless the thread is stopping, or dies all the time."""
        self._deaths.append(time.monotonic())
        often = len(self._deaths) > _RESTARTS
        if hopeless or (often and self._deaths[-1] - self._deaths[0] < _RESTARTS_WITHIN_S):
            self._lost = True
            return False
        with self._changed:
            if self._changed.wait_for(lambda: self._stopping, self._restart_delay_s):
                return False
            self._closed_with = None
        _log.warning("inference thread begins anew")
        return True

    def _close(self, reason: type[ServiceError]) -> None:
        with self._changed:
            self._closed_with = self._closed_with or reason
        self._fail(reason)

    def _fail(self, reason: type[ServiceError]) -> None:
        with self._changed:
            left = [*self._running, *self._queue]
            self._queue.clear()
            self._running_since = None if self._closed_with else self._running_since
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
                limit = self._forward.batch_limit
                while self._queue and len(batch) < limit:
                    ticket = self._queue.popleft()
                    if not ticket[0].future.cancelled():
                        batch.append(ticket)
                if batch or self._stopping:
                    self._running = batch
                    self._running_since = time.monotonic() if batch else None
                    return batch

    def _wait_for_fuller_batch(self) -> None:
        while self._queue and len(self._queue) < self._forward.batch_limit and not self._stopping:
            left_s = self._queue[0][0].queued_at + self._max_wait_s - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                return

    def _compute(self, batch: list[Ticket]) -> None:
        batch_size.observe(len(batch))
        started_at = time.monotonic()
        for job, _ in batch:
            job.started_at = job.started_at or started_at
        outcomes = self._forward.run(
            [Wanted(job.pixels[index], job.patches) for job, index in batch]
        )
        self._last_batch_at = time.monotonic()
        self._rate.note(len(batch) / max(self._last_batch_at - started_at, 1e-6))
        for (job, index), outcome in zip(batch, outcomes, strict=True):
            job.settle(index, outcome)
        self._running, self._running_since = [], None


def _closing_error(reason: type[ServiceError]) -> ServiceError:
    if reason is WorkerDeadError:
        return WorkerDeadError("the inference thread is gone", retry_after_s=5)
    return DrainingError("the service is shutting down", retry_after_s=5)
