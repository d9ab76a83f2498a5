"""Traces of requests as a collector gets them: over real sockets on both sides."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from app.engine.protocol import StartError
from app.main import create_app
from app.settings import Settings
from tests.app.answers import post_images
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import FakeTextEmbedder
from tests.app.images import NO_IMAGE, plain_png
from tests.app.service_server import ServiceServer, run_service
from tests.app.trace_collector import TraceCollector, attributes_of, collect_traces

PNG = plain_png((10, 20, 30))
MARK = "mark3r"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"}
LONG_S = 30.0


@pytest.fixture(autouse=True)
def _no_variables_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[TraceCollector]:
    """A collector that services of the test export to; what they have left, when they end."""
    with collect_traces() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


@contextmanager
def traced(embedder: FakeEmbedder | None = None) -> Iterator[ServiceServer]:
    """Serve with traces on."""
    settings = Settings(traces="on")
    with run_service(settings, embedder or FakeEmbedder(), texts=FakeTextEmbedder()) as service:
        yield service


def names_of(spans: list[Span]) -> list[str]:
    return [span.name for span in spans]


def check_within(parent: Span, children: list[Span]) -> None:
    """Assert that spans are of their parent's trace and time."""
    for child in children:
        assert child.trace_id == parent.trace_id
        assert parent.start_time_unix_nano <= child.start_time_unix_nano
        assert child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= parent.end_time_unix_nano


@pytest.mark.parametrize("form", ["raw", "multipart", "json"])
def test_a_request_for_images_is_a_tree_of_its_stages(collector: TraceCollector, form: str) -> None:
    before_ns = time.time_ns()
    with traced() as service:
        answer = post_images(service.client, form, [PNG])
    after_ns = time.time_ns()

    (request,) = collector.requests
    children = collector.below(request)
    assert request.name == "POST /embed"
    assert request.parent_span_id == b""
    assert sorted(names_of(children)) == ["batch", "decode", "forward", "queue", "read", "render"]
    check_within(request, children)
    stages = [span for span in children if span.name != "batch"]
    assert names_of(stages) == ["read", "decode", "queue", "forward", "render"]
    assert before_ns <= request.start_time_unix_nano <= request.end_time_unix_nano <= after_ns
    attributes = attributes_of(request)
    assert attributes.pop("http.request.body.size") >= len(PNG)  # type: ignore[operator]
    assert attributes == {
        "http.request.method": "POST",
        "http.route": "/embed",
        "http.response.status_code": 200,
        "http.response.body.size": len(answer.content),
        "url.scheme": "http",
        "siglip.images": 1,
    }


def test_a_request_for_texts_is_a_tree_with_its_tokens(collector: TraceCollector) -> None:
    with traced() as service:
        service.client.post("/embed/text", json={"texts": ["a", "b"]})
        service.client.post("/embed/text", json={"texts": ["a", "b"]})

    first, again = collector.requests
    stages = [span.name for span in collector.below(first) if span.name != "batch"]
    assert stages == ["read", "tokenize", "queue", "forward", "render"]
    assert attributes_of(first)["siglip.texts"] == 2
    # What is remembered is not computed.
    assert names_of(collector.below(again)) == ["read", "tokenize", "render"]
    assert first.trace_id != again.trace_id


def test_a_request_that_fails_is_a_tree_as_far_as_it_came(collector: TraceCollector) -> None:
    with traced() as service:
        post_images(service.client, "raw", [NO_IMAGE])
        service.client.post("/embed/text", json={"texts": ["!"]})
        service.client.get(f"/{MARK}")

    of_input, of_model, of_path = collector.requests
    assert names_of(collector.below(of_input)) == ["read", "decode"]
    assert attributes_of(of_input)["error.type"] == "unsupported_image_format"
    assert of_input.status.code == 0  # the client's error is none of the server's
    assert "render" not in names_of(collector.below(of_model))
    assert attributes_of(of_model)["error.type"] == "internal"
    assert of_model.status.code == 2
    assert (of_path.name, attributes_of(of_path)["error.type"]) == ("GET", "not_found")
    assert collector.below(of_path) == []


def test_a_request_that_is_refused_at_the_door_is_a_span_of_its_route(
    collector: TraceCollector,
) -> None:
    with traced() as service:
        service.client.post("/embed", content=PNG, headers={"Accept": "text/html"})

    (request,) = collector.requests
    attributes = attributes_of(request)
    assert request.name == "POST /embed"
    assert (attributes["http.route"], attributes["error.type"]) == ("/embed", "not_acceptable")
    assert collector.below(request) == []


def test_a_late_request_shows_where_it_waited(collector: TraceCollector) -> None:
    embedder = FakeEmbedder()
    with traced(embedder) as service:
        post_images(service.client, "raw", [PNG])  # decodes from now on without a start
        embedder.gate.clear()
        late = post_images(service.client, "raw", [PNG], headers={"X-Request-Timeout-Ms": "1000"})
        embedder.gate.set()

    request = collector.requests[-1]
    assert late.status_code == 504
    stages = [span.name for span in collector.below(request) if span.name != "batch"]
    assert stages == ["read", "decode", "queue", "forward"]
    assert attributes_of(request)["error.type"] == "deadline_exceeded"


def test_the_callers_trace_is_continued_and_named_in_the_log(collector: TraceCollector) -> None:
    with capture_logs([merge_contextvars]) as lines, traced() as service:
        service.client.post("/embed/text", json={"texts": ["a"]}, headers=SAMPLED)

    (request,) = collector.requests
    (line,) = [line for line in lines if line["event"] == "request"]
    assert request.trace_id.hex() == line["trace_id"] == TRACE_ID
    assert request.parent_span_id.hex() == SPAN_ID
    assert request.span_id.hex() == line["span_id"]


@pytest.mark.parametrize(
    "traceparent",
    ["", "00", MARK, f"00-{'0' * 32}-{SPAN_ID}-01", f"ff-{TRACE_ID}-{SPAN_ID}-01", "é" * 55],
)
def test_what_names_no_trace_begins_a_new_one(collector: TraceCollector, traceparent: str) -> None:
    with traced() as service:
        headers = [(b"traceparent", traceparent.encode()), (b"Content-Type", b"text/plain")]
        answer = service.client.post("/embed/text", content=b"a", headers=headers)

    assert answer.status_code == 200
    (request,) = collector.requests
    assert request.parent_span_id == b""
    assert request.trace_id.hex() not in (TRACE_ID, "0" * 32)


def test_operators_may_have_no_callers_trace_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is read when the library is first imported, so in a process of its own."""
    script = (
        "from app.observe.traces import Traces\n"
        "from app.observe.work import Work\n"
        "traces = Traces('1')\n"
        f"headers = [(b'traceparent', b'{SAMPLED['traceparent']}')]\n"
        "print(traces.begin('GET', headers, 0.0, Work()).context.trace_id)\n"
    )
    monkeypatch.setenv("OTEL_PROPAGATORS", "none")
    printed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )

    assert int(printed.stdout) not in (0, int(TRACE_ID, 16))


def test_what_the_caller_does_not_sample_is_not_exported(collector: TraceCollector) -> None:
    with capture_logs([merge_contextvars]) as lines, traced() as service:
        service.client.post("/embed/text", json={"texts": ["a"]}, headers=NOT_SAMPLED)

    assert collector.spans == []
    assert [line["trace_id"] for line in lines if line["event"] == "request"] == [TRACE_ID]


def test_the_sampler_of_the_variables_decides(
    collector: TraceCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with traced() as service:
        service.client.post("/embed/text", json={"texts": ["a"]})
        service.client.post("/embed/text", json={"texts": ["b"]}, headers=SAMPLED)

    assert [span.trace_id.hex() for span in collector.requests] == [TRACE_ID]


def test_a_batch_is_linked_to_its_requests_and_they_to_it(collector: TraceCollector) -> None:
    embedder = FakeEmbedder()
    embedder.gate.clear()
    with traced(embedder) as service:

        def post(headers: dict[str, str]) -> None:
            post_images(service.client, "raw", [PNG], headers=headers)

        posts = [begin(post, {})]
        assert embedder.entered.acquire(timeout=LONG_S)  # alone in its batch
        posts += [begin(post, headers) for headers in ({}, {}, NOT_SAMPLED)]
        wait_until(lambda: waiting_images(service) == 3)
        embedder.gate.set()
        for thread in posts:
            thread.join(LONG_S)

    requests = collector.requests
    batches = [span for span in collector.spans if span.name == "batch"]
    alone, shared = batches
    assert attributes_of(alone) == {"siglip.kind": "image", "siglip.batch.size": 1}
    assert attributes_of(shared) == {"siglip.kind": "image", "siglip.batch.size": 3}
    assert [link.span_id for link in alone.links] == [requests[0].span_id]
    assert {link.span_id for link in shared.links} == {span.span_id for span in requests[1:]}
    assert {link.trace_id for link in shared.links} == {span.trace_id for span in requests[1:]}
    for request, batch in zip(requests, (alone, shared, shared), strict=True):
        (forward,) = [span for span in collector.below(request) if span.name == "forward"]
        assert [link.span_id for link in forward.links] == [batch.span_id]
        assert forward.start_time_unix_nano <= batch.start_time_unix_nano
        assert batch.end_time_unix_nano <= forward.end_time_unix_nano


def test_a_request_of_many_images_has_all_its_batches(collector: TraceCollector) -> None:
    with traced() as service:
        post_images(service.client, "multipart", [PNG] * 10)

    (request,) = collector.requests
    batches = [span for span in collector.below(request) if span.name == "batch"]
    (forward,) = [span for span in collector.below(request) if span.name == "forward"]
    assert sum(attributes_of(batch)["siglip.batch.size"] for batch in batches) == 10  # type: ignore[misc]
    assert len(batches) > 1
    assert [link.span_id for link in forward.links] == [batch.span_id for batch in batches]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics"])
def test_what_machines_ask_every_few_seconds_is_not_traced(
    collector: TraceCollector, path: str
) -> None:
    with traced() as service:
        service.client.get(path)

    assert collector.exports == 0


def test_nothing_of_the_input_is_exported_or_logged(
    collector: TraceCollector, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as lines, traced() as service:
        client = service.client
        client.headers.update(
            {
                "User-Agent": MARK,
                "Referer": f"http://{MARK}/",
                "Authorization": f"Bearer {MARK}",
                "X-Request-ID": MARK,
                "X-Forwarded-For": MARK,
                "Cookie": MARK,
                "Baggage": f"{MARK}={MARK},{MARK},{MARK}={MARK * 2_000}",
            }
        )
        files = {"images": (f"{MARK}.png", PNG, f"image/{MARK}")}
        client.post("/embed", files=files, data={"id": MARK}, params={"id": MARK})
        client.post("/embed", params={MARK: MARK}, content=MARK.encode())
        client.post("/embed", content=PNG, headers={"Content-Type": MARK, "Host": MARK})
        client.post("/embed/text", json={"texts": [{"text": MARK, "id": MARK}]})
        client.post("/classify", json={"images": [MARK], "labels": [MARK], MARK: 1})
        client.post("/v1/embeddings", json={"input": MARK, "model": MARK})
        client.request(MARK, f"/{MARK}", params={"q": MARK})
        client.get(f"/v1/models/{MARK}")
        for tracestate in (MARK, f"{MARK}={MARK},{MARK}={MARK}"):  # neither is one
            client.get("/v1/models", headers=SAMPLED | {"tracestate": tracestate})

    assert len(collector.requests) == 10
    assert MARK not in caplog.text + str(lines)
    assert MARK not in collector.everything
    assert {span.name.partition(" ")[0] for span in collector.requests} == {"POST", "GET", "_OTHER"}


def test_the_variables_name_the_service_and_reach_the_collector(
    collector: TraceCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with traced() as service:
        service.client.get("/v1/models")
    assert collector.resource["service.name"] == "siglip-embed"

    monkeypatch.setenv("OTEL_SERVICE_NAME", "photos")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven")
    with traced() as service:
        service.client.get("/v1/models")
    assert collector.resource["service.name"] == "photos"
    assert collector.resource["deployment.environment.name"] == "test"
    assert collector.headers["x-tenant"] == "seven"


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_the_variables_switch_traces_off(
    collector: TraceCollector, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with traced() as service:
        assert post_images(service.client, "raw", [PNG]).status_code == 200

    assert collector.exports == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
def test_what_cannot_be_had_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StartError, match=f"SIGLIP_TRACES=on: {variable} may be "):
        create_app(Settings(traces="on"), FakeEmbedder())


def test_without_the_packages_the_start_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "app.observe.traces", raising=False)
    with pytest.raises(StartError, match=r"SIGLIP_TRACES=on needs pip install '\.\[otel\]'"):
        create_app(Settings(traces="on"), FakeEmbedder())


def test_off_they_cost_no_import_and_no_layer() -> None:
    script = (
        "import sys\n"
        "from app.main import create_app\n"
        "from app.settings import Settings\n"
        "app = create_app(Settings())\n"
        "off = ('opentelemetry.sdk', 'opentelemetry.exporter', 'app.observe.traces')\n"
        "print([name for name in sys.modules if name.startswith(off)])\n"
        "print([layer.cls.__name__ for layer in app.user_middleware])\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )

    assert printed.stdout.splitlines() == ["[]", "['Guard', 'ReplaceAnswers']"]


def test_the_framework_exports_nothing_of_its_own(
    collector: TraceCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would tell of paths, query strings, hosts and exceptions, in full."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    with run_service(Settings(), FakeEmbedder()) as service:
        service.client.get(f"/{MARK}", params={MARK: MARK})
        post_images(service.client, "raw", [PNG])

    assert collector.exports == 0


@pytest.mark.parametrize("collector_is", ["not there", "silent", "failing"])
def test_a_collector_that_takes_nothing_costs_spans_only(
    monkeypatch: pytest.MonkeyPatch, collector_is: str
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")  # longer than a service may take to end
    with collect_traces() as collector, socket.create_server(("127.0.0.1", 0)) as silent:
        collector.status = 503
        endpoint = {
            "not there": "http://127.0.0.1:9",
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "failing": collector.url,
        }[collector_is]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        with capture_logs() as lines, traced() as service:
            answers = [service.client.get("/v1/models") for _ in range(100)]

    assert {answer.status_code for answer in answers} == {200}
    told = [line["event"] for line in lines if line["event"] != "request"]
    assert told.count("traces cannot be exported, and are dropped") <= 1


def test_that_exports_fail_and_work_again_is_said_once_each(
    collector: TraceCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    collector.status = 400
    with capture_logs() as lines, traced() as service:
        for _ in range(3):
            exports = collector.exports
            service.client.get("/v1/models")
            wait_until(partial(collector.has_more_than, exports))
        collector.status = 200
        service.client.get("/v1/models")

    told = [line["event"] for line in lines if line["event"].startswith("traces")]
    assert told == ["traces cannot be exported, and are dropped", "traces are exported again"]


def begin(work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Run in a thread of its own."""
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    return thread


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def waiting_images(service: ServiceServer) -> int:
    """Return how many images wait for the device."""
    batcher = service.engine.require_service().batcher
    return len(batcher._queue._lines["image"])
