"""The layer around the guard where traces are on: a span for each request, its id in each line."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.api.guard import ROUTINE
from app.api.record import RequestRecord, find_record, keep_record
from app.engine.protocol import StartError
from app.observe.metrics import known_method
from app.observe.work import Stage

if TYPE_CHECKING:
    from app.observe.traces import Attributes, Traces


def add_traces(app: FastAPI, *, wanted: bool) -> Callable[[], None]:
    """Have an application's requests traced, as far as the OTEL_* variables do not switch that off.

    Returns what exports the last spans, and blocks meanwhile. Raises `StartError`.
    """
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return lambda: None
    try:
        from app.observe.traces import Traces  # its packages are an extra

        traces = Traces(__version__)
    except ImportError:
        raise StartError("SIGLIP_TRACES=on needs pip install '.[otel]'") from None
    except ValueError as error:
        raise StartError(f"SIGLIP_TRACES=on: {error}") from error
    app.add_middleware(Traced, traces=traces)
    return traces.close


class Traced:
    """ASGI middleware. What machines ask every few seconds has no span."""

    def __init__(self, app: ASGIApp, traces: "Traces") -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in ROUTINE:
            await self._app(scope, receive, send)
            return
        record = find_record(scope)
        keep_record(scope, record)
        method = known_method(scope["method"])
        trace = self._traces.begin(method, scope["headers"], record.started_at, record.work)
        ids = {
            "trace_id": f"{trace.context.trace_id:032x}",
            "span_id": f"{trace.context.span_id:016x}",
        }
        try:
            with structlog.contextvars.bound_contextvars(**ids):
                await self._app(scope, receive, send)
        finally:
            attributes = _describe(record, method, scope)
            name = f"{method} {record.route}" if record.route else method
            self._traces.end(trace, name, attributes, _reading(record), record.work)


def _describe(record: RequestRecord, method: str, scope: Scope) -> "Attributes":
    """Return what a span tells of a request: from fixed sets, or counted; no word of a client's."""
    found: dict[str, str | int | None] = {
        "http.request.method": method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "url.scheme": scope["scheme"],
        "error.type": record.code,
        "http.request.body.size": record.bytes_in,
        "http.response.body.size": record.bytes_out,
        "siglip.images": record.work.images,
        "siglip.texts": record.work.texts,
    }
    return {name: value for name, value in found.items() if value}


def _reading(record: RequestRecord) -> list[Stage]:
    """Return the stage before the work: a request on its way in, as far as it came."""
    if record.read_at is not None:
        return [Stage("read", record.started_at, record.read_at)]
    return [Stage("read", record.started_at, record.ended_at)] if record.bytes_in else []
