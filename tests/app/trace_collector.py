"""A collector of traces on the loopback interface: what is exported by OTLP/HTTP, taken apart."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

Value = str | int


class TraceCollector:
    """What has been exported to `url`, which is what OTEL_EXPORTER_OTLP_ENDPOINT should be.

    Set `status` to have exports answered with another. `headers` are those of the last one.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.exports = 0
        self.headers: dict[str, str] = {}
        self._received: list[ResourceSpans] = []

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Take an export, and return the status to answer with."""
        self.exports += 1
        assert path == "/v1/traces"
        self.headers = headers
        if self.status == 200:
            self._received.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
        return self.status

    def has_more_than(self, exports: int) -> bool:
        """Tell whether there have been more exports than that."""
        return self.exports > exports

    @property
    def resource(self) -> dict[str, Value]:
        """What is told of the service."""
        return {key: value for one in self._received for key, value in _values(one.resource)}

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order of their beginning."""
        scopes = [scope for one in self._received for scope in one.scope_spans]
        spans = [span for scope in scopes for span in scope.spans]
        return sorted(spans, key=lambda span: (span.start_time_unix_nano, -span.end_time_unix_nano))

    @property
    def requests(self) -> list[Span]:
        """The spans of requests."""
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def below(self, parent: Span) -> list[Span]:
        """Return the children of a span."""
        return [span for span in self.spans if span.parent_span_id == parent.span_id]

    @property
    def everything(self) -> str:
        """All that has been received, as text."""
        return "".join(map(str, self._received))


def attributes_of(span: Span) -> dict[str, Value]:
    """Return the attributes of a span."""
    return dict(_values(span))


def _values(owner: object) -> Iterator[tuple[str, Value]]:
    for attribute in owner.attributes:  # type: ignore[attr-defined] # spans and resources have them
        yield attribute.key, getattr(attribute.value, attribute.value.WhichOneof("value"))


@contextmanager
def collect_traces() -> Iterator[TraceCollector]:
    """Run a collector until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(collector.take(self.path, dict(self.headers), body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = TraceCollector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
