"""What a request costs the event loop: one refused for what its head tells, and one served.

`python -m benchmarks.refusals [--quick]`

CPU time of the service's main thread, which runs the event loop and nothing else, while requests of
one kind come on four connections. A busy machine disturbs it little. The tiny model and a key; for
the refusals for want of room a queue for one image, which waits for a fuller batch meanwhile.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import Connection, run_on_loop
from benchmarks.material import TINY, encode, photograph_of_size
from benchmarks.messages import embeddings_request, multipart_request
from benchmarks.processes import Server, free_port, running_server
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import quantile

_KEY = "benchmark"
_MAX_BODY_BYTES = 2**20
_CONNECTIONS = 4
# For so long, the longest that can be set, an image waits for others and the queue is full.
_FULL_S = 1.0
_ROUND_S = 0.6
_ENVIRONMENT = {
    "SIGLIP_MODEL": f"random:{TINY}",
    "SIGLIP_DEVICE": "cpu",
    "SIGLIP_API_KEYS": _KEY,
    "SIGLIP_MAX_BODY_BYTES": str(_MAX_BODY_BYTES),
    "SIGLIP_MAX_IMAGE_BYTES": str(_MAX_BODY_BYTES),
}
_FULL = {"SIGLIP_QUEUE_IMAGES": "1", "SIGLIP_MAX_WAIT_MS": f"{1000 * _FULL_S:.0f}"}


@dataclass
class _Case:
    """Requests of one kind, the status that they get, and seconds of CPU for each, by round."""

    name: str
    server: Server
    request: bytes
    status: int
    filler: bytes | None = None
    """What fills the queue."""
    each_s: list[float] = field(default_factory=list)
    requests: int = 0


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refusals", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    show_machine()
    report = Report("refusals")
    with _running({}) as serving, _running(_FULL) as full:
        cases = _cases(serving, full)
        for _ in range(2 if options.quick else options.rounds):
            for case in cases:
                run_on_loop(_measure(case))
    report.add_table("CPU of the event loop", [_describe(case) for case in cases])
    each_ms = {case.name: 1000 * quantile(case.each_s, 0.5) for case in cases}
    report.find("refusals.no_room_ms", each_ms["no room"])
    report.find("refusals.no_room_of_served", each_ms["no room"] / each_ms["served"])
    report.save()


@contextmanager
def _running(more: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    environment = _ENVIRONMENT | more | {"SIGLIP_PORT": str(port)}
    command = ["-m", "app", "serve"]
    with (
        tempfile.TemporaryDirectory() as logs,
        running_server(command, environment, port, "/readyz", Path(logs) / "log") as server,
    ):
        yield server


def _cases(serving: Server, full: Server) -> Sequence[_Case]:
    jpeg = encode(photograph_of_size(640, 480), "JPEG", quality=90)
    without_key = multipart_request("/embed", [jpeg])
    embed = _with_key(without_key)
    embeddings = _with_key(embeddings_request("/v1/embeddings", jpeg))
    return (
        _Case("served", serving, embed, 200),
        _Case("a probe", serving, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        _Case("no room", full, embed, 429, filler=embed),
        _Case("no room, /v1/embeddings", full, embeddings, 429, filler=embed),
        _Case("no key", serving, without_key, 401),
        _Case("too large", serving, _with_key(_announce(_MAX_BODY_BYTES + 1)), 413),
        _Case("no such route", serving, embed.replace(b"/embed", b"/none", 1), 404),
        _Case("no such method", serving, embed.replace(b"POST", b"PUT", 1), 405),
    )


def _with_key(request: bytes) -> bytes:
    return request.replace(b"\r\n", f"\r\nAuthorization: Bearer {_KEY}\r\n".encode(), 1)


def _announce(body_bytes: int) -> bytes:
    """Write the head of a POST, and nothing of its body."""
    head = f"Host: a\r\nContent-Type: image/jpeg\r\nContent-Length: {body_bytes}\r\n\r\n"
    return b"POST /embed HTTP/1.1\r\n" + head.encode()


async def _measure(case: _Case) -> None:
    """Ask for a round, and note what it cost."""
    async with nullcontext() if case.filler is None else _filled(case.server, case.filler):
        before_s = case.server.main_thread_cpu_s()
        counts = await asyncio.gather(*(_ask_again(case) for _ in range(_CONNECTIONS)))
        cpu_s = case.server.main_thread_cpu_s() - before_s
    case.requests += sum(counts)
    case.each_s.append(cpu_s / sum(counts))


@asynccontextmanager
async def _filled(server: Server, filler: bytes) -> AsyncIterator[None]:
    connection = await Connection.open(server)
    filling = asyncio.create_task(connection.ask(filler))
    await asyncio.sleep(_FULL_S / 10)  # it is decoded by then
    yield
    (await filling).require_ok()
    connection.close()


async def _ask_again(case: _Case) -> int:
    """Ask until the round is over, anew on a new connection where the answer closes it."""
    connection = await Connection.open(case.server)
    count, end_at = 0, time.monotonic() + _ROUND_S
    while time.monotonic() < end_at:
        answer = await connection.ask(case.request)
        if answer.status != case.status:
            raise RuntimeError(f"{case.name}: the server answered {answer.status}")
        count += 1
        if b"\r\nconnection: close\r\n" in answer.head.lower():
            connection.close()
            connection = await Connection.open(case.server)
    connection.close()
    return count


def _describe(case: _Case) -> Row:
    return {
        "request": case.name,
        "requests": case.requests,
        "ms each, median round": 1000 * quantile(case.each_s, 0.5),
        "best round": 1000 * min(case.each_s),
    }


if __name__ == "__main__":
    main()
