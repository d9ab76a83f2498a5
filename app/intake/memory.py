"""A budget for the memory of images being decoded, which threads alone would not keep."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class DecodeMemory:
    """A number of bytes to share, first come first served.

    One WebP of 64 million pixels takes 1 GB: two of them at once must wait for each other, where
    four photographs of a telephone need not.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, wanted_bytes: int) -> Iterator[None]:
        """Hold that many bytes of the budget, after all who asked before; blocks until then.

        Who wants more than there is gets all of it, and so decodes alone.
        """
        share = min(wanted_bytes, self._limit)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(
                lambda: self._waiting[0] is turn and self._used + share <= self._limit
            )
            self._waiting.popleft()
            self._used += share
            self._changed.notify_all()  # the next in line may fit as well
        try:
            yield
        finally:
            with self._changed:
                self._used -= share
                self._changed.notify_all()
