"""What is noted of one request's work while it is done: how much, how long, in which batches.

Its log line, the metrics and its trace are made of that. All times are `time.monotonic()` seconds.
"""

import time
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Stage(NamedTuple):
    """A part of the work, from when until when."""

    name: str
    start: float
    end: float


@dataclass(slots=True, eq=False)
class BatchRun:
    """A batch on the device: of how many images or texts, from when until when."""

    kind: Literal["image", "text"]
    size: int
    begun_at: float
    ended_at: float | None = None
    """None until it has come back."""
    traces: list[object] = field(default_factory=list)
    """The `Work.trace` of each request in it that has one."""
    trace: object | None = None
    """What stands for the batch itself in traces, once it does."""


@dataclass(slots=True, eq=False)
class Work:
    """The work for one request; it holds what was done also when that ends in an error."""

    images: int = 0
    texts: int = 0
    stages: list[Stage] = field(default_factory=list)
    batches: list[BatchRun] = field(default_factory=list)
    trace: object | None = None
    """What stands for the request in traces; None for one that is not traced."""

    @property
    def stage_s(self) -> dict[str, float]:
        """Seconds by stage; of one that texts and images had at the same time, the longer."""
        seconds: dict[str, float] = {}
        for name, start, end in self.stages:
            seconds[name] = max(end - start, seconds.get(name, 0.0))
        return seconds

    def note(self, stage: str, start: float) -> None:
        """Note a stage that ends now."""
        self.stages.append(Stage(stage, start, time.monotonic()))

    def join(self, batch: BatchRun) -> None:
        """Note a batch that has a part of the work; on the thread that begins it."""
        self.batches.append(batch)
        if self.trace is not None:
            batch.traces.append(self.trace)
