"""The images of one request on their way through the model, and where they wait for it."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from app.engine.forward import Outcome
from app.engine.protocol import UInt8Array


@dataclass(slots=True, eq=False)
class Job:
    """The images of one request, and what becomes of each.

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
"""One image of a job: the job, and the image's place in it."""


class TicketQueue:
    """Images that wait to be computed, oldest first; for whoever holds its owner's lock."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()

    def __len__(self) -> int:
        """Return the number of images, those of cancelled jobs among them."""
        return len(self._tickets)

    @property
    def oldest_queued_at(self) -> float | None:
        """Since when the oldest image waits; None for an empty queue."""
        return self._tickets[0][0].queued_at if self._tickets else None

    def add(self, job: Job) -> None:
        """Queue all images of a job."""
        self._tickets.extend((job, index) for index in range(len(job.pixels)))

    def take(self, most: int) -> list[Ticket]:
        """Take the oldest images whose jobs are not cancelled; forget those whose jobs are."""
        tickets: list[Ticket] = []
        while self._tickets and len(tickets) < most:
            ticket = self._tickets.popleft()
            if not ticket[0].future.cancelled():
                tickets.append(ticket)
        return tickets

    def take_exactly(self, number: int) -> list[Ticket]:
        """Take as many as that, or none."""
        if len(self) < number:
            return []
        tickets = self.take(number)
        if len(tickets) == number:
            return tickets
        self._tickets.extendleft(reversed(tickets))
        return []

    def take_all(self) -> list[Ticket]:
        """Take every image, those of cancelled jobs among them."""
        tickets = list(self._tickets)
        self._tickets.clear()
        return tickets
