"""Who may come in: a request whose turn will have come within a time that is worth waiting for.

By Little's law a queue of `rate * wait` keeps the device busy and nobody longer than `wait`.
A fixed number would be minutes of work on one machine and milliseconds on another. Requests take
turns, so what counts is not all that wait, but what comes before the last image of this one. For
texts it is the same.
"""

import math
import random
import threading
from collections.abc import Callable

from app.engine.protocol import Modality
from app.engine.turns import places_ahead
from app.errors import QueueFullError

_TARGET_WAIT_S = 3.0
_MOST = 4096
_AHEAD_WHILE_UNKNOWN = 64
_RETRY_AFTER_S = range(1, 31)


class Permits:
    """The permits of one request, one for each of its images or texts by index."""

    def __init__(self, count: int, give_back: Callable[[set[int], int], None]) -> None:
        self._held = set(range(count))
        self._give_back = give_back

    def release(self, index: int) -> None:
        """Give a permit back, if that has not been done."""
        self._give_back(self._held, index)


class Admission:
    """Permits for images or texts, from before any work until each has its vector or has failed.

    `rate` tells how many a second come out, 0 while unknown. `fixed` is the number that may come
    before a new request's; without it the rate decides, at least `least`.
    """

    def __init__(
        self,
        rate: Callable[[], float],
        *,
        least: int,
        fixed: int | None = None,
        modality: Modality = "image",
    ) -> None:
        self._rate = rate
        self._least = least
        self._fixed = fixed
        self._modality = modality
        self._lock = threading.Lock()
        self._requests = 0
        self.admitted = 0

    @property
    def limit(self) -> int:
        """How many ahead are too many."""
        if self._fixed is not None:
            return self._fixed
        rate = self._rate()
        ahead = math.ceil(rate * _TARGET_WAIT_S) if rate else _AHEAD_WHILE_UNKNOWN
        return min(max(ahead, self._least), _MOST)

    def require_room(self, timeout_s: float, count: int = 1) -> None:
        """Raise `QueueFullError` when a request that can wait `timeout_s` would come in vain.

        The error says when there will be room for it, if nobody else comes.
        """
        ahead, limit, rate = self._ahead_of(count), self.limit, self._rate()
        fewest_too_many = min(limit, math.floor(rate * timeout_s) + 1) if rate else limit
        if ahead < fewest_too_many and self.admitted < max(limit, _MOST):
            return
        wait_s = (ahead - fewest_too_many + 1) / rate if rate else 0.0
        raise QueueFullError(
            f"too many {self._modality}s are waiting: send many {self._modality}s in one request "
            "(/v1/models says how many), few requests at a time, and try again after Retry-After",
            retry_after_s=_retry_after(wait_s),
        )

    def admit(self, count: int, timeout_s: float) -> Permits:
        """Take as many permits as a request has images or texts, or raise `QueueFullError`.

        The last request to find room may go over the limit with all that it has: otherwise small
        requests could keep a large one out for ever. And while a large one fills the queue, there
        is room for small ones, whose turn comes sooner.
        """
        with self._lock:
            self.require_room(timeout_s, count)
            self.admitted += count
            self._requests += 1
        return Permits(count, self._give_back)

    def _ahead_of(self, count: int) -> int:
        return places_ahead(count, self._requests, self.admitted)

    def _give_back(self, held: set[int], index: int) -> None:
        with self._lock:
            if index in held:
                held.remove(index)
                self.admitted -= 1
                self._requests -= not held


def _retry_after(wait_s: float) -> int:
    """Return seconds to wait, spread so that those refused together do not return together."""
    spread = random.random()  # noqa: S311 # no secret
    return min(max(math.ceil(wait_s + spread), _RETRY_AFTER_S[0]), _RETRY_AFTER_S[-1])
