"""Clients that are silent, slow, or never read: each is answered and gone soon after its time."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from starlette.requests import Request
from structlog.testing import capture_logs

from app.settings import Settings
from tests.adversarial.raw_client import WAIT_S, RawClient, connect, head
from tests.app.answers import check_error, post_images
from tests.app.api.test_metrics import grown, scrape
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
TIMEOUT_S = 1.0
# Two rounds of looking at the connections, and some for a busy machine.
SLACK_S = 3.0


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    settings = Settings(
        head_timeout_s=TIMEOUT_S, body_timeout_s=TIMEOUT_S, max_body_bytes=64 * 2**20
    )
    with run_service(settings, FakeEmbedder()) as running:
        yield running


def check_timed_out(client: RawClient) -> None:
    """Assert that the client gets its 408, then the end, not before its time and soon after."""
    answer = client.read_answer()
    assert client.read_to_the_end() == b""
    age_s = client.age_s

    check_error(answer, 408, "request_timeout")
    assert answer.headers["connection"] == "close"
    assert TIMEOUT_S <= age_s < TIMEOUT_S + SLACK_S


def silence(_: RawClient) -> None:
    pass


def half_a_head(client: RawClient) -> None:
    client.send(head("Content-Length: 5")[:40])


def a_dripping_head(client: RawClient) -> None:
    client.dribble(b"GET /livez HTTP/1.1\r\n" + b"X: " + b"a" * 1000, every_s=0.05)


def half_a_body(client: RawClient) -> None:
    client.send(head("Content-Length: 1000") + bytes(500))


def no_body(client: RawClient) -> None:
    client.send(head("Content-Length: 1000"))


def a_dripping_body(client: RawClient) -> None:
    client.send(head("Content-Length: 1000"))
    client.dribble(bytes(1000), every_s=0.05)


def a_dripping_chunked_body(client: RawClient) -> None:
    client.send(head("Transfer-Encoding: chunked"))
    client.dribble(b"1\r\na\r\n" * 1000, every_s=0.05)


def a_chunked_body_without_an_end(client: RawClient) -> None:
    client.send(head("Transfer-Encoding: chunked") + b"3\r\nabc\r\n")


def a_dripping_body_of_a_route_that_reads_none(client: RawClient) -> None:
    client.send(head("Content-Length: 1000", path="/livez", method="GET"))
    assert client.read_answer().status_code == 200
    client.dribble(bytes(1000), every_s=0.05)


SLOW = [
    silence,
    half_a_head,
    a_dripping_head,
    half_a_body,
    no_body,
    a_dripping_body,
    a_dripping_chunked_body,
    a_chunked_body_without_an_end,
]


@pytest.mark.parametrize("attack", SLOW)
def test_a_slow_client_gets_408_and_the_end(
    service: ServiceServer, attack: Callable[[RawClient], None]
) -> None:
    with connect(service.port) as (client,):
        attack(client)
        check_timed_out(client)


def test_the_body_of_an_answered_request_has_its_time_too(service: ServiceServer) -> None:
    with connect(service.port) as (client,):
        a_dripping_body_of_a_route_that_reads_none(client)

        assert client.read_to_the_end() == b""
        assert client.age_s < TIMEOUT_S + SLACK_S


def test_a_second_head_on_a_kept_connection_has_its_time_too(service: ServiceServer) -> None:
    with connect(service.port) as (client,):
        client.send(head(method="GET", path="/livez"))
        assert client.read_answer().status_code == 200
        client.opened_at = time.monotonic()
        half_a_head(client)
        check_timed_out(client)


def test_a_silent_kept_connection_is_closed_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.wire.server._KEEP_ALIVE_S", 1)
    with run_service(Settings(), FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(head(method="GET", path="/livez"))
        assert client.read_answer().status_code == 200

        assert client.read_to_the_end() == b""


def test_a_body_below_the_least_rate_is_refused_before_its_time() -> None:
    settings = Settings(body_timeout_s=600)
    with run_service(settings, FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(head("Content-Length: 1000000"))
        client.dribble(bytes(1000), every_s=0.05)  # would take 50 s

        check_error(client.read_answer(), 408, "request_timeout")


def test_a_body_slower_than_its_grace_but_of_good_rate_is_served() -> None:
    body = PNG + bytes(200_000 - len(PNG))
    with run_service(Settings(), FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(head(f"Content-Length: {len(body)}"))
        for start in range(0, len(body), 5_000):  # 4 s at 50 kB/s; the grace is 3 s
            time.sleep(0.1)
            client.send(body[start : start + 5_000])

        assert client.read_answer("POST").status_code == 200


def test_a_body_in_lumps_of_good_rate_is_served() -> None:
    body = PNG + bytes(160_000 - len(PNG))
    with run_service(Settings(), FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(head(f"Content-Length: {len(body)}"))
        for start in range(0, len(body), 40_000):  # 20 kB/s
            time.sleep(2 if start else 0)
            client.send(body[start : start + 40_000])

        assert client.read_answer("POST").status_code == 200


@pytest.mark.parametrize("pause_s", [0.0, 0.6])
def test_a_burst_buys_no_long_silence(pause_s: float) -> None:
    """On average over its whole time, the body would be fast enough for minutes."""
    settings = Settings(body_timeout_s=600)
    with run_service(settings, FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(head("Content-Length: 10000000"))
        time.sleep(pause_s)  # so that the service sees the head with the burst, or before it
        client.send(bytes(8_000_000))
        assert not client.hears_something(2)  # a fast sender may pause

        check_error(client.read_answer(), 408, "request_timeout")


def test_time_that_the_service_takes_does_not_count() -> None:
    fake = FakeEmbedder()
    settings = Settings(head_timeout_s=0.25, body_timeout_s=0.25)
    with run_service(settings, fake) as service, connect(service.port) as (client,):
        fake.gate.clear()
        client.send(head(f"Content-Length: {len(PNG)}") + PNG)
        assert not client.hears_something(2.0)
        fake.gate.set()

        assert client.read_answer("POST").status_code == 200


@pytest.fixture(scope="module")
def late_reader() -> Iterator[ServiceServer]:
    """A service with little patience, and a route that reads its body after a longer time."""
    settings = Settings(body_timeout_s=0.5)
    with run_service(settings, FakeEmbedder()) as running:

        @running.app.post("/late")
        async def read_late(request: Request) -> int:
            await asyncio.sleep(2)
            return len(await request.body())

        yield running


def test_time_in_which_no_body_is_taken_does_not_count(late_reader: ServiceServer) -> None:
    """More than the server takes unasked, so that the end of it waits in a socket's buffer."""
    body = bytes(1_000_000)
    with connect(late_reader.port) as (client,):
        client.send(head(f"Content-Length: {len(body)}", path="/late"))
        client.send(body)

        assert client.read_answer("POST").text == str(len(body))


def test_time_in_which_no_body_is_asked_for_does_not_count(late_reader: ServiceServer) -> None:
    with connect(late_reader.port) as (client,):
        client.send(head("Content-Length: 3", "Expect: 100-continue", path="/late"))
        assert client.socket.recv(1000).startswith(b"HTTP/1.1 100")
        client.send(b"abc")

        assert client.read_answer("POST").text == "3"


def test_what_the_server_answers_is_counted_and_logged_as_no_departure(
    service: ServiceServer,
) -> None:
    before = scrape(service)
    with capture_logs() as lines, connect(service.port) as (client,):
        half_a_body(client)
        check_timed_out(client)
    after = scrape(service)

    told = [(line["event"], line["status"]) for line in lines if line["log_level"] == "info"]
    assert told == [("request", 408)]
    counted = "http_server_request_duration_seconds_count"
    labels = {"http_request_method": "POST", "http_route": "/embed"}
    assert grown(before, after, counted, http_response_status_code="408", **labels) == 1
    assert grown(before, after, "siglip_requests_cancelled_total") == 0


def test_good_clients_do_not_notice_many_bad_ones(service: ServiceServer) -> None:
    attacks = [silence, half_a_head, half_a_body, a_chunked_body_without_an_end]
    with connect(service.port, 200) as clients:
        for number, client in enumerate(clients):
            attacks[number % len(attacks)](client)
        statuses = {post_images(service.client, "raw", [PNG]).status_code for _ in range(20)}
        for client in clients:
            check_error(client.read_answer(), 408, "request_timeout")
            assert client.read_to_the_end() == b""
            assert client.age_s < TIMEOUT_S + 2 * SLACK_S

    assert statuses == {200}


@pytest.mark.parametrize("attack", [silence, half_a_body])
def test_the_server_lets_go_of_a_client_that_never_closes(
    service: ServiceServer, attack: Callable[[RawClient], None]
) -> None:
    """The client sends on after its answer, until that is refused."""
    with connect(service.port) as (client,):
        attack(client)
        send_until_refused(client)
        assert client.age_s < TIMEOUT_S + 2 * SLACK_S


def test_the_server_lets_go_of_a_timed_out_client_that_goes_on_fast_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.wire.connection._BODY_GRACE_S", 0.5)
    settings = Settings(body_timeout_s=600)
    with run_service(settings, FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(head("Content-Length: 30000000"))
        assert client.hears_something(WAIT_S)
        send_until_refused(client, bytes(10_000))


def test_a_client_that_never_reads_its_answers_is_let_go() -> None:
    """The answers are larger than all socket buffers, so the rest of them waits in the server."""
    settings = Settings(body_timeout_s=TIMEOUT_S)
    with run_service(settings, FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(20 * head(method="GET", path="/static-offline-docs/swagger-ui-bundle.js"))
        send_until_refused(client)


BUNDLE = head(method="GET", path="/static-offline-docs/swagger-ui-bundle.js")


def read_slowly(client: RawClient, most_bytes: int, bytes_per_s: int) -> int:
    """Read until that many bytes have come, or the end: -> how many have."""
    received = 0
    while received < most_bytes:
        try:
            piece = client.socket.recv(bytes_per_s // 50)
        except ConnectionError:
            break
        if not piece:
            break
        received += len(piece)
        time.sleep(0.02)
    return received


def test_a_client_that_reads_its_answers_by_the_spoonful_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.wire.connection._LEAST_READ_BYTES_PER_S", 10**9)
    settings = Settings(body_timeout_s=TIMEOUT_S)
    with run_service(settings, FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(40 * BUNDLE)

        assert read_slowly(client, 40 * 10**6, bytes_per_s=2_500_000) < 40 * 10**6


def test_a_client_that_reads_at_a_good_rate_may_take_its_time() -> None:
    settings = Settings(body_timeout_s=TIMEOUT_S)
    with run_service(settings, FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(12 * BUNDLE)

        assert read_slowly(client, 12 * 10**6, bytes_per_s=4_000_000) >= 12 * 10**6


def send_until_refused(client: RawClient, data: bytes = b"x") -> None:
    """Send now and then without reading; fail when the server lets that go on."""
    give_up_at = time.monotonic() + WAIT_S
    while time.monotonic() < give_up_at:
        time.sleep(0.1)
        try:
            client.send(data)
        except ConnectionError:
            return
    pytest.fail("the connection is still open")
