"""Images between requests and the device: which wait, in what order, and which are being computed.

Work-conserving: an idle device takes what is queued at once; while it is busy, the next batch
fills. Where the embedder gains from it, a full batch is begun beside the running one: waiting could
not make it larger. A job whose future is cancelled leaves the queue at once.
"""

import threading
import time

from app.engine.in_flight import Batch, InFlight
from app.engine.job import Job, Ticket
from app.engine.turns import Turns
from app.errors import DrainingError, ServiceError, WorkerDeadError


class BatchQueue:
    """Takes jobs from any thread and gives batches to one.

    It is open until it is closed for a reason, may be opened again, and is stopped for good.
    """

    def __init__(self, *, max_in_flight: int, max_wait_s: float) -> None:
        self.in_flight = InFlight()
        self._max_in_flight = max_in_flight
        self._max_wait_s = max_wait_s
        self._waiting: Turns[Job, int] = Turns()
        self._changed = threading.Condition()
        self._stopping = False
        self._closed_for: type[ServiceError] | None = None

    @property
    def open(self) -> bool:
        """Whether it takes jobs, or has stopped to and still gives out those it has."""
        return self._closed_for is None

    @property
    def stopping(self) -> bool:
        """Whether it takes no more jobs for good."""
        return self._stopping

    @property
    def oldest_age_s(self) -> float:
        """Seconds that the oldest queued image has waited; 0 for an empty queue."""
        with self._changed:
            oldest = self._waiting.oldest
        return 0.0 if oldest is None else time.monotonic() - oldest.queued_at

    def submit(self, job: Job) -> None:
        """Queue all images of a job, or raise why they will not be computed."""
        with self._changed:
            if self._closed_for is not None:
                raise _closing_error(self._closed_for)
            if self._stopping:
                raise _closing_error(DrainingError)
            self._waiting.add(job, range(len(job.pixels)))
            self._changed.notify()
        job.future.add_done_callback(lambda _: self._forget(job))

    def take_batch(self, most: int) -> Batch | None:
        """Take what is to be begun now; None when nothing is, or the queue has been stopped.

        Waits for work only when nothing is in flight. Beside a batch in flight only one of `most`
        images is begun: a smaller one may still grow until that has come back.
        """
        with self._changed:
            if not self.in_flight.batches:
                self._wait_for_images(most)
            elif not self._may_begin_beside(most):
                return None
            if not self._waiting:
                return None
            batch = Batch(self._take(most))
            self.in_flight.add(batch)
            return batch

    def remove_oldest(self) -> None:
        """Forget the oldest batch in flight, whose images are settled."""
        with self._changed:  # whoever fails all goes through the batches
            self.in_flight.remove_oldest()

    def stop(self) -> None:
        """Take no more jobs; what is queued can still be taken out."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def close(self, reason: type[ServiceError]) -> None:
        """Take no more jobs, and fail all that is queued or in flight."""
        with self._changed:
            self._closed_for = self._closed_for or reason
        self.fail_all(reason)

    def reopen_after(self, delay_s: float) -> bool:
        """Wait a while and open again; False when stopped meanwhile."""
        with self._changed:
            if self._changed.wait_for(lambda: self._stopping, delay_s):
                return False
            self._closed_for = None
            return True

    def fail_all(self, reason: type[ServiceError]) -> None:
        """Settle all that is queued or in flight with an error."""
        with self._changed:
            left = [ticket for batch in self.in_flight.batches for ticket in batch.tickets]
            left.extend(self._take(len(self._waiting)))
            if self._closed_for:
                self.in_flight.give_up()
        for job, index in left:
            job.settle(index, _closing_error(reason))

    def _forget(self, job: Job) -> None:
        with self._changed:
            self._waiting.discard(job)

    def _take(self, most: int) -> list[Ticket]:
        return [self._waiting.take() for _ in range(min(most, len(self._waiting)))]

    def _may_begin_beside(self, most: int) -> bool:
        return len(self.in_flight.batches) < self._max_in_flight and len(self._waiting) >= most

    def _wait_for_images(self, most: int) -> None:
        """Wait until there is a batch to take, or the queue has been stopped."""
        while True:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._max_wait_s:
                self._wait_for_fuller_batch(most)
            if self._waiting or self._stopping:  # those who waited may have left
                return

    def _wait_for_fuller_batch(self, most: int) -> None:
        while (oldest := self._waiting.oldest) is not None and not self._stopping:
            left_s = oldest.queued_at + self._max_wait_s - time.monotonic()
            if len(self._waiting) >= most or left_s <= 0 or not self._changed.wait(left_s):
                return


def _closing_error(reason: type[ServiceError]) -> ServiceError:
    if reason is WorkerDeadError:
        return WorkerDeadError("the inference thread is gone", retry_after_s=5)
    return DrainingError("the service is shutting down", retry_after_s=5)
