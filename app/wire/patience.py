"""How long a peer may keep the service waiting.

Nothing is timed per request or per chunk: the server looks at all connections a few times a second,
and a `Patience` adds up for how long each has been waiting for the same thing.
"""

from typing import Literal, NamedTuple

# The longest pause that a peer can earn by sending faster than it must.
_LONGEST_PAUSE_S = 5.0


class Wait(NamedTuple):
    """What a peer is waited for: at most `limit_s`, earlier if too little moves after a grace.

    The grace is patience to begin with: time uses it up, and bytes that the peer sends, or reads of
    its answer, earn more of it.
    A wait for the same thing `of` the same subject goes on; any other is a new one.
    """

    thing: Literal["head", "body", "reading", "goodbye"]
    of: object
    limit_s: float
    grace_s: float


class Patience:
    """The patience with one peer."""

    def __init__(self) -> None:
        self._wait: Wait | None = None
        self._waited_s = 0.0
        self._left_s = 0.0

    def spend(self, wait: Wait | None, elapsed_s: float, earned_s: float) -> bool:
        """Note what the peer is waited for, None for nothing: whether patience has run out.

        `elapsed_s` have passed since the last call, in which the peer has earned some more.
        """
        if wait is None or wait != self._wait:
            self._wait, self._waited_s = wait, 0.0
            self._left_s = _earn(wait.grace_s, earned_s, wait.grace_s) if wait else 0.0
            return False
        self._waited_s += elapsed_s
        self._left_s = _earn(self._left_s, earned_s, wait.grace_s) - elapsed_s
        return self._waited_s >= wait.limit_s or self._left_s <= 0

    def waited_s(self, thing: str) -> float:
        """Return for how long that thing has been waited for."""
        return self._waited_s if self._wait is not None and self._wait.thing == thing else 0.0


def _earn(patience_s: float, earned_s: float, grace_s: float) -> float:
    """Add to a patience, but not beyond the longest pause: a burst must not pay for a minute."""
    longest_s = max(grace_s, _LONGEST_PAUSE_S)
    return max(patience_s, min(patience_s + earned_s, longest_s))
