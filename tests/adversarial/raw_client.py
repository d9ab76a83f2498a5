"""A client that sends bytes when and as it likes, and reads whatever comes back."""

import io
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse

import httpx

WAIT_S = 30
"""Time for what should happen at once, on a busy machine."""


class _Reader(io.BufferedReader):
    def close(self) -> None:
        """Stay open: `HTTPResponse` closes its reader after each answer."""


class RawClient:
    """One connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.opened_at = time.monotonic()
        self._reader = _Reader(socket.SocketIO(self.socket, "r"))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def dribble(self, data: bytes, every_s: float) -> None:
        """Send a byte now and then, until all are sent or the server has something to say."""
        for byte in data:
            if self.hears_something(every_s):
                return
            self.socket.sendall(bytes([byte]))

    def hears_something(self, timeout_s: float = 0) -> bool:
        """Whether an answer, or the end, has arrived."""
        return bool(select.select([self.socket], [], [], timeout_s)[0])

    def read_answer(self, method: str = "GET") -> httpx.Response:
        answer = HTTPResponse(self, method=method)  # type: ignore[arg-type] # it needs no more
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())

    def makefile(self, _: str) -> "_Reader":
        """Where `HTTPResponse` reads; one for all answers, as it may hold the start of the next."""
        return self._reader

    def read_to_the_end(self) -> bytes:
        """Read until the server hangs up, which must not be by a reset."""
        return self._reader.read()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.opened_at

    def close(self) -> None:
        self.socket.close()


@contextmanager
def connect(port: int, count: int = 1) -> Iterator[list[RawClient]]:
    """Open connections and close them at the end."""
    clients: list[RawClient] = []
    try:
        for _ in range(count):
            clients.append(RawClient(port))  # what is open must be closed
        yield clients
    finally:
        for client in clients:
            client.close()


def head(*lines: str, method: str = "POST", path: str = "/embed") -> bytes:
    """Return the head of a request for PNG bytes, with more header lines."""
    first = [f"{method} {path} HTTP/1.1", "Host: a", "Content-Type: image/png"]
    return "\r\n".join([*first, *lines, "", ""]).encode()
