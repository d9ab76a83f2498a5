"""One client's connection, which waits for no peer for ever.

A peer is given a time for a request's head, for its body, for reading the answer, and for hanging
up. Nothing is timed per request or per chunk: the server calls `check_deadline` of every connection
a few times a second, which derives from the parser's state whom the connection waits for. Time in
which the server itself keeps the peer waiting does not count.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

import h11

from app.errors import RequestTimeoutError, TooManyConnectionsError
from app.wire.patience import Patience, Wait
from app.wire.protocol import HttpProtocol

# The least pace of a body, on average over the latest seconds and after a grace for slow starters.
_LEAST_BYTES_PER_S = 16 * 2**10
_BODY_GRACE_S = 3.0
# The least pace at which an answer must be read, on average and after the time for a body.
_LEAST_READ_BYTES_PER_S = 2**17
# How long a peer may take to hang up once it is told to; what it goes on sending earns it more.
_GOODBYE_S = 0.5


@dataclass(frozen=True)
class ConnectionLimits:
    """Seconds for a head and for a body; open connections in total."""

    head_timeout_s: float
    body_timeout_s: float
    max_connections: int


class Connection(HttpProtocol):
    """A connection with limits of time, and of how many there may be."""

    def __init__(self, limits: ConnectionLimits, *arguments: Any, **named_arguments: Any) -> None:
        super().__init__(*arguments, **named_arguments)
        self._limits = limits
        self._patience = Patience()
        self._goodbye_limit_s = limits.body_timeout_s
        self._received_bytes = 0  # since the deadline was last checked
        self._read_bytes = 0  # by the peer, when it was last checked

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, or turn it away when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._answer(TooManyConnectionsError("too many connections", retry_after_s=1))
            self._leaving = True
            transport.close()  # at once: a peer that is waited for would take a place all the same

    def data_received(self, data: bytes) -> None:
        """Count what arrived, and parse it."""
        self._received_bytes += len(data)
        super().data_received(data)

    def check_deadline(self, elapsed_s: float) -> None:
        """Note that `elapsed_s` have passed; end the connection if its peer takes too long."""
        wait = self._awaited()
        earned_s = self._earned_s(wait)
        if self._keeps_waiting(wait):
            elapsed_s = 0.0
        if self._is_half_closed:
            self._abort_if_reset()
        if self._patience.spend(wait, elapsed_s, earned_s) and wait is not None:
            self._give_up(wait)

    def _awaited(self) -> Wait | None:
        """Say what the peer is waited for now, None when it is the peer who waits."""
        head_s, body_s = self._limits.head_timeout_s, self._limits.body_timeout_s
        if self._transport.get_write_buffer_size():
            return Wait("reading", None, math.inf, body_s)
        if self._leaving:
            return Wait("goodbye", None, self._goodbye_limit_s, _GOODBYE_S)
        if self.conn.their_state is h11.SEND_BODY:
            return Wait("body", self.cycle, body_s, _BODY_GRACE_S)
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            return Wait("head", self.cycle, head_s, head_s)
        return None

    def _earned_s(self, wait: Wait | None) -> float:
        """Return what has moved since the last time, as seconds at the least pace."""
        received, self._received_bytes = self._received_bytes, 0
        before = self._read_bytes
        self._read_bytes = self._line.read_bytes
        if wait is not None and wait.thing == "reading":
            return (self._read_bytes - before) / _LEAST_READ_BYTES_PER_S
        return received / _LEAST_BYTES_PER_S

    def _keeps_waiting(self, wait: Wait | None) -> bool:
        """Whether what a peer is waited for does not come because we do not take it yet."""
        if wait is None or wait.thing not in ("head", "body"):
            return False
        serving = self._serving
        asked_for = serving is None or not serving.waiting_for_100_continue
        return self._is_queued or self.flow.read_paused or not asked_for

    def _give_up(self, wait: Wait) -> None:
        if wait.thing in ("head", "body"):
            self._goodbye_limit_s = _GOODBYE_S  # it has had its time, whatever it goes on sending
            self._refuse(RequestTimeoutError(f"the request's {wait.thing} came too slowly"))
        else:
            self._transport.abort()

    def _leave(self) -> None:
        rest_s = self._goodbye_limit_s - self._patience.waited_s("body")  # one time for all of it
        self._goodbye_limit_s = max(rest_s, _GOODBYE_S)
        super()._leave()
