"""The service over HTTP: against other services, against its own model, and how its cost grows.

`python -m benchmarks.serving [--quick]`

With the tiny model what is left is the service itself; with the base model what counts is how much
of the model's speed arrives at a client, and how long single images wait beside requests of many.
Servers are processes of their own on loopback and take turns; the client shares the machine with
them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from app.observe.logs import configure_logs
from benchmarks.beside_bulk import report_beside_bulk
from benchmarks.chart import can_draw, draw_chart
from benchmarks.client import Load, put_under_load
from benchmarks.growth import growth_rows
from benchmarks.in_process import InProcess
from benchmarks.material import BASE, TINY, encode, photograph_of_size, written_checkpoint
from benchmarks.report import RESULTS, Report, Row, show_machine
from benchmarks.routes import report_routes
from benchmarks.services import (
    OURS,
    PLAIN,
    PLAIN_ONE_THREAD,
    Service,
    installed_services,
    running_services,
)
from benchmarks.timing import Timing, quantile

_CONCURRENCIES = (1, 4, 16, 64)
_ROUNDS_OF_ROUTE = 2  # for each of the services'
_TITLE = "640x480 JPEG, lower quartile of rounds; percentiles over all of them"


@dataclass(frozen=True)
class _Plan:
    """One comparison: how many connections, how long, how often; and requests of many images."""

    shape: str
    concurrencies: Sequence[int]
    window_s: float
    rounds: int
    bulk_requests: int = 0


class _Seen:
    """All windows of one service at one concurrency."""

    def __init__(self) -> None:
        self.loads: list[Load] = []

    def _low(self, values: list[float]) -> float:
        return Timing(tuple(values)).low_s

    @property
    def s_per_request(self) -> float:
        return self._low([load.s_per_request for load in self.loads])

    @property
    def cpu_ms(self) -> float:
        return self._low([1000 * load.server_cpu_s / max(load.requests, 1) for load in self.loads])

    @property
    def client_cpu_ms(self) -> float:
        return self._low([1000 * load.client_cpu_s / max(load.requests, 1) for load in self.loads])

    @property
    def p50_ms(self) -> float:
        return self._low(
            [1000 * quantile(load.latencies_s, 0.5) for load in self.loads if load.requests]
        )

    def percentile_ms(self, fraction: float) -> float:
        return 1000 * quantile([s for load in self.loads for s in load.latencies_s], fraction)


def main() -> None:
    """Measure and report."""
    options = _parse_options()
    configure_logs("error", "console")
    show_machine()
    report = Report("serving")
    jpeg = encode(photograph_of_size(640, 480), "JPEG", quality=90)
    for plan in _plans(options):
        _compare(report, plan, jpeg, largest_request=8 if options.quick else 64)
    report.save()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--only", choices=["tiny", "base"], help="one of the two models")
    parser.add_argument("--rounds", type=int, help="default: tiny 5, base 3, ten minutes each")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    return parser.parse_args()


def _plans(options: argparse.Namespace) -> list[_Plan]:
    if options.quick:
        plans = {"tiny": _Plan(TINY, (1, 16), 2, 2), "base": _Plan(BASE, (16,), 8, 2, 2)}
    else:
        plans = {
            "tiny": _Plan(TINY, _CONCURRENCIES, 4, options.rounds or 5),
            "base": _Plan(BASE, _CONCURRENCIES, 15, options.rounds or 3, 8),
        }
    return [plan for name, plan in plans.items() if options.only in (None, name)]


def _compare(report: Report, plan: _Plan, jpeg: bytes, largest_request: int) -> None:
    with (
        written_checkpoint(plan.shape) as checkpoint,
        running_services(checkpoint.folder, jpeg, installed_services()) as services,
        InProcess.running(checkpoint.folder) as in_process,
    ):
        seen = {(name, c): _Seen() for c in plan.concurrencies for name in services}
        for turn in range(plan.rounds):
            _run_round(services, seen, in_process, plan, turn)
        _report_comparison(report, plan, seen, in_process)
        rows = growth_rows(services[OURS].server, jpeg, largest_request)
        report.add_table(f"{plan.shape}: images in one request, one connection", rows)
        if plan.bulk_requests:
            report_beside_bulk(report, checkpoint.folder, jpeg, plan.bulk_requests)
    report_routes(report, plan.shape, jpeg, plan.window_s / 4, _ROUNDS_OF_ROUTE * plan.rounds)


def _run_round(
    services: dict[str, Service],
    seen: dict[tuple[str, int], _Seen],
    in_process: InProcess,
    plan: _Plan,
    turn: int,
) -> None:
    """Let every service, and the model without one, run for a window at each concurrency."""
    names = list(services)
    first = turn % len(names)
    for connections in plan.concurrencies:
        for name in names[first:] + names[:first]:
            server, request = services[name].server, services[name].request
            with server.running():
                load = put_under_load(server, request, connections, plan.window_s)
            seen[name, connections].loads.append(load)
            if name == OURS:
                in_process.run(plan.window_s)


def _report_comparison(
    report: Report, plan: _Plan, seen: dict[tuple[str, int], _Seen], in_process: InProcess
) -> None:
    size = plan.shape.partition("-")[0]
    report.add_table(f"{plan.shape}: {_TITLE}", _rows(seen))
    for connections in plan.concurrencies:
        ours = seen[OURS, connections]
        where = f"serving.{size}.c{connections}"
        for peer_name, label in ((PLAIN_ONE_THREAD, "plain_one_thread"), (PLAIN, "plain")):
            peer = seen[peer_name, connections]
            report.find(f"{where}.cpu_of_{label}", ours.cpu_ms / peer.cpu_ms)
            report.find(f"{where}.rate_over_{label}", peer.s_per_request / ours.s_per_request)
            report.find(f"{where}.p50_of_{label}", ours.p50_ms / peer.p50_ms)
        report.find(f"{where}.of_in_process", in_process.s_per_image / ours.s_per_request)
        report.find(f"{where}.cpu_of_in_process", ours.cpu_ms / in_process.cpu_ms)
    report.find(f"serving.{size}.in_process_images_per_s", 1 / in_process.s_per_image)
    _draw(plan, seen)


def _rows(seen: dict[tuple[str, int], _Seen]) -> list[Row]:
    return [
        {
            "service": name,
            "concurrency": connections,
            "images/s": 1 / one.s_per_request,
            "p50 ms": one.p50_ms,
            "p95 ms": one.percentile_ms(0.95),
            "p99 ms": one.percentile_ms(0.99),
            "CPU ms per request": one.cpu_ms,
            "client's CPU ms": one.client_cpu_ms,
            "requests": sum(load.requests for load in one.loads),
            "x plain (1 thread)": seen[PLAIN_ONE_THREAD, connections].s_per_request
            / one.s_per_request,
        }
        for (name, connections), one in seen.items()
    ]


def _draw(plan: _Plan, seen: dict[tuple[str, int], _Seen]) -> None:
    if not can_draw() or len(plan.concurrencies) < 2:
        return
    names = list(dict.fromkeys(name for name, _ in seen))
    rates = {n: [(c, 1 / seen[n, c].s_per_request) for c in plan.concurrencies] for n in names}
    p50 = {n: [(c, seen[n, c].p50_ms) for c in plan.concurrencies] for n in names}
    draw_chart(RESULTS / f"serving-{plan.shape}.svg", f"{plan.shape}, 640x480 JPEG", rates, p50)


if __name__ == "__main__":
    main()
