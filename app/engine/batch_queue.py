"""What waits between requests and the device, in what order, and what is being computed.

Images wait in one line, texts in another, and the two take turns at the device: what somebody
searches for waits for one batch of images at most, and neither keeps the other out.

Work-conserving: an idle device takes what is queued at once; while it is busy, the next batch
fills. Where the embedder gains from it, a full batch is begun beside the running one: waiting could
not make it larger. A job whose future is cancelled leaves the queue at once.
"""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

from app.engine.forward import Outcome
from app.engine.in_flight import Batch, InFlight
from app.engine.job import Job, Ticket
from app.engine.protocol import Modality
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
        self._lines: dict[Modality, Turns[Job, int]] = {"image": Turns(), "text": Turns()}
        self._taken_last: Modality = "image"
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

    def oldest_age_s(self, modality: Modality) -> float:
        """Return how many seconds the oldest in a line has waited; 0 for an empty line."""
        with self._changed:
            oldest = self._lines[modality].oldest
        return 0.0 if oldest is None else time.monotonic() - oldest.queued_at

    def submit(self, job: Job) -> None:
        """Queue all of a job, or raise why they will not be computed."""
        with self._changed:
            if self._closed_for is not None:
                raise _closing_error(self._closed_for)
            if self._stopping:
                raise _closing_error(DrainingError)
            self._lines[job.modality].add(job, range(len(job.inputs)))
            self._changed.notify()
        job.future.add_done_callback(partial(self._forget, job))

    def take_batch(self, most: Mapping[Modality, int]) -> Batch | None:
        """Take what is to be begun now; None when nothing is, or the queue has been stopped.

        Waits for work only when nothing is in flight. Beside a batch in flight one is begun only
        when some line has one as large as it may be: a smaller one may still grow until that has
        come back. Then the line whose turn it is goes, with what it has: the full one waits for it.
        """
        with self._changed:
            if self.in_flight.batches:
                modality = self._pick_beside(most)
            else:
                modality = self._wait_for_work(most)
            if modality is None:
                return None
            self._taken_last = modality
            batch = Batch(self._take(modality, most[modality]))
            self.in_flight.add(batch)
            return batch

    def remove_oldest(self) -> None:
        """Forget the oldest batch in flight, which is settled."""
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
            for modality, line in self._lines.items():
                left.extend(self._take(modality, len(line)))
            if self._closed_for:
                self.in_flight.give_up()
        for job, index in left:
            job.settle(index, _closing_error(reason))

    def _forget(self, job: Job, future: Future[list[Outcome]]) -> None:
        """Take a job out of its line when nobody waits for it; one that is through has left it."""
        if future.cancelled():
            with self._changed:
                self._lines[job.modality].discard(job)

    @property
    def _by_turn(self) -> list[Modality]:
        """The lines in which somebody waits, the one whose turn it is first."""
        waiting = [modality for modality, line in self._lines.items() if line]
        return sorted(waiting, key=lambda modality: modality == self._taken_last)

    def _take(self, modality: Modality, most: int) -> list[Ticket]:
        line = self._lines[modality]
        return [line.take() for _ in range(min(most, len(line)))]

    def _pick_beside(self, most: Mapping[Modality, int]) -> Modality | None:
        by_turn = self._by_turn
        full = any(len(self._lines[modality]) >= most[modality] for modality in by_turn)
        return by_turn[0] if full and len(self.in_flight.batches) < self._max_in_flight else None

    def _wait_for_work(self, most: Mapping[Modality, int]) -> Modality | None:
        """Wait for a line whose batch is to grow no more; None when stopped and all are empty."""
        while True:
            growing_s = {line: self._growing_s(line, most[line]) for line in self._by_turn}
            grown = [line for line, left_s in growing_s.items() if left_s <= 0 or self._stopping]
            if grown or self._stopping:
                return next(iter(grown), None)
            self._changed.wait(min(growing_s.values(), default=None))

    def _growing_s(self, modality: Modality, most: int) -> float:
        """Return for how long a line's next batch is to grow: not at all once it is as large."""
        line = self._lines[modality]
        if line.oldest is None or len(line) >= most:
            return 0.0
        return line.oldest.queued_at + self._max_wait_s - time.monotonic()


def _closing_error(reason: type[ServiceError]) -> ServiceError:
    if reason is WorkerDeadError:
        return WorkerDeadError("the inference thread is gone", retry_after_s=5)
    return DrainingError("the service is shutting down", retry_after_s=5)
