"""The images or texts of one request on their way through the model."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from app.engine.forward import Outcome
from app.engine.protocol import Int64Array, Modality, UInt8Array
from app.observe.work import Work


def _ignore(_: int) -> None:
    pass


@dataclass(slots=True, eq=False)
class Job:
    """The images of one request, or its texts, and what becomes of each.

    `future` gives one outcome for each, in order. `on_settled` gets an index as soon as there is an
    outcome, on any thread. `work` is that of its request. The times are `time.monotonic()` seconds.
    """

    inputs: Sequence[UInt8Array | Int64Array]
    patches: bool = False
    modality: Modality = "image"
    on_settled: Callable[[int], None] = _ignore
    work: Work = field(default_factory=Work)
    future: Future[list[Outcome]] = field(default_factory=Future)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    _settling: threading.Lock = field(default_factory=threading.Lock)

    def settle(self, index: int, outcome: Outcome) -> None:
        """Note one outcome; the last one completes the future, unless it was cancelled."""
        with self._settling:  # the inference thread, or whoever closes the batcher under it
            if self.future.done():
                return
            self.outcomes[index] = outcome
            self.on_settled(index)
            complete = len(self.outcomes) == len(self.inputs)
            if complete and self.future.set_running_or_notify_cancel():
                self.future.set_result([self.outcomes[i] for i in range(len(self.inputs))])


Ticket = tuple[Job, int]
"""One image or text of a job: the job, and the place in it."""
