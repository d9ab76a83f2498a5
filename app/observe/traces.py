"""Traces: the spans of each request, made of its noted work when it is over, sent by OTLP/HTTP.

Imported only where they are on: the packages are an extra. What the `OTEL_*` variables say holds.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode

from app.observe.work import BatchRun, Stage, Work

_log = structlog.get_logger(__name__)

_NAME = "siglip-embed"
# What cannot be sent within that is lost: an end must not wait for a collector that is not there.
_CLOSE_S = 2.0
# Below these the library tells headers that are none in full, those of clients and the one with a
# collector's key, and every export that fails, which `_TellsOnce` says once.
_LOG_LEVELS = {
    "opentelemetry": logging.ERROR,
    "opentelemetry.exporter": logging.CRITICAL,
    "opentelemetry.sdk": logging.WARNING,
}
_CLOCK_STEP_NS = 10**8
# As people know the stages from traces; metrics and Server-Timing have had their names for longer.
_SPAN_NAMES = {"serialize": "render"}

Attributes = dict[str, str | int]
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Trace:
    """A request that has begun: its span, and what makes `time.monotonic()` nanoseconds of 1970."""

    span: Span
    offset_ns: int

    @property
    def context(self) -> SpanContext:
        """What names the span."""
        return self.span.get_span_context()

    def at_ns(self, monotonic_s: float) -> int:
        """Return a moment as spans have it."""
        return int(monotonic_s * 1e9) + self.offset_ns


class Traces:
    """Makes and exports spans; for one event loop. Raises `ValueError` where it cannot be set up.

    The span of a request is begun by the SDK, whose sampler decides. What else belongs to it is
    written down afterwards, at less than half the cost, as it is decided and timed already.
    """

    def __init__(self, version: str) -> None:
        for logger, level in _LOG_LEVELS.items():
            logging.getLogger(logger).setLevel(level)
        self._exporter = None if _exporter_name() == "none" else OTLPSpanExporter()
        self._resource = _OwnResource(version)
        self._provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(_TellsOnce(self._exporter))
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer(_NAME, version)
        self._scope = InstrumentationScope(_NAME, version)
        self._offset_ns = 0

    def begin(self, method: str, headers: Headers, started_at: float, work: Work) -> Trace:
        """Begin the span of a request, in the trace that its headers name, if they do."""
        offset_ns = self._clock_offset_ns()
        span = self._tracer.start_span(
            method,
            extract(headers, getter=_HEADERS),
            SpanKind.SERVER,
            {"http.request.method": method},
            start_time=int(started_at * 1e9) + offset_ns,
        )
        trace = Trace(span, offset_ns)
        if trace.span.is_recording():
            work.trace = trace.context
        return trace

    def end(
        self, trace: Trace, name: str, attributes: Attributes, stages: Sequence[Stage], work: Work
    ) -> None:
        """End the span of a request, and write down its stages and batches."""
        if not trace.span.is_recording():
            return
        batches = [self._write_batch(trace, batch) for batch in work.batches if batch.ended_at]
        for stage in (*stages, *work.stages):
            self._write(
                trace,
                _SPAN_NAMES.get(stage.name, stage.name),
                trace.at_ns(stage.start),
                trace.at_ns(stage.end),
                links=[Link(batch) for batch in batches] if stage.name == "forward" else (),
            )
        trace.span.update_name(name)
        trace.span.set_attributes(attributes)
        if cast("int", attributes.get("http.response.status_code", 0)) >= 500:
            trace.span.set_status(Status(StatusCode.ERROR))
        trace.span.end(trace.at_ns(time.monotonic()))

    def close(self) -> None:
        """Export what is left, within two seconds. Blocks."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        if closing.is_alive() and self._exporter is not None:
            self._exporter.shutdown()  # type: ignore[no-untyped-call] # ends the wait for a retry

    def _clock_offset_ns(self) -> int:
        """Return what makes `time.monotonic()` nanoseconds of 1970, as the clock is set now.

        Other than by steps of the clock it changes by what comes between reading the two, which
        would part the times of a batch from those of its requests.
        """
        offset_ns = time.time_ns() - time.monotonic_ns()
        if abs(offset_ns - self._offset_ns) > _CLOCK_STEP_NS:
            self._offset_ns = offset_ns
        return self._offset_ns

    def _write_batch(self, trace: Trace, batch: BatchRun) -> SpanContext:
        """Write a batch down, unless another of its requests has; return what names it."""
        if batch.trace is None:
            batch.trace = self._write(
                trace,
                "batch",
                trace.at_ns(batch.begun_at),
                trace.at_ns(cast("float", batch.ended_at)),
                {"siglip.kind": batch.kind, "siglip.batch.size": batch.size},
                [Link(request) for request in cast("list[SpanContext]", batch.traces)],
            )
        return cast("SpanContext", batch.trace)

    def _write(
        self,
        trace: Trace,
        name: str,
        start_ns: int,
        end_ns: int,
        attributes: Attributes | None = None,
        links: Sequence[Link] = (),
    ) -> SpanContext:
        """Write down a span below that of a request."""
        parent = trace.context
        own = SpanContext(
            parent.trace_id,
            self._provider.id_generator.generate_span_id(),
            is_remote=False,
            trace_flags=parent.trace_flags,
            trace_state=parent.trace_state,
        )
        self._processor.on_end(
            ReadableSpan(
                name,
                own,
                parent,
                self._resource,
                attributes,
                links=links,
                start_time=start_ns,
                end_time=end_ns,
                instrumentation_scope=self._scope,
            )
        )
        return own


class _HeaderGetter(Getter[Headers]):
    """Reads headers as ASGI has them."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        wanted = key.lower().encode()
        return [value.decode("latin-1") for name, value in carrier if name == wanted] or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_HEADERS = _HeaderGetter()


class _OwnResource(Resource):
    """Names this service, unless the `OTEL_*` variables do.

    The exporter asks for the hash with each span, which else takes half the time of writing it.
    """

    def __init__(self, version: str) -> None:
        named = Resource.create()
        own = {SERVICE_VERSION: version, **named.attributes}
        if str(own[SERVICE_NAME]).startswith("unknown_service"):
            own[SERVICE_NAME] = _NAME
        super().__init__(own, named.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class _TellsOnce(SpanExporter):
    """Logs when exports begin to fail and when they work again, not every one that fails."""

    def __init__(self, exporter: SpanExporter | None) -> None:
        self._exporter = exporter
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._exporter is None:
            return SpanExportResult.SUCCESS
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            _log.warning("traces cannot be exported, and are dropped")
        elif self._failing and not failed:
            _log.info("traces are exported again")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        if self._exporter is not None:
            self._exporter.shutdown()


def _exporter_name() -> str:
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name not in ("otlp", "none"):
        raise ValueError("OTEL_TRACES_EXPORTER may be otlp or none")
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if os.environ.get(variable, "http/protobuf").strip() not in ("", "http/protobuf"):
            raise ValueError(f"{variable} may be http/protobuf only")
    return name
