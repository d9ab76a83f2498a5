"""The batches on the device: how fast they go, and whether the device still answers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.engine.forward import Outcome
from app.engine.job import Ticket
from app.engine.protocol import Modality
from app.engine.running_mean import RunningMean
from app.observe.work import BatchRun

# Weight of the newest batch in the running mean of images, or texts, per second.
_RATE_WEIGHT = 0.2
# A batch that takes longer than both, the second times its expected time, will not come back.
_STALL_S = 60.0
_STALL_FACTOR = 20


@dataclass(eq=False)
class Batch:
    """Images, or texts, that are computed together; `wait` gives an outcome for each, in order."""

    tickets: list[Ticket]
    begun_at: float = field(default_factory=time.monotonic)
    run: BatchRun = field(init=False)
    wait: Callable[[], list[Outcome]] = field(init=False)

    def __post_init__(self) -> None:
        self.run = BatchRun(self.modality, len(self.tickets), self.begun_at)

    @property
    def modality(self) -> Modality:
        """Of what it is."""
        return self.tickets[0][0].modality

    @property
    def queued_at(self) -> float:
        """Since when the first of them has waited."""
        return min(job.queued_at for job, _ in self.tickets)


class InFlight:
    """The batches that have begun and are not settled, oldest first: that one is running.

    One thread changes it, any may ask it. Times are `time.monotonic()` seconds.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.last_finished_at = time.monotonic()
        self._rates: dict[Modality, RunningMean] = {
            "image": RunningMean(_RATE_WEIGHT),
            "text": RunningMean(_RATE_WEIGHT),
        }
        self._running_since: float | None = None
        self._last_ran: tuple[Modality, float] = "image", self.last_finished_at

    def per_second(self, modality: Modality) -> float:
        """Return the running mean of the rate over recent batches; 0 before the first.

        It is the rate at which a line gets shorter: with the other line's turns, where there are.
        """
        return self._rates[modality].value

    @property
    def stalled(self) -> bool:
        """Whether the running batch has been there too long to be hoped for."""
        return self._running_for_s > self._stall_s

    @property
    def stalled_for_good(self) -> bool:
        """Whether it has been there twice as long."""
        return self._running_for_s > 2 * self._stall_s

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Note that the device runs what comes before the first batch: it may stall there, too."""
        self._running_since = time.monotonic()
        try:
            yield
        finally:
            self._running_since = None

    def add(self, batch: Batch) -> None:
        """Note a batch that is about to begin."""
        if not self.batches:
            self._running_since = batch.begun_at
        self.batches.append(batch)

    def finish_oldest(self) -> None:
        """Note that the oldest batch has come back: the next one is running, if there is any."""
        batch = self.batches[0]
        running_since = max(batch.begun_at, self.last_finished_at)
        since = self._others_turn_since(batch, running_since)
        self.last_finished_at = batch.run.ended_at = time.monotonic()
        self._last_ran = batch.modality, running_since
        seconds = max(self.last_finished_at - since, 1e-6)
        self._rates[batch.modality].note(len(batch.tickets) / seconds)
        self._running_since = self.last_finished_at if len(self.batches) > 1 else None

    def remove_oldest(self) -> None:
        """Forget the oldest batch, whose images are settled."""
        del self.batches[0]

    def give_up(self) -> None:
        """Wait no longer for the running batch; should it come back, it is settled as ever."""
        self._running_since = None

    def _others_turn_since(self, batch: Batch, running_since: float) -> float:
        """Return since when a batch waited for one of the other line, or else since when it ran."""
        modality, began_at = self._last_ran
        if modality == batch.modality or batch.queued_at > self.last_finished_at:
            return running_since
        return max(began_at, batch.queued_at)

    @property
    def _running_for_s(self) -> float:
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def _stall_s(self) -> float:
        expected_s = sum(
            len(batch.tickets) / rate
            for batch in self.batches
            if (rate := self.per_second(batch.modality))
        )
        return max(_STALL_S, _STALL_FACTOR * expected_s)
