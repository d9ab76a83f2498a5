"""Texts beside a full load of images: how long one waits, and what many cost the images.

Sixteen clients send single images, each back to back. Phases take turns: images alone; beside them
one client with one text after another; and sixteen texts a second, whoever still waits.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.client import Connection, run_on_loop, s_per_answer
from benchmarks.processes import Server
from benchmarks.report import Report, Row
from benchmarks.text_material import unseen_requests
from benchmarks.timing import quantile

_IMAGE_CLIENTS = 16
_TEXTS_PER_S = 16
# Each asks once in so many seconds, which no answer takes.
_TEXT_PERIOD_S = 4
_WARM_UP_S = 3.0
_MODELS = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass
class _Seen:
    """All phases of one kind."""

    images: int = 0
    images_per_s: list[float] = field(default_factory=list)
    text_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        return sum(self.images_per_s) / len(self.images_per_s)


@dataclass
class _Phase:
    """One phase: the server, an image's request, and the answers as they come."""

    server: Server
    image: bytes
    texts: Iterator[bytes]
    answered_at: list[float] = field(default_factory=list)
    text_s: list[float] = field(default_factory=list)

    async def send_images(self) -> None:
        """Send one image after another."""
        await self._repeat(itertools.repeat(self.image), self._note_image)

    async def ask_in_sequence(self) -> None:
        """Ask for one text after another."""
        await self._repeat(self.texts, self.text_s.append)

    async def ask_steadily(self, delay_s: float) -> None:
        """Ask for a text in each period, the first time after a delay."""
        await asyncio.sleep(delay_s)
        await self._repeat(self.texts, self.text_s.append, _TEXT_PERIOD_S)

    def _note_image(self, _: float) -> None:
        self.answered_at.append(time.monotonic())

    async def _repeat(
        self, requests: Iterator[bytes], note: Callable[[float], None], period_s: float = 0.0
    ) -> None:
        connection = await Connection.open(self.server)
        try:
            for request in requests:
                latency_s = (await connection.ask(request)).require_ok()
                note(latency_s)
                await asyncio.sleep(max(0.0, period_s - latency_s))
        finally:
            connection.close()


def report_beside_images(
    report: Report, server: Server, image: bytes, idle_s: float, turns: int, phase_s: float
) -> None:
    """Measure and report; `image` is a request, `idle_s` what a text takes on idle cores."""
    kinds: dict[str, Callable[[_Phase], list[Awaitable[None]]]] = {
        "nothing": lambda _: [],
        "a text at a time": lambda phase: [phase.ask_in_sequence()],
        f"{_TEXTS_PER_S} texts/s": lambda phase: [
            phase.ask_steadily(index / _TEXTS_PER_S)
            for index in range(_TEXTS_PER_S * _TEXT_PERIOD_S)
        ],
    }
    texts = unseen_requests(seed=2)
    seen = {kind: _Seen() for kind in kinds}
    for _, (kind, clients) in itertools.product(range(turns), kinds.items()):
        run_on_loop(_run(_Phase(server, image, texts), clients, phase_s, seen[kind]))
    batch, second_s = run_on_loop(_ask_alone(server))
    batch_s = batch / seen["nothing"].rate
    report.add_table(
        f"beside {_IMAGE_CLIENTS} clients with one image each; a batch takes {batch_s:.2f} s",
        [_row(kind, seen) for kind in kinds],
    )
    _, one, many = seen.values()
    for name, fraction in (("p50", 0.5), ("p99", 0.99)):
        waited = (quantile(one.text_s, fraction) - idle_s) / batch_s
        report.find(f"texts.beside_images.{name}_batches", waited)
    rate = many.rate / seen["nothing"].rate
    report.find("texts.beside_images.seconds_of_texts", second_s)
    report.find("texts.beside_images.image_rate", rate)
    report.find("texts.beside_images.of_arithmetic", rate / (1 - second_s))


def _row(kind: str, seen: dict[str, _Seen]) -> Row:
    own = seen[kind]
    row: dict[str, str | float | int | None] = {
        "beside them": kind,
        "images/s": own.rate,
        "of alone": own.rate / seen["nothing"].rate,
        "server's CPU s per image": own.cpu_s / own.images,
        "texts": len(own.text_s),
    }
    for fraction in (0.5, 0.99):
        row[f"p{100 * fraction:.0f} ms"] = (
            1000 * quantile(own.text_s, fraction) if own.text_s else None
        )
    return row


async def _run(
    phase: _Phase,
    text_clients: Callable[[_Phase], list[Awaitable[None]]],
    seconds: float,
    seen: _Seen,
) -> None:
    clients = [phase.send_images() for _ in range(_IMAGE_CLIENTS)]
    tasks = [asyncio.ensure_future(client) for client in [*clients, *text_clients(phase)]]
    await asyncio.sleep(_WARM_UP_S)
    phase.answered_at.clear()
    phase.text_s.clear()
    cpu_s = phase.server.cpu_s()
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    seen.cpu_s += phase.server.cpu_s() - cpu_s
    seen.images += len(phase.answered_at)
    seen.images_per_s.append(1 / s_per_answer(phase.answered_at, seconds))
    seen.text_s += phase.text_s
    for task in tasks:
        if task.done():
            task.result()  # raises what the client died of
        task.cancel()
    await asyncio.wait(tasks)


async def _ask_alone(server: Server) -> tuple[int, float]:
    """Return the size of a batch of images, and the seconds that a second's texts take alone."""
    connection = await Connection.open(server)
    try:
        described = json.loads((await connection.ask(_MODELS)).body)["data"][0]
        requests = itertools.islice(unseen_requests(seed=3, texts=_TEXTS_PER_S), 5)
        seconds = [(await connection.ask(request)).require_ok() for request in requests]
    finally:
        connection.close()
    return int(described["max_batch_size"]), quantile(seconds, 0.5)
