"""What the service does with ten times the load it can carry, and how soon it is over it.

`python -m benchmarks.overload [--shape base-patch16-224] [--layers 4] [--quick]`

The offered load is open: requests come at their rate whether or not earlier ones were answered. The
base model is slow enough for a client on the same machine to do that without being in the way; with
fewer layers it is refusing, and the client, that take what is lost.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.client import (
    Answer,
    Connection,
    put_under_load,
    run_on_loop,
    s_per_answer,
    time_requests,
)
from benchmarks.material import BASE, encode, photograph_of_size, written_checkpoint
from benchmarks.processes import Server
from benchmarks.report import Report, show_machine
from benchmarks.services import OURS, Service, running_services
from benchmarks.timing import Timing, quantile

_CONNECTIONS = 16
_FACTOR = 10
_NORMAL = 2.0  # an answer within so many times the idle latency is a normal one
_GIVE_UP_S = 90.0


@dataclass(frozen=True)
class _Outcome:
    """All answers in the seconds of overload with the time each came, and how long until normal."""

    answers: Sequence[tuple[float, Answer]]
    unanswered: int
    seconds: float
    recovery_s: float


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--shape", default=BASE)
    parser.add_argument("--layers", type=int, help="instead of the shape's own: a faster model")
    parser.add_argument("--quick", action="store_true", help="shorter")
    options = parser.parse_args()
    seconds = 10.0 if options.quick else 30.0
    show_machine()
    report = Report("overload")
    jpeg = encode(photograph_of_size(640, 480), "JPEG", quality=90)
    with (
        written_checkpoint(options.shape, options.layers) as checkpoint,
        running_services(checkpoint.folder, jpeg, [OURS], queue_images="auto") as services,
        services[OURS].server.running(),
    ):
        service = services[OURS]
        idle_s = Timing(tuple(time_requests(service.server, service.request, 5))).median_s
        peak = put_under_load(service.server, service.request, _CONNECTIONS, seconds)
        outcome = run_on_loop(_overload(service, _FACTOR / peak.s_per_request, seconds, idle_s))
    _report(report, outcome, 1 / peak.s_per_request, idle_s)
    report.save()


async def _overload(service: Service, rate: float, seconds: float, idle_s: float) -> _Outcome:
    """Offer `rate` requests a second, then ask again and again until answers are normal."""
    free: list[Connection] = []
    answers: list[tuple[float, Answer]] = []

    async def send() -> None:
        connection = free.pop() if free else await Connection.open(service.server)
        answer = await connection.ask(service.request)
        answers.append((time.monotonic(), answer))
        free.append(connection)

    sent: list[asyncio.Task[None]] = []
    start = time.monotonic()
    while (elapsed_s := time.monotonic() - start) < seconds:
        while len(sent) < elapsed_s * rate:
            sent.append(asyncio.create_task(send()))
        await asyncio.sleep(0.002)
    during = list(answers)
    recovery_s = await _recover(service, _NORMAL * idle_s)
    results = await asyncio.gather(*sent, return_exceptions=True)
    for connection in free:
        connection.close()
    failed = sum(isinstance(result, BaseException) for result in results)
    return _Outcome(during, failed, seconds, recovery_s)


async def _recover(service: Service, normal_s: float) -> float:
    """Return the seconds until a request is answered as fast as on an idle service."""
    start = time.monotonic()
    while (elapsed_s := time.monotonic() - start) < _GIVE_UP_S:
        if await _answers_within(service.server, service.request, normal_s):
            return elapsed_s
        await asyncio.sleep(0.1)
    return _GIVE_UP_S


async def _answers_within(server: Server, request: bytes, seconds: float) -> bool:
    connection = await Connection.open(server)
    try:
        async with asyncio.timeout(seconds):
            return (await connection.ask(request)).status == 200
    except TimeoutError:
        return False
    finally:
        connection.close()


def _report(report: Report, outcome: _Outcome, peak: float, idle_s: float) -> None:
    served = [moment for moment, answer in outcome.answers if answer.status == 200]
    refused = [answer for _, answer in outcome.answers if answer.status != 200]
    goodput = 1 / s_per_answer(served, outcome.seconds)
    proper = [a for a in refused if a.status == 429 and b"\r\nretry-after:" in a.head.lower()]
    row = {
        "idle ms": idle_s * 1000,
        "peak/s": peak,
        "goodput/s": goodput,
        "served": len(served),
        "refused": len(refused),
        "of them 429 with Retry-After": len(proper),
        "without answer": outcome.unanswered,
        "normal after s": outcome.recovery_s,
    }
    report.add_table(f"{_FACTOR} times the peak offered", [row])
    report.find("overload.goodput", goodput / peak)
    report.find("overload.recovery_s", outcome.recovery_s)
    turned_away = len(refused) + outcome.unanswered
    if not turned_away:
        report.miss("overload", "nothing was refused: the queue took it all")
        return
    report.find("overload.proper_refusals", len(proper) / turned_away)
    if refused:
        refusal_ms = 1000 * quantile([answer.latency_s for answer in refused], 0.99)
        report.find("overload.refusal_p99_ms", refusal_ms)


if __name__ == "__main__":
    main()
