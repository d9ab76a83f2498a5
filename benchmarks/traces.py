"""What traces cost: CPU of a tiny request without and with them, and of the ways to make a span.

`python -m benchmarks.traces [--rounds 10] [--requests 200]`

Two services with the tiny model take turns, one with traces of every request, which a collector on
the loopback interface takes. CPU is that of all of a service's processes. The ways to make the span
of a request stand around an application that does nothing; the one of OpenTelemetry's contributors
is among them where opentelemetry-instrumentation-asgi is installed.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider

from app import __version__
from app.api.record import RequestRecord
from app.observe.traces import Traces
from app.observe.work import BatchRun, Stage
from benchmarks.client import time_requests
from benchmarks.material import TINY, encode, photograph_of_size, written_checkpoint
from benchmarks.messages import raw_request
from benchmarks.processes import Server, free_port, running_server
from benchmarks.report import Report
from tests.app.trace_collector import TraceCollector, collect_traces

_EXPORT_S = 6  # the SDK exports every five seconds
_CALLS = 2_000
_SPANS = "spans of a request, us of its thread"

App = Callable[[Any, Any, Any], Awaitable[None]]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=200, help="in each round to each")
    options = parser.parse_args()
    report = Report("traces")
    report.add_table(_SPANS, [{"way": way, "us": us} for way, us in _time_ways().items()])
    with written_checkpoint(TINY) as checkpoint, collect_traces() as collector:
        with _running(checkpoint.folder) as off, _running(checkpoint.folder, collector) as on:
            row = _compare((off, on), options)
        report.add_table(f"tiny model, one connection; {len(collector.spans)} spans taken", [row])
    report.find("traces.tiny.cpu_on_of_off", row["on / off"])
    report.save()


@contextmanager
def _running(folder: Path, collector: TraceCollector | None = None) -> Iterator[Server]:
    port = free_port()
    environment = {"SIGLIP_MODEL": str(folder), "SIGLIP_PORT": str(port), "SIGLIP_DEVICE": "cpu"}
    if collector is not None:
        environment |= {
            "SIGLIP_TRACES": "on",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
    log = folder / f"{port}.log"
    command = ("-m", "app", "serve")
    with running_server(command, environment, port, "/readyz", log) as server:
        yield server


def _compare(servers: tuple[Server, Server], options: argparse.Namespace) -> dict[str, float]:
    """Return the CPU of a request to each server, in milliseconds, exports included."""
    request = raw_request("/embed", encode(photograph_of_size(640, 480), "JPEG", quality=90))
    for server in servers:
        time_requests(server, request, options.requests)  # warm
    time.sleep(_EXPORT_S)
    before = [server.cpu_s() for server in servers]
    for turn in range(options.rounds):
        for server in servers if turn % 2 else reversed(servers):
            time_requests(server, request, options.requests)
    time.sleep(_EXPORT_S)
    count = options.rounds * options.requests
    off, on = (
        (server.cpu_s() - used) / count * 1000 for server, used in zip(servers, before, strict=True)
    )
    return {"off, ms": off, "on, ms": on, "on / off": on / off}


def _time_ways() -> dict[str, float]:
    """Return microseconds of the event loop's thread by way, without export."""
    ways = {"request and five below, ours": _own_spans(), "request, FastAPI's": _of_fastapi()}
    with suppress(ImportError):
        ways["request, the contributors'"] = _of_contributors()
    nothing = asyncio.run(_time(_answer))
    return {way: asyncio.run(_time(app)) - nothing for way, app in ways.items()}


async def _time(app: App) -> float:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/embed",
        "raw_path": b"/embed",
        "query_string": b"output=patches",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"content-type", b"image/jpeg")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "root_path": "",
        "asgi": {"version": "3.0"},
    }

    async def exchange(*_: Any) -> None:
        pass

    rounds = []
    for _ in range(5):
        start = time.thread_time()
        for _ in range(_CALLS):
            await app(dict(scope), exchange, exchange)
        rounds.append((time.thread_time() - start) / _CALLS * 1e6)
    return min(rounds)


async def _answer(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def _own_spans() -> App:
    os.environ["OTEL_TRACES_EXPORTER"] = "none"
    traces = Traces(__version__)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        record = RequestRecord()
        trace = traces.begin("POST", scope["headers"], record.started_at, record.work)
        await _answer(scope, receive, send)
        now = time.monotonic()
        record.work.join(BatchRun("image", 1, now, now))
        record.work.stages += [Stage(name, now, now) for name in ("decode", "queue", "forward")]
        described: dict[str, str | int] = {"http.response.status_code": 200, "siglip.images": 1}
        traces.end(trace, "POST /embed", described, [Stage("read", now, now)], record.work)

    return app


def _of_fastapi() -> App:
    app = FastAPI(
        telemetry={
            "tracer_provider": TracerProvider(),
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        }
    )
    app.add_middleware(lambda _: _answer)
    return app


def _of_contributors() -> App:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app: App = OpenTelemetryMiddleware(
        _answer,
        tracer_provider=TracerProvider(),
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["send", "receive"],
    )
    return app


if __name__ == "__main__":
    main()
