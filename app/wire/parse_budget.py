"""Turns of the event loop: how much all connections together may have parsed in one.

A request is bounded, but the loop is everybody's: what one connection brings in a moment may take
longer to parse than others can wait. So each parses a little at once, which is all that honest
requests need, and goes on when it is its turn again.
"""

import asyncio
from collections import deque
from collections.abc import Callable

EVENTS_AT_ONCE = 4
"""Of one connection: a head, a body, its end, and that no more has come."""
EVENTS_PER_TURN = 1024
"""Of all connections; whoever arrives later waits for the next turn."""
QUEUED_PER_TURN = 4
"""Connections: so that those who wait add half a millisecond to a turn."""


class ParseBudget:
    """Grants of events to parse, and the queue of the connections that need more; of one loop."""

    def __init__(self) -> None:
        self._left_events = EVENTS_PER_TURN
        self._queue: deque[Callable[[], None]] = deque()
        self._is_next_due = False

    def grant(self) -> int:
        """Return how many events a connection may parse now."""
        granted = min(EVENTS_AT_ONCE, self._left_events)
        self._left_events -= granted
        self._have_next()
        return granted

    def queue(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` in a later turn, after those who are waiting."""
        self._queue.append(go_on)
        self._have_next()

    def _have_next(self) -> None:
        if not self._is_next_due:
            self._is_next_due = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_next_due = False
        self._left_events = EVENTS_PER_TURN
        try:
            for _ in range(min(len(self._queue), QUEUED_PER_TURN)):
                self._queue.popleft()()
        finally:
            if self._queue:
                self._have_next()
