"""What a head alone decides is decided before the framework looks for a route."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.keys import ApiKeys
from app.settings import Settings
from tests.adversarial.raw_client import connect, head
from tests.app.answers import check_error, post_images
from tests.app.api.test_guard_keys import all_paths
from tests.app.api.test_metrics import grown, scrape
from tests.app.fake_embedder import FakeEmbedder
from tests.app.fake_text_embedder import FakeTextEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
IMAGE_ROUTES = ["/embed", "/classify"]
ROUTES = [*IMAGE_ROUTES, "/embed/text", "/v1/embeddings", "/embeddings", "/vectorize"]
PAGE = "https://page.example"
WAIT_S = 30


@contextlib.contextmanager
def full(**settings: Any) -> Iterator[ServiceServer]:
    """A service whose one place is taken, and whose framework finds no route any more."""
    fake = FakeEmbedder()
    with (
        run_service(Settings(queue_images=1, **settings), fake, texts=FakeTextEmbedder()) as one,
        ThreadPoolExecutor(1) as pool,
    ):
        key = {"Authorization": "Bearer hush"}
        fake.gate.clear()
        held = pool.submit(post_images, one.client, "raw", [PNG], headers=key)
        try:
            fake.wait_until_entered()
            one.app.router.routes.clear()
            yield one
        finally:
            fake.gate.set()
        assert held.result(WAIT_S).status_code == 200


@contextlib.contextmanager
def failed(**settings: Any) -> Iterator[ServiceServer]:
    """A service whose model could not be loaded, and whose framework finds no route any more."""
    with run_service(Settings(model="/none", **settings)) as service:
        service.wait_for_status("failed")
        service.app.router.routes.clear()
        yield service


def test_every_route_that_takes_work_has_a_door() -> None:
    with failed(adapters=frozenset({"weaviate"})) as service:
        for path in ROUTES:
            answer = service.client.post(path)
            if path == "/vectorize":  # in its program's own words
                assert (answer.status_code, answer.json().keys()) == (503, {"error"})
            else:
                check_error(answer, 503, "not_ready")
        check_error(service.client.post("/none"), 404, "not_found")


def test_no_other_route_takes_work() -> None:
    with run_service(Settings(adapters=frozenset({"weaviate"})), FakeEmbedder()) as service:
        paths = sorted(set(all_paths(service.app.routes)))
        taking = [path for path in paths if service.client.post(path).status_code not in (404, 405)]

    assert taking == sorted(ROUTES)


def test_what_a_service_never_does_is_told_before_that_it_is_busy() -> None:
    fake = FakeEmbedder()
    with run_service(Settings(queue_images=1), fake) as service, ThreadPoolExecutor(1) as pool:
        fake.gate.clear()
        held = pool.submit(post_images, service.client, "raw", [PNG])
        fake.wait_until_entered()
        answer = service.client.post("/classify", content=PNG)
        fake.gate.set()
        assert held.result(WAIT_S).status_code == 200

    check_error(answer, 400, "text_disabled")


@pytest.mark.parametrize("path", IMAGE_ROUTES)
def test_for_want_of_room_a_request_is_refused_at_the_door(path: str) -> None:
    with full() as service:
        check_error(service.client.post(path, content=PNG), 429, "queue_full")
        check_error(service.client.get(path), 404, "not_found")  # had it come to the routes


WRONG = {"X-Request-Timeout-Ms": "soon"}
ELSE = {"Accept": "text/html"}
KEY = {"Authorization": "Bearer hush"}
CODED = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("headers", "body_bytes", "status"),
    [
        ({**WRONG, **ELSE, **CODED}, 101, 401),
        ({**WRONG, **ELSE, **CODED, **KEY}, 101, 413),
        ({**WRONG, **ELSE, **CODED, **KEY}, 100, 415),
        ({**WRONG, **ELSE, **KEY}, 100, 406),
        ({**WRONG, **KEY}, 100, 400),
        (KEY, 100, 429),
    ],
)
def test_of_several_faults_the_same_is_told_as_ever(
    headers: dict[str, str], body_bytes: int, status: int
) -> None:
    limits = {"max_body_bytes": 100, "max_image_bytes": 100}
    with full(api_keys=ApiKeys.of(b"hush"), **limits) as service:
        answer = service.client.post("/embed", content=bytes(body_bytes), headers=headers)

    assert answer.status_code == status


def test_a_model_that_is_not_there_is_told_before_what_a_route_would_find() -> None:
    with failed() as service:
        check_error(service.client.post("/embed", headers={**WRONG, **ELSE}), 503, "not_ready")


def test_a_refusal_is_logged_and_counted_under_its_route() -> None:
    with capture_logs() as lines, run_service(Settings(), FakeEmbedder()) as service:
        before = scrape(service)
        answer = service.client.post("/embed/text", json={"texts": ["a"]})
        after = scrape(service)
    (line,) = [one for one in lines if one["event"] == "request" and one["method"] == "POST"]

    check_error(answer, 400, "text_disabled")
    assert line.keys() == {
        *("event", "log_level", "method", "route", "status", "code", "bytes_out", "ms")
    }
    assert (line["route"], line["status"]) == ("/embed/text", 400)
    assert line["bytes_out"] == len(answer.content)
    assert grown(before, after, "siglip_requests_rejected_total", reason="text_disabled") == 1
    counted = {
        "http_request_method": "POST",
        "http_route": "/embed/text",
        "http_response_status_code": "400",
    }
    assert grown(before, after, "http_server_request_duration_seconds_count", **counted) == 1


def test_a_refusal_of_the_guard_has_its_route() -> None:
    with (
        capture_logs() as lines,
        run_service(Settings(api_keys=ApiKeys.of(b"hush")), FakeEmbedder()) as service,
    ):
        check_error(service.client.post("/embed", content=PNG), 401, "invalid_api_key")

    assert [one["route"] for one in lines if one["event"] == "request"] == ["/embed"]


def test_a_body_that_is_offered_to_a_full_service_ends_the_connection() -> None:
    """Its sender may keep it to itself, and send the next request where the body would be."""
    with full() as service, connect(service.port) as (client,):
        client.send(head(f"Content-Length: {len(PNG)}", "Expect: 100-continue"))
        answer = client.read_answer()

        check_error(answer, 429, "queue_full")
        assert answer.headers["connection"] == "close"
        assert client.read_to_the_end() == b""


def test_a_page_of_an_allowed_origin_can_read_a_refusal() -> None:
    with full(cors_origins=frozenset({PAGE})) as service:
        answer = service.client.post("/embed", content=PNG, headers={"Origin": PAGE})

    check_error(answer, 429, "queue_full")
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_after_a_refusal_the_connection_goes_on_behind_the_unread_body() -> None:
    with full() as service, connect(service.port) as (client,):
        request = head(f"Content-Length: {len(PNG)}")
        for _ in range(3):
            client.send(request + PNG[:10])
            check_error(client.read_answer(), 429, "queue_full")  # though the body has not come
            client.send(PNG[10:])
