"""An HTTP client on plain streams: requests are bytes made beforehand.

It shares the machine with the server, so it must cost little; what it costs is measured too.
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import uvloop

from benchmarks.processes import Server

_ANSWER_TIMEOUT_S = 120

Result = TypeVar("Result")


@dataclass(frozen=True)
class Load:
    """What one window of load saw, once every connection had its first answer."""

    latencies_s: tuple[float, ...]
    s_per_request: float
    server_cpu_s: float
    client_cpu_s: float

    @property
    def requests(self) -> int:
        """How many answers came within the window."""
        return len(self.latencies_s)


@dataclass
class _Window:
    """Answers as they come: time of the end, and latency. `begin` and `end` are monotonic."""

    seconds: float
    answered: list[tuple[float, float]] = field(default_factory=list)
    begin: float | None = None

    @property
    def over(self) -> bool:
        return self.begin is not None and time.monotonic() > self.begin + self.seconds


@dataclass(frozen=True)
class Answer:
    """Status and headers of an answer, and the seconds from the request's first byte to its end."""

    status: int
    head: bytes
    body: bytes
    latency_s: float

    def require_ok(self) -> float:
        """Return the latency of a 200; anything else raises."""
        if self.status != 200:
            raise RuntimeError(f"the server answered {self.status}: {self.body[:300]!r}")
        return self.latency_s


class Target(Protocol):
    """A server as a client sees it: on loopback, and in /proc."""

    @property
    def port(self) -> int:
        """Where it listens."""
        ...

    def cpu_s(self) -> float:
        """Return the CPU seconds that it has taken so far."""
        ...


class Connection:
    """One keep-alive connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, server: Target) -> Self:
        """Connect to a server."""
        return cls(*await asyncio.open_connection("127.0.0.1", server.port, limit=2**22))

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read the answer."""
        start = time.monotonic()
        self._writer.write(request)
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            body = await self._reader.readexactly(_content_length(head))
        return Answer(int(head[9:12]), head, body, time.monotonic() - start)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def put_under_load(server: Target, request: bytes, connections: int, seconds: float) -> Load:
    """Send the same request over and over on some connections, each waiting for its answer."""
    return run_on_loop(_load(server, request, connections, seconds))


def time_requests(server: Server, request: bytes, count: int) -> list[float]:
    """Send a request `count` times on one connection; return the latencies in seconds."""

    async def run() -> list[float]:
        connection = await Connection.open(server)
        try:
            return [(await connection.ask(request)).require_ok() for _ in range(count)]
        finally:
            connection.close()

    return run_on_loop(run())


def run_on_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on the event loop that costs the client least."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _load(server: Target, request: bytes, connections: int, seconds: float) -> Load:
    window = _Window(seconds)
    workers = [asyncio.create_task(_worker(server, request, window)) for _ in range(connections)]
    while len(window.answered) < connections:  # warm-up
        await _check(workers)
    window.answered.clear()
    server_cpu_s, client_cpu_s = server.cpu_s(), time.process_time()
    window.begin = time.monotonic()
    while not window.over:
        await _check(workers)
    answered = list(window.answered)
    server_cpu_s, client_cpu_s = server.cpu_s() - server_cpu_s, time.process_time() - client_cpu_s
    await asyncio.gather(*workers)
    return Load(
        latencies_s=tuple(latency for _, latency in answered),
        s_per_request=s_per_answer([moment for moment, _ in answered], seconds),
        server_cpu_s=server_cpu_s,
        client_cpu_s=client_cpu_s,
    )


async def _check(workers: list[asyncio.Task[None]]) -> None:
    """Wait a moment; raise what a worker died of, so that nobody waits for its answers."""
    done, _ = await asyncio.wait(workers, timeout=0.02, return_when=asyncio.FIRST_EXCEPTION)
    for worker in done:
        worker.result()


async def _worker(server: Target, request: bytes, window: _Window) -> None:
    connection = await Connection.open(server)
    try:
        while not window.over:
            latency_s = (await connection.ask(request)).require_ok()
            window.answered.append((time.monotonic(), latency_s))
    finally:
        connection.close()


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0])


def s_per_answer(moments: list[float], seconds: float) -> float:
    """Return the seconds per answer: one over the slope of the line through all of them.

    Answers come in bursts, a batch at a time; counting them in a window of ten bursts would be off
    by up to one burst, the slope hardly is. Where bursts are rarer than that, counting has to do.
    """
    if not moments or moments[-1] - moments[0] < 0.7 * seconds:
        return seconds / max(len(moments), 1)
    slope, _ = np.polyfit(np.asarray(moments) - moments[0], np.arange(len(moments)), 1)
    return float(1 / slope)
