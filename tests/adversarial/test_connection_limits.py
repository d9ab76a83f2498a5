"""What is not HTTP, or too much of it, gets an answer in the one shape and the end."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.settings import Settings
from app.wire.chunks import BYTES_PER_CHUNK, MAX_SURPLUS_BYTES
from app.wire.parser import MAX_HEAD_BYTES, MAX_HEADERS
from tests.adversarial.raw_client import connect, head
from tests.app.answers import check_error
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
PROBE = head(method="GET", path="/livez")
# Many times what it takes, for a busy machine.
GENEROUS_S = 3
CHUNKED = head("Transfer-Encoding: chunked")


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceServer]:
    with run_service(Settings(), FakeEmbedder()) as running:
        yield running


def check_ended(service: ServiceServer, request: bytes, status: int, code: str) -> httpx.Response:
    """Send bytes; assert that they get one answer, this one, then the end without a reset."""
    with connect(service.port) as (client,):
        client.send(request)
        answer = client.read_answer()
        assert client.read_to_the_end() == b""
    check_error(answer, status, code)
    assert answer.headers["connection"] == "close"
    assert "server" not in answer.headers
    return answer


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"GET /livez HTTP/9\r\nHost: a\r\n\r\n",
        b"GET / livez HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",  # no Host
        b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n continued\r\nbad header\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX\x00: a\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
        head("Content-Length: -1"),
        head("Content-Length: 1e3"),
        head("Content-Length: 5, 6"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Transfer-Encoding: gzip, chunked"),
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-5\r\n",
        CHUNKED + b"5\r\nabcdefgh\r\n",
        CHUNKED + b"f" * 21 + b"\r\n",
        CHUNKED + b"1;a\nb\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"0\r\nno header\r\n\r\n",
        head("Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n",
        head("X-Folded: a\r\n\tb"),
    ],
    ids=str,
)
def test_what_is_not_http_is_400(server: ServiceServer, request_: bytes) -> None:
    check_ended(server, request_, 400, "malformed_request")


def test_a_fault_after_a_good_request_is_answered_after_it(server: ServiceServer) -> None:
    with connect(server.port) as (client,):
        client.send(PROBE + b"what?\r\n\r\n")
        first, second = client.read_answer(), client.read_answer()
        assert client.read_to_the_end() == b""

    assert first.status_code == 200
    check_error(second, 400, "malformed_request")


@pytest.mark.parametrize(
    "request_",
    [
        head(f"X-Long: {'a' * 100_000}"),
        head(f"X-Long: {'a' * MAX_HEAD_BYTES}"),
        head(path="/embed?" + "a" * MAX_HEAD_BYTES),
        head(*(f"X-{number}: a" for number in range(MAX_HEADERS))),
        head(*(f"X-{number}: a" for number in range(1_500))),
        b"a" * (MAX_HEAD_BYTES + 1),
        head()[:-2] + b"X: " + b"a" * 10_000_000,  # without an end
    ],
    ids=["at once", "just over", "path", "headers", "far more headers", "no line", "endless"],
)
def test_a_head_that_is_too_large_is_431(server: ServiceServer, request_: bytes) -> None:
    check_ended(server, request_, 431, "head_too_large")


def test_a_head_just_within_the_limits_is_read(server: ServiceServer) -> None:
    number_of_own = head(method="GET").count(b"\r\n") - 2
    many = (f"X-{number}: {'a' * 100}" for number in range(MAX_HEADERS - number_of_own))
    with connect(server.port) as (client,):
        client.send(head(*many, method="GET", path="/livez"))

        assert client.read_answer().status_code == 200


FREE_CHUNKS = MAX_SURPLUS_BYTES // BYTES_PER_CHUNK


def chunks(count: int, data: bytes = b"a", extension: bytes = b"") -> bytes:
    return (b"%x%s\r\n%s\r\n" % (len(data), extension, data)) * count


@pytest.mark.parametrize(
    "body",
    [
        chunks(FREE_CHUNKS + 100),
        chunks(3 * FREE_CHUNKS, bytes(BYTES_PER_CHUNK // 2)),
        chunks(100, extension=b";" + b"x" * 2000),
        b"5;" + b"x" * 10_000,
        b"0\r\n" + b"a:\r\n" * (FREE_CHUNKS + 100),
        b"0\r\n" + b"a: " + b"b" * 10_000,
    ],
    ids=["tiny", "small", "extensions", "endless line", "trailers", "endless trailer"],
)
def test_a_flood_of_what_is_not_data_is_refused(server: ServiceServer, body: bytes) -> None:
    check_ended(server, CHUNKED + body, 400, "malformed_request")


@pytest.mark.parametrize(
    "body",
    [
        chunks(FREE_CHUNKS - 100),
        chunks(500) + chunks(10, bytes(10_000)) + chunks(500),
        chunks(20_000, bytes(BYTES_PER_CHUNK)),
        chunks(50, extension=b" ; name=value"),
    ],
    ids=["tiny", "now and then", "many", "extensions"],
)
def test_chunks_within_the_limits_are_read(server: ServiceServer, body: bytes) -> None:
    request = CHUNKED + body + b"0\r\nDigest: odd\r\n\r\n"
    with connect(server.port) as (client,):
        for _ in range(2):  # each request has chunks of its own
            client.send(request)
            check_error(client.read_answer(), 415, "unsupported_image_format", "images[0]")


@pytest.mark.parametrize(
    ("count", "length", "status"),
    [(65_000, 1, 400), (4_000, BYTES_PER_CHUNK, 415)],
    ids=["refused", "read"],
)
def test_nobody_waits_for_a_flood_of_chunks(
    server: ServiceServer, count: int, length: int, status: int
) -> None:
    """In one go, the smallest of these took the event loop for half a minute."""
    flood = CHUNKED + chunks(count, bytes(length)) + b"0\r\n\r\n"
    with connect(server.port, 32) as flooding, connect(server.port) as (probing,):
        with ThreadPoolExecutor(len(flooding)) as senders:
            sending = [senders.submit(client.send, flood) for client in flooding]
            while not all(one.done() for one in sending):
                asked_at = time.monotonic()
                probing.send(PROBE)
                assert probing.read_answer().status_code == 200
                assert time.monotonic() - asked_at < GENEROUS_S
        statuses = {client.read_answer().status_code for client in flooding}

    assert statuses == {status}


def test_pipelined_requests_are_answered_in_their_order(server: ServiceServer) -> None:
    ids = [f"id-{number}" for number in range(20)]
    with connect(server.port) as (client,):
        client.send(
            b"".join(
                head(f"Content-Length: {len(PNG)}", f"X-Request-ID: {request_id}") + PNG
                for request_id in ids
            )
        )
        answers = [client.read_answer() for _ in ids]

    assert [answer.headers["x-request-id"] for answer in answers] == ids
    assert {answer.status_code for answer in answers} == {200}


def test_what_a_stranger_sends_is_no_warning(
    server: ServiceServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of log for each would let anybody fill the disk."""
    upgrade = ("Connection: Upgrade", "Upgrade: websocket")
    with connect(server.port) as (client,):
        client.send(head(*upgrade, method="GET", path="/livez"))
        assert client.read_answer().status_code == 200
        client.send(b"what?\r\n\r\n")
        check_error(client.read_answer(), 400, "malformed_request")

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_nothing_after_an_ambiguous_request_is_answered(server: ServiceServer) -> None:
    """The classic smuggle: one reader sees one request where the other sees two."""
    smuggle = head("Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + PROBE

    check_ended(server, smuggle, 400, "malformed_request")


def test_a_refused_upload_hears_why_although_it_sends_on(server: ServiceServer) -> None:
    """A client that reads only once it has sent everything must not find a reset."""
    body = bytes(40_000_000)
    with connect(server.port) as (client,):
        client.send(head(f"Content-Length: {len(body)}"))
        client.send(body)
        answer = client.read_answer()
        assert client.read_to_the_end() == b""

    check_error(answer, 413, "body_too_large")


def test_more_connections_than_there_may_be_are_turned_away() -> None:
    settings = Settings(max_connections=10)
    with run_service(settings, FakeEmbedder()) as service:
        with connect(service.port, 10) as clients:
            for client in clients:
                client.send(PROBE)
                assert client.read_answer().status_code == 200
            with connect(service.port) as (one_more,):
                answer = one_more.read_answer()
                assert one_more.read_to_the_end() == b""
            clients[0].send(PROBE)
            assert clients[0].read_answer().status_code == 200
        check_error(answer, 503, "too_many_connections")

        with connect(service.port) as (later,):
            later.send(PROBE)
            assert later.read_answer().status_code == 200
