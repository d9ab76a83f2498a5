"""Texts beside a full load of images: how long one waits, and what many cost the images.

Sixteen clients send single images, each back to back. Phases take turns: images alone; beside them
one client with one text after another; and sixteen texts a second, whoever still waits.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.client import Answer, Connection, run_on_loop, s_per_answer
from benchmarks.processes import Server
from benchmarks.report import Report, Row
from benchmarks.text_material import unseen_requests
from benchmarks.timing import quantile

_IMAGE_CLIENTS = 16
_TEXTS_PER_S = 16
# Each asks once in so many seconds, which no answer takes.
_TEXT_PERIOD_S = 4
_WARM_UP_S = 3.0


@dataclass
class _Seen:
    """All phases of one kind."""

    images: int = 0
    images_per_s: list[float] = field(default_factory=list)
    text_s: list[float] = field(default_factory=list)
    text_queue_s: list[float] = field(default_factory=list)
    image_forward_s: list[float] = field(default_factory=list)
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
    image_forward_s: list[float] = field(default_factory=list)
    text_s: list[float] = field(default_factory=list)
    text_queue_s: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Forget what was seen while the load built up."""
        for seen in (self.answered_at, self.image_forward_s, self.text_s, self.text_queue_s):
            seen.clear()

    async def send_images(self) -> None:
        """Send one image after another."""
        await self._repeat(itertools.repeat(self.image), self._note_image)

    async def ask_in_sequence(self) -> None:
        """Ask for one text after another."""
        await self._repeat(self.texts, self._note_text)

    async def ask_steadily(self, delay_s: float) -> None:
        """Ask for a text in each period, the first time after a delay."""
        await asyncio.sleep(delay_s)
        await self._repeat(self.texts, self._note_text, _TEXT_PERIOD_S)

    def _note_image(self, answer: Answer) -> None:
        self.answered_at.append(time.monotonic())
        self.image_forward_s.append(_stage_s(answer, "forward"))

    def _note_text(self, answer: Answer) -> None:
        self.text_s.append(answer.latency_s)
        self.text_queue_s.append(_stage_s(answer, "queue"))

    async def _repeat(
        self, requests: Iterator[bytes], note: Callable[[Answer], None], period_s: float = 0.0
    ) -> None:
        connection = await Connection.open(self.server)
        try:
            for request in requests:
                answer = await connection.ask(request)
                latency_s = answer.require_ok()
                note(answer)
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
    second_s = run_on_loop(_time_a_seconds_texts(server))
    report.add_table(
        f"beside {_IMAGE_CLIENTS} clients with one image each, {turns} phases of {phase_s:.0f} s",
        [_row(kind, seen) for kind in kinds],
    )
    _, one, many = seen.values()
    for name, fraction in (("p50", 0.5), ("p99", 0.99)):
        batch_s = quantile(one.image_forward_s, fraction)
        queued_s, text_s = quantile(one.text_queue_s, fraction), quantile(one.text_s, fraction)
        report.find(f"texts.beside_images.queue_{name}_batches", queued_s / batch_s)
        report.find(f"texts.beside_images.{name}_batches", (text_s - idle_s) / batch_s)
    rate = many.rate / seen["nothing"].rate
    report.find("texts.beside_images.seconds_of_texts", second_s)
    report.find("texts.beside_images.image_rate", rate)
    report.find("texts.beside_images.of_arithmetic", rate / (1 - _TEXTS_PER_S * idle_s))


def _row(kind: str, seen: dict[str, _Seen]) -> Row:
    own = seen[kind]
    row: dict[str, str | float | int | None] = {
        "beside them": kind,
        "a batch, p50 ms": 1000 * quantile(own.image_forward_s, 0.5),
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
    phase.begin()
    cpu_s = phase.server.cpu_s()
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    seen.cpu_s += phase.server.cpu_s() - cpu_s
    seen.images += len(phase.answered_at)
    seen.images_per_s.append(1 / s_per_answer(phase.answered_at, seconds))
    seen.text_s += phase.text_s
    seen.text_queue_s += phase.text_queue_s
    seen.image_forward_s += phase.image_forward_s
    for task in tasks:
        if task.done():
            task.result()  # raises what the client died of
        task.cancel()
    await asyncio.wait(tasks)


async def _time_a_seconds_texts(server: Server) -> float:
    """Return the seconds that the texts of a second take alone, in one request."""
    connection = await Connection.open(server)
    try:
        requests = itertools.islice(unseen_requests(seed=3, texts=_TEXTS_PER_S), 5)
        seconds = [(await connection.ask(request)).require_ok() for request in requests]
    finally:
        connection.close()
    return quantile(seconds, 0.5)


def _stage_s(answer: Answer, stage: str) -> float:
    """Read the seconds of a stage from an answer's Server-Timing."""
    _, _, rest = answer.head.lower().partition(f"{stage};dur=".encode())
    return float(re.match(rb"[0-9.]+", rest)[0]) / 1000  # type: ignore[index] # every answer has it
