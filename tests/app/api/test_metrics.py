"""GET /metrics: what was counted, read with Prometheus' own parser; each test reads differences."""

import socket
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from model.modeling_siglip_vision_fused_encoder import FusedEncoderLayer
from tests.app.answers import post_images
from tests.app.fake_embedder import RAISES, SPACE, FakeEmbedder
from tests.app.images import encode, plain_png, scene
from tests.app.service_server import ServiceServer, run_service
from tests.reference import ReferenceCheckpoint

GOOD = plain_png((1, 2, 3))
BROKEN = encode(scene(0))[:500]
FAILING = plain_png((RAISES, 0, 0))
WAIT_S = 30

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(service: ServiceServer) -> Samples:
    """Return every sample by its name and labels."""
    answer = service.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def grown(before: Samples, after: Samples, name: str, **labels: str) -> float:
    key = (name, frozenset(labels.items()))
    return after.get(key, 0) - before.get(key, 0)


def series(samples: Samples, name: str) -> set[frozenset[tuple[str, str]]]:
    return {labels for found, labels in samples if found == name}


def test_images_are_counted_by_what_became_of_them() -> None:
    with run_service(Settings(), FakeEmbedder(max_batch_size=4)) as service:
        before = scrape(service)
        post_images(service.client, "multipart", [GOOD, GOOD])
        post_images(service.client, "multipart", [GOOD, BROKEN, GOOD])  # all or nothing
        post_images(service.client, "multipart", [GOOD, FAILING, BROKEN], {"on_error": "partial"})
        after = scrape(service)

    assert grown(before, after, "siglip_images_total", outcome="embedded") == 3
    assert grown(before, after, "siglip_images_total", outcome="failed") == 3
    assert grown(before, after, "siglip_images_total", outcome="dropped") == 2
    assert grown(before, after, "siglip_image_errors_total", code="image_truncated") == 2
    assert grown(before, after, "siglip_image_errors_total", code="internal") == 1


def test_requests_are_counted_by_route_and_never_by_path() -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        before = scrape(service)
        post_images(service.client, "raw", [GOOD])
        service.client.get("/secret-path")
        service.client.get("/v1/models/secret-model")
        service.client.request("SECRET", "/embed")
        after = scrape(service)

    name = "http_server_request_duration_seconds_count"

    def requests(method: str, route: str, status: int) -> float:
        return grown(
            before,
            after,
            name,
            http_request_method=method,
            http_route=route,
            http_response_status_code=str(status),
        )

    assert requests("POST", "/embed", 200) == 1
    assert requests("GET", "", 404) == 1
    assert requests("GET", "/v1/models/{model_id:path}", 404) == 1
    assert requests("_OTHER", "/embed", 405) == 1
    assert not [labels for labels in series(after, name) if "secret" in str(labels).lower()]


def test_refusals_are_counted_by_their_code() -> None:
    settings = Settings(max_image_bytes=1000, max_body_bytes=1000)
    with run_service(settings, FakeEmbedder()) as service:
        before = scrape(service)
        service.client.post("/embed", content=b"x" * 1001, headers={"Content-Type": "image/png"})
        service.client.post("/embed", content=b"{", headers={"Content-Type": "application/json"})
        post_images(service.client, "raw", [BROKEN])
        post_images(service.client, "raw", [BROKEN], {"on_error": "partial"})  # that is answered
        service.ask_raw(b"no HTTP\r\n\r\n")  # the parser refuses it, not the application
        after = scrape(service)

    name = "siglip_requests_rejected_total"
    assert {
        dict(labels)["reason"]: grown(before, after, name, **dict(labels))
        for labels in series(after, name)
        if grown(before, after, name, **dict(labels))
    } == {
        "body_too_large": 1,
        "invalid_json": 1,
        "image_truncated": 1,
        "malformed_request": 1,
    }


def test_batches_and_stages_are_counted() -> None:
    with run_service(Settings(), FakeEmbedder(max_batch_size=4)) as service:
        before = scrape(service)
        post_images(service.client, "multipart", [GOOD] * 6)
        after = scrape(service)

    assert grown(before, after, "siglip_batch_size_sum", kind="image") == 6
    assert grown(before, after, "siglip_batch_size_bucket", kind="image", le="4.0") == 2
    for stage in ("decode", "queue", "forward", "serialize"):
        assert (
            grown(before, after, "siglip_stage_duration_seconds_count", kind="image", stage=stage)
            == 1
        )


def test_a_client_that_leaves_is_counted() -> None:
    fake = FakeEmbedder()
    fake.gate.clear()
    with run_service(Settings(), fake) as service:
        before = scrape(service)
        head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n\
Content-Length: {len(GOOD)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as connection:
            connection.sendall(head.encode() + GOOD)
            assert fake.entered.acquire(timeout=WAIT_S)
            assert grown(before, scrape(service), "siglip_queue_images") == 1
        give_up_at = time.monotonic() + WAIT_S
        while not grown(before, scrape(service), "siglip_requests_cancelled_total"):
            assert time.monotonic() < give_up_at, "never counted"
            time.sleep(0.01)
        fake.gate.set()


def test_the_engine_is_described_as_it_is_now() -> None:
    with run_service(Settings(queue_images=77), FakeEmbedder()) as service:
        ready = scrape(service)
        service.engine.drain()
        draining = scrape(service)

    assert ready["siglip_ready", frozenset()] == 1
    assert draining["siglip_ready", frozenset()] == 0
    assert ready["siglip_queue_limit_images", frozenset()] == 77
    assert ready["siglip_queue_oldest_seconds", frozenset({("kind", "image")})] == 0
    assert ready["siglip_selftest_cosine", frozenset()] == 0.99987
    assert ready["process_resident_memory_bytes", frozenset()] > 2**20
    labels = {
        "model": "fake/colours",
        "revision": "0" * 40,
        "space": SPACE,
        "device": "cpu",
        "dtype": "float32",
    }
    assert series(ready, "siglip_model_info") == {frozenset(labels.items())}


def test_a_service_whose_self_test_failed_says_so_and_is_not_ready(
    tiny_checkpoint: ReferenceCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FusedEncoderLayer, "forward", lambda _, hidden, __: hidden * 0)
    with run_service(Settings(model=str(tiny_checkpoint.folder))) as service:
        health = service.wait_for_status("selftest_failed")
        metrics = scrape(service)

    assert health.status_code == 503
    assert metrics["siglip_ready", frozenset()] == 0
    assert not series(metrics, "siglip_model_info")
