"""How often a thread that dies may begin anew."""

import time
from collections import deque

_MOST = 3
_WITHIN_S = 600.0


class Restarts:
    """Counts deaths; dying more often than three times in ten minutes is no accident."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=_MOST + 1)

    def allow_another(self) -> bool:
        """Note a death; tell whether to begin anew."""
        self._deaths.append(time.monotonic())
        often = len(self._deaths) > _MOST
        return not often or self._deaths[-1] - self._deaths[0] >= _WITHIN_S
