"""A client that has said all it will say, and listens; and one that is gone."""

import socket
from collections.abc import Iterator

import pytest

from app.settings import Settings
from tests.adversarial.raw_client import WAIT_S, RawClient, connect, head
from tests.app.answers import check_error
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
REQUEST = head(f"Content-Length: {len(PNG)}") + PNG
OLD_REQUEST = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0")
CHUNKED = head("Transfer-Encoding: chunked")
LIVEZ = head(method="GET", path="/livez")


@pytest.fixture(scope="module")
def fake() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture(scope="module")
def service(fake: FakeEmbedder) -> Iterator[ServiceServer]:
    with run_service(Settings(), fake) as running:
        yield running


def finish(client: RawClient, data: bytes) -> None:
    client.send(data)
    client.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "request_",
    [REQUEST, OLD_REQUEST, CHUNKED + b"1\r\na\r\n" * 1_000 + b"0\r\n\r\n", LIVEZ],
    ids=["whole", "HTTP/1.0", "chunked", "without a body"],
)
def test_a_client_that_sends_no_more_gets_its_answer_and_the_end(
    service: ServiceServer, request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the first image takes here, no interim answer comes before the answer.
    monkeypatch.setattr("app.wire.protocol._LISTENING_S", WAIT_S)
    with connect(service.port) as (client,):
        finish(client, request_)

        assert client.socket.recv(12, socket.MSG_PEEK) in (b"HTTP/1.1 200", b"HTTP/1.1 415")
        client.read_answer("POST")
        assert client.read_to_the_end() == b""


def test_all_that_it_has_asked_for_is_answered(service: ServiceServer) -> None:
    with connect(service.port) as (client,):
        finish(client, REQUEST + 50 * LIVEZ + b"what?\r\n\r\n")

        assert client.read_answer("POST").status_code == 200
        assert [client.read_answer().status_code for _ in range(50)] == 50 * [200]
        check_error(client.read_answer(), 400, "malformed_request")
        assert client.read_to_the_end() == b""


@pytest.mark.parametrize("request_", [b"", REQUEST[:-1], REQUEST[:20], CHUNKED + b"1\r\na\r\n"])
def test_without_a_whole_request_there_is_nothing_to_answer(
    service: ServiceServer, request_: bytes
) -> None:
    with connect(service.port) as (client,):
        finish(client, request_)

        assert client.read_to_the_end() == b""


@pytest.mark.parametrize("request_", [REQUEST, OLD_REQUEST])
def test_one_who_listens_for_long_gets_its_answer(
    service: ServiceServer, fake: FakeEmbedder, request_: bytes
) -> None:
    """Long enough to be put to the test."""
    fake.gate.clear()
    with connect(service.port) as (client,):
        finish(client, request_)
        if request_ is REQUEST:
            assert client.socket.recv(100).startswith(b"HTTP/1.1 100")
        assert not client.hears_something(0.6)
        fake.gate.set()

        assert client.read_answer("POST").status_code == 200
        assert client.read_to_the_end() == b""


def test_one_who_finishes_during_the_answer_gets_all_of_it(service: ServiceServer) -> None:
    with connect(service.port) as (client,):
        finish(client, head(method="GET", path="/static-offline-docs/swagger-ui-bundle.js"))

        answer = client.read_answer()
        assert len(answer.content) == int(answer.headers["content-length"])
        assert client.read_to_the_end() == b""
