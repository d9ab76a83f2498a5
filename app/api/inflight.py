"""The bytes of all request bodies, or of all large answers, in memory at one time."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import MemoryFullError

_RETRY_AFTER_S = 1


class InflightBytes:
    """A budget that requests draw on as their bodies arrive; for one event loop.

    What counts of a body is what has arrived, not what was announced: otherwise a few connections
    that announce much and send little would keep everybody out.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.used = 0

    def has_room(self, announced_bytes: int) -> bool:
        """Tell whether a body of that size would fit now; the only body always does."""
        return not self.used or self.used + announced_bytes <= self._limit

    def take(self, arrived_bytes: int) -> None:
        """Count bytes that have arrived, or raise `MemoryFullError`."""
        if arrived_bytes and not self.has_room(arrived_bytes):
            raise self.full()
        self.used += arrived_bytes

    def give_back(self, arrived_bytes: int) -> None:
        """Count bytes of a request that is over."""
        self.used -= arrived_bytes

    @contextmanager
    def held(self, answer_bytes: int) -> Iterator[None]:
        """Count an answer of at most that size as long as it is made and sent.

        Raises `MemoryFullError`.
        """
        self.take(answer_bytes)
        try:
            yield
        finally:
            self.give_back(answer_bytes)

    @staticmethod
    def full() -> MemoryFullError:
        """Make the error that says so."""
        return MemoryFullError(
            "too many bytes are in flight (SIGLIP_INFLIGHT_BYTES)", retry_after_s=_RETRY_AFTER_S
        )
