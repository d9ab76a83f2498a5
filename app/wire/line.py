"""The transport of a connection, with what uvicorn's protocol does not know it may not do."""

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any, cast


class Line:
    """A transport, but for how it closes, and for when it reads; it counts what is written.

    It knows of its socket, too, what the event loop has not told yet.
    """

    def __init__(self, transport: asyncio.Transport, hang_up: Callable[[], None]) -> None:
        self._transport = transport
        self._against_reading: set[str] = set()
        self.close = hang_up
        self._written_bytes = 0

    def write(self, data: bytes) -> None:
        """Write, and count it."""
        self._written_bytes += len(data)
        self._transport.write(data)

    @property
    def read_bytes(self) -> int:
        """What the peer, or the system on its way there, has taken."""
        return self._written_bytes - self._transport.get_write_buffer_size()

    def pause_reading(self, reason: str = "flow") -> None:
        """Read no more, for uvicorn's reason or one of ours."""
        self._against_reading.add(reason)
        self._transport.pause_reading()

    def resume_reading(self, reason: str = "flow") -> None:
        """Read on as far as this reason goes: any other still holds."""
        if reason in self._against_reading:
            self._against_reading.remove(reason)
            if not self._against_reading:
                self._transport.resume_reading()

    def end_reading(self) -> None:
        """Never read on: there is nothing but the end, which would be told anew."""
        self._against_reading.add("end")

    def has_unread(self) -> bool:
        """Whether the peer has sent something, or its end, that nobody has read."""
        return self._polls(select.POLLIN)

    def is_reset(self) -> bool:
        """Whether the peer is gone, rather than silent."""
        return self._polls(0)  # which tells of errors whatever it is asked

    def _polls(self, events: int) -> bool:
        if self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(cast("socket.socket", self._transport.get_extra_info("socket")), events)
        return bool(poll.poll(0))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
