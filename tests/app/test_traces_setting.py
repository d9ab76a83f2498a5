"""SIGLIP_TRACES in a service that is a process: what its end exports, and what ends its start."""

import signal
import socket

import httpx

from tests.app.test_command_line import START_S, STOP_S, events, serve
from tests.app.trace_collector import collect_traces


def test_spans_that_are_left_are_exported_when_the_service_ends() -> None:
    with (
        collect_traces() as collector,
        serve(
            with_fake_embedder=True,
            SIGLIP_TRACES="on",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="600000",
        ) as service,
    ):
        service.wait_for_status("ok")
        httpx.get(f"{service.url}/v1/models", trust_env=False)
        assert collector.exports == 0
        service.process.send_signal(signal.SIGTERM)
        code, output, errors = service.end(STOP_S)

    assert code == 128 + signal.SIGTERM
    assert errors == ""
    assert [span.name for span in collector.requests] == ["GET /v1/models"]
    (line,) = [line for line in events(output) if line.get("route") == "/v1/models"]
    assert line["trace_id"] == collector.requests[0].trace_id.hex()


def test_a_collector_that_answers_nothing_keeps_no_service_from_ending() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serve(
            with_fake_embedder=True,
            SIGLIP_TRACES="on",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
            OTEL_EXPORTER_OTLP_TIMEOUT="600",
        ) as service,
    ):
        service.wait_for_status("ok")
        httpx.get(f"{service.url}/v1/models", trust_env=False)
        service.process.send_signal(signal.SIGTERM)
        code, _, errors = service.end(STOP_S)

    assert code == 128 + signal.SIGTERM
    assert errors == ""


def test_an_exporter_that_there_is_not_ends_the_start_with_3_and_one_line() -> None:
    with serve(
        with_fake_embedder=True, SIGLIP_TRACES="on", OTEL_TRACES_EXPORTER="zipkin"
    ) as service:
        code, output, errors = service.end(START_S)

    assert code == 3
    assert errors == ""
    last = events(output)[-1]
    assert last["event"] == "cannot start"
    assert last["reason"] == "SIGLIP_TRACES=on: OTEL_TRACES_EXPORTER may be otlp or none"
