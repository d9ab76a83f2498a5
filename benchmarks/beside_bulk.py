"""One client with single images beside one that sends 64 at a time, back to back.

The first is as polite as can be: one connection, and after a refusal it waits for as long as it was
told. Its waits are told in batches, which are what it waits for: they differ by machine.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import Answer, Connection, run_on_loop, time_requests
from benchmarks.messages import multipart_request, raw_request
from benchmarks.processes import Server
from benchmarks.report import Report
from benchmarks.services import OURS, running_services
from benchmarks.timing import Timing, quantile

_IMAGES = 64
_IDLE_REQUESTS = 9
_MODELS = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass
class _Seen:
    """What both clients saw: seconds of each answer, refusals, and the moments of the single's."""

    bulk_s: list[float] = field(default_factory=list)
    single_s: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def longest_gap_s(self) -> float:
        """Longest time without an answer for single images, up to the end of the last request."""
        pairs = zip(self.answered_at, self.answered_at[1:], strict=False)
        return max(after - before for before, after in pairs)


def report_beside_bulk(report: Report, folder: Path, jpeg: bytes, requests: int) -> None:
    """Measure on the checkpoint in `folder`, with `requests` requests of 64 images, and report."""
    bulk, single = multipart_request("/embed", [jpeg] * _IMAGES), raw_request("/embed", jpeg)
    with running_services(folder, jpeg, [OURS], queue_images="auto") as services:
        server = services[OURS].server
        with server.running():
            batch = run_on_loop(_max_batch_size(server))
            idle = time_requests(server, single, _IDLE_REQUESTS)
            alone = time_requests(server, bulk, requests)
            seen = run_on_loop(_run_both(server, single, bulk, requests))
    _report(report, batch, idle, alone, seen)


def _report(report: Report, batch: int, idle: list[float], alone: list[float], seen: _Seen) -> None:
    alone_per_s, beside_per_s = (_IMAGES / Timing(tuple(s)).median_s for s in (alone, seen.bulk_s))
    p50_s, p99_s = (quantile(seen.single_s, fraction) for fraction in (0.5, 0.99))
    idle_s, batch_s = quantile(idle, 0.5), batch / alone_per_s
    row = {
        "single, idle p50 ms": 1000 * idle_s,
        "beside bulk p50 ms": 1000 * p50_s,
        "p99 ms": 1000 * p99_s,
        "a batch, ms": 1000 * batch_s,
        "answers": len(seen.single_s),
        "refused": seen.refused,
        "longest gap s": seen.longest_gap_s,
        "bulk alone images/s": alone_per_s,
        "beside single": beside_per_s,
    }
    report.add_table(f"single images beside requests of {_IMAGES}, one connection each", [row])
    where = "serving.base.beside_bulk"
    report.find(f"{where}.p50_batches", (p50_s - idle_s) / batch_s)
    report.find(f"{where}.p99_batches", (p99_s - idle_s) / batch_s)
    report.find(f"{where}.longest_gap_s", seen.longest_gap_s)
    report.find(f"{where}.refused", float(seen.refused))
    report.find(f"{where}.bulk_rate", beside_per_s / alone_per_s)


async def _run_both(server: Server, single: bytes, bulk: bytes, requests: int) -> _Seen:
    seen = _Seen()
    asking = asyncio.create_task(_ask_politely(server, single, seen))
    connection = await Connection.open(server)
    try:
        for _ in range(requests):
            seen.bulk_s.append((await connection.ask(bulk)).require_ok())
    finally:
        connection.close()
        asking.cancel()
        await asyncio.wait([asking])
    return seen


async def _ask_politely(server: Server, single: bytes, seen: _Seen) -> None:
    connection = await Connection.open(server)
    try:
        while True:
            answer = await connection.ask(single)
            if answer.status == 429:
                seen.refused += 1
                await asyncio.sleep(_retry_after_s(answer))
                continue
            seen.single_s.append(answer.require_ok())
            seen.answered_at.append(time.monotonic())
    finally:
        connection.close()


async def _max_batch_size(server: Server) -> int:
    connection = await Connection.open(server)
    try:
        answer = await connection.ask(_MODELS)
        return int(json.loads(answer.body)["data"][0]["max_batch_size"])
    finally:
        connection.close()


def _retry_after_s(answer: Answer) -> float:
    _, _, rest = answer.head.lower().partition(b"\r\nretry-after:")
    return float(rest.partition(b"\r\n")[0])
