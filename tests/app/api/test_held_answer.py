"""Large answers count until they are read, so that slow readers cannot fill the memory."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.api.context import context_of
from app.api.inflight import HeldAnswer, InflightBytes
from app.settings import Settings
from app.wire.connection import Connection
from tests.adversarial.raw_client import WAIT_S, connect, head
from tests.app.answers import check_error, post_images
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import NO_IMAGE, plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
# More than all buffers between a service and a client that does not read.
BODY = bytes(range(256)) * 200_000
GET = head(method="GET", path="/large")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceServer]:
    """A service that takes every answer for a large one."""
    monkeypatch.setattr("app.api.submit._MAX_INLINE_ANSWER_BYTES", 0)
    with run_service(Settings(), FakeEmbedder()) as running:
        yield running


def answers_of(service: ServiceServer) -> InflightBytes:
    return context_of(service.app).answers


def wait_until_unused(answers: InflightBytes) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while answers.used:
        assert time.monotonic() < give_up_at, f"{answers.used} bytes are held for ever"
        time.sleep(0.01)


@pytest.mark.parametrize(("image", "status"), [(PNG, 200), (NO_IMAGE, 415)])
def test_what_is_answered_is_held_no_more(
    service: ServiceServer, image: bytes, status: int
) -> None:
    assert post_images(service.client, "raw", [image]).status_code == status
    wait_until_unused(answers_of(service))


def test_without_room_for_its_answer_a_request_is_refused_before_any_work() -> None:
    embedder = FakeEmbedder()
    with pytest.MonkeyPatch.context() as patch, run_service(Settings(), embedder) as service:
        answers = answers_of(service)
        with answers.hold(Settings().inflight_bytes):
            assert post_images(service.client, "raw", [PNG]).status_code == 200, "a small one"
            patch.setattr("app.api.submit._MAX_INLINE_ANSWER_BYTES", 0)
            check_error(post_images(service.client, "raw", [PNG]), 429, "memory_full")
        assert post_images(service.client, "raw", [PNG]).status_code == 200
    assert len(embedder.computed) == 2


def serve_large(service: ServiceServer) -> threading.Event:
    """Serve a large answer at GET /large: -> an event, set when it lets go of what it holds."""
    event = threading.Event()

    @service.app.get("/large")
    async def large() -> HeldAnswer:
        held = ExitStack()
        held.callback(event.set)
        return HeldAnswer(BODY, {}, "application/octet-stream", held)

    return event


def test_a_large_answer_is_held_until_it_is_read(service: ServiceServer) -> None:
    let_go = serve_large(service)
    with connect(service.port) as (client,):
        client.send(GET)
        assert client.hears_something(WAIT_S)
        assert not let_go.wait(0.1)

        assert client.read_answer().content == BODY
        assert let_go.wait(WAIT_S)


def test_an_answer_whose_reader_has_left_is_held_no_more(service: ServiceServer) -> None:
    let_go = serve_large(service)
    with connect(service.port) as (client,):
        client.send(GET)
        assert client.hears_something(WAIT_S)

    assert let_go.wait(WAIT_S)


def test_an_answer_that_is_cut_short_is_held_no_more() -> None:
    """At the end of a shutdown's grace: else its task would wait until it is cancelled."""
    with run_service(Settings(body_timeout_s=600), FakeEmbedder()) as service:
        let_go = serve_large(service)
        with connect(service.port) as (client,):
            client.send(GET)
            assert client.hears_something(WAIT_S)
            (connection,) = service.server.server_state.connections
            assert isinstance(connection, Connection)

            connection.loop.call_soon_threadsafe(connection.cut_short)

            assert let_go.wait(WAIT_S)
