"""The transport of a connection, with what uvicorn's protocol does not know it may not do."""

import asyncio
from collections.abc import Callable
from typing import Any


class Line:
    """A transport, but for how it closes, and for when it reads; it counts what is written."""

    def __init__(self, transport: asyncio.Transport, hang_up: Callable[[], None]) -> None:
        self._transport = transport
        self._reading = True
        self.close = hang_up
        self._is_at_end = False
        self.is_held = False
        self.written_bytes = 0

    def write(self, data: bytes) -> None:
        """Write, and count it."""
        self.written_bytes += len(data)
        self._transport.write(data)

    @property
    def read_bytes(self) -> int:
        """What the peer, or the system on its way there, has taken."""
        return self.written_bytes - self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Read no more, for a reason of uvicorn's."""
        self._reading = False
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless the line is held."""
        self._reading = True
        self._read_if_nothing_is_against_it()

    def hold(self) -> None:
        """Read no more, whatever uvicorn says."""
        self.is_held = True
        self._transport.pause_reading()

    def release(self) -> None:
        """Read on, unless uvicorn has a reason not to."""
        if self.is_held:
            self.is_held = False
            self._read_if_nothing_is_against_it()

    def end_reading(self) -> None:
        """Read no more for good: there is nothing but the end, which would be told anew."""
        self._is_at_end = True

    def _read_if_nothing_is_against_it(self) -> None:
        if self._reading and not self.is_held and not self._is_at_end:
            self._transport.resume_reading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
