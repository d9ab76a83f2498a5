"""What runs the batches of a loaded tower: the seam between embedder and device."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from app.engine.protocol import Vectors


class Runner(Protocol):
    """A tower with a way to run it, for one thread at a time."""

    @property
    def batches_in_flight(self) -> int:
        """How many batches it gains from having begun at a time."""
        ...

    def enter_thread(self) -> None:
        """Do, in the thread that is going to begin batches, what the first one would wait for."""
        ...

    def warm_up(self, one: Any, max_batch_size: int) -> None:
        """Do once, before the first batch, what would make first batches slow or fail.

        Raises what torch raises, `StartError` for what no smaller batch would help.
        """
        ...

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return the sizes of batches to test: alone, and put together."""
        ...

    def begin(self, inputs: Any, patches_of: int) -> Callable[[], Vectors]:
        """Begin a batch of images or texts; calling the result, once, waits for it.

        The vectors have patches of the first `patches_of` only.
        """
        ...


def run_largest_batches(runner: Runner, one: Any, max_batch_size: int) -> None:
    """Run as many of the largest batches at a time as there will ever be."""
    waits = [
        runner.begin([one] * max_batch_size, max_batch_size)
        for _ in range(runner.batches_in_flight)
    ]
    for wait in waits:
        wait()
