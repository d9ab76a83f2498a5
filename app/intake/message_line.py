"""Messages between the service and a process that decodes for it: a JSON object and bytes."""

import json
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

_LENGTHS = struct.Struct("!IQ")  # of the object's text, of the bytes
# What the service reads comes from a process that a hostile file may have taken over.
_MAX_HEAD_BYTES = 2**16


class Message(NamedTuple):
    """A few named values, and the bytes that go with them."""

    head: dict[str, Any]
    payload: bytearray


class MessageLine:
    """One end of a connected socket; raises `EOFError` or `OSError` once the other end is gone.

    Where the socket does not block, `wait` is called with what to wait for, `select.POLLIN` or
    `select.POLLOUT`; what it raises ends the call.
    """

    def __init__(self, end: socket.socket, wait: Callable[[int], None]) -> None:
        self._end = end
        self._wait = wait

    def send(self, head: dict[str, Any], payload: bytes | bytearray = b"") -> None:
        """Send one message."""
        text = json.dumps(head).encode()
        self._write(_LENGTHS.pack(len(text), len(payload)) + text)
        self._write(payload)

    def receive(self, max_payload_bytes: int = sys.maxsize) -> Message:
        """Wait for one message; raises `ValueError` for one that is not to be believed."""
        text_bytes, payload_bytes = _LENGTHS.unpack(self._read(_LENGTHS.size))
        if text_bytes > _MAX_HEAD_BYTES or payload_bytes > max_payload_bytes:
            raise ValueError("a message of this size does not come from a sound process")
        head = json.loads(self._read(text_bytes))
        return Message(head, self._read(payload_bytes))

    def close(self) -> None:
        """Hang up."""
        self._end.close()

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait for it."""
        return self._end.fileno()

    def _write(self, data: bytes | bytearray) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self._end.send(left) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        left = memoryview(data)
        while left:
            try:
                count = self._end.recv_into(left)
            except BlockingIOError:
                self._wait(select.POLLIN)
                continue
            if not count:
                raise EOFError
            left = left[count:]
        return data
