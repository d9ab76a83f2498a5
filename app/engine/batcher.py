"""One inference thread that turns queued images of many requests into batches.

Work-conserving: an idle device takes what is queued at once; while it is busy, the next batch
fills. Where the embedder gains from it, a full batch is begun beside the running one: waiting could
not make it larger. A job whose future is cancelled is never computed. When the thread's loop dies,
its callers hear of it at once, and after a pause it begins anew; dying often, it is lost for good.
"""

import threading
import time
from collections import deque

import structlog

from app.engine.forward import Forward, Wanted
from app.engine.in_flight import Batch, InFlight
from app.engine.job import Job, Ticket, TicketQueue
from app.engine.protocol import DeviceLostError, Embedder
from app.errors import DrainingError, ServiceError, WorkerDeadError
from app.observe.metrics import batch_size

_log = structlog.get_logger(__name__)

# Long enough for probes to see it.
RESTART_DELAY_S = 5.0
_RESTARTS = 3
_RESTARTS_WITHIN_S = 600.0


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
        self._most_in_flight = embedder.batches_in_flight
        self._max_wait_s = max_wait_s
        self._restart_delay_s = restart_delay_s
        self._deaths: deque[float] = deque(maxlen=_RESTARTS + 1)
        self._queue = TicketQueue()
        self._in_flight = InFlight()
        self._changed = threading.Condition()
        self._stopping = False
        self._closed_with: type[ServiceError] | None = None
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the inference thread still takes work."""
        return self._closed_with is None and self._thread.is_alive()

    @property
    def stalled(self) -> bool:
        """Whether the batch on the device has been there too long to be hoped for."""
        return self._in_flight.stalled

    @property
    def lost(self) -> bool:
        """Whether only a new process will compute again."""
        gone = not self._stopping and not self._thread.is_alive()
        return self._lost or gone or self._in_flight.stalled_for_good

    @property
    def images_per_s(self) -> float:
        """Running mean of the device's rate over recent batches; 0 before the first."""
        return self._in_flight.images_per_s

    @property
    def last_batch_age_s(self) -> float:
        """Seconds since the last batch ended, or since the start."""
        return time.monotonic() - self._in_flight.last_finished_at

    @property
    def oldest_age_s(self) -> float:
        """Seconds that the oldest queued image has waited; 0 for an empty queue."""
        with self._changed:
            since = self._queue.oldest_queued_at
        return 0.0 if since is None else time.monotonic() - since

    def submit(self, job: Job) -> None:
        """Queue all images of a job, or raise when the thread is gone or going."""
        with self._changed:
            if self._closed_with is not None:
                raise _closing_error(self._closed_with)
            if self._stopping:
                raise _closing_error(DrainingError)
            self._queue.add(job)
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
                self._run_batches()
            except BaseException as error:  # noqa: BLE001 # callers must hear of whatever ends it
                _log.critical("inference thread died", exc_info=True)
                self._close(WorkerDeadError)
                self._in_flight.batches.clear()
                hopeless = isinstance(error, DeviceLostError)
            else:
                self._close(DrainingError)
                return
            if not self._may_restart(hopeless=hopeless):
                return

    def _run_batches(self) -> None:
        """Compute until there is nothing left and the thread is to stop."""
        while True:
            if batch := self._take_batch():
                self._begin(batch)
            elif self._in_flight.batches:
                self._finish(self._in_flight.batches[0])
            else:
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
            left = [ticket for batch in self._in_flight.batches for ticket in batch.tickets]
            left.extend(self._queue.take_all())
            if self._closed_with:
                self._in_flight.give_up()
        for job, index in left:
            job.settle(index, _closing_error(reason))

    def _take_batch(self) -> Batch | None:
        """Take what is to be begun now; None when nothing is, or the thread is to stop.

        Waits for work only when nothing is in flight. Beside a batch in flight only a full one is
        begun: a smaller one may still grow until that has come back.
        """
        with self._changed:
            if not self._in_flight.batches:
                tickets = self._wait_for_tickets()
            elif len(self._in_flight.batches) < self._most_in_flight:
                tickets = self._queue.take_exactly(self._forward.batch_limit)
            else:
                return None
            if not tickets:
                return None
            batch = Batch(tickets)
            self._in_flight.add(batch)
            return batch

    def _wait_for_tickets(self) -> list[Ticket]:
        """Wait for work and take at most one batch of it; an empty list means stop."""
        while True:
            self._changed.wait_for(lambda: self._queue or self._stopping)
            if self._max_wait_s:
                self._wait_for_fuller_batch()
            tickets = self._queue.take(self._forward.batch_limit)
            if tickets or self._stopping:
                return tickets

    def _wait_for_fuller_batch(self) -> None:
        while (since := self._queue.oldest_queued_at) is not None and not self._stopping:
            left_s = since + self._max_wait_s - time.monotonic()
            full = len(self._queue) >= self._forward.batch_limit
            if full or left_s <= 0 or not self._changed.wait(left_s):
                return

    def _begin(self, batch: Batch) -> None:
        batch_size.observe(len(batch.tickets))
        for job, _ in batch.tickets:
            job.started_at = job.started_at or batch.begun_at
        batch.wait = self._forward.begin(
            [Wanted(job.pixels[index], job.patches) for job, index in batch.tickets]
        )

    def _finish(self, batch: Batch) -> None:
        outcomes = batch.wait()
        self._in_flight.finish_oldest()
        for (job, index), outcome in zip(batch.tickets, outcomes, strict=True):
            job.settle(index, outcome)
        with self._changed:  # whoever closes the batcher goes through the batches
            self._in_flight.remove_oldest()


def _closing_error(reason: type[ServiceError]) -> ServiceError:
    if reason is WorkerDeadError:
        return WorkerDeadError("the inference thread is gone", retry_after_s=5)
    return DrainingError("the service is shutting down", retry_after_s=5)
