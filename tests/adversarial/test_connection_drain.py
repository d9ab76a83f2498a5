"""The end of a service: nobody who was heard is left without an answer."""

import signal
import threading
import time
from collections import Counter

import httpx
import pytest

from app.settings import Settings
from app.wire.server import Server
from tests.adversarial.raw_client import WAIT_S, RawClient, connect, head
from tests.app.answers import check_error
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

PNG = plain_png((10, 20, 30))
REQUEST = head(f"Content-Length: {len(PNG)}") + PNG


def terminate(server: Server) -> None:
    server.handle_exit(signal.SIGTERM, None)


def wait_until_it_listens_no_more(service: ServiceServer) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while time.monotonic() < give_up_at:
        try:
            RawClient(service.port).close()
        except ConnectionError:
            return
        time.sleep(0.01)
    pytest.fail("still listening")


def check_last(answer: httpx.Response, status: int = 200) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["connection"] == "close"


def test_a_request_in_progress_is_finished_and_is_the_last_of_its_connection() -> None:
    fake = FakeEmbedder()
    with run_service(Settings(), fake) as service, connect(service.port) as (client,):
        fake.gate.clear()
        client.send(REQUEST)
        fake.wait_until_entered()
        terminate(service.server)
        wait_until_it_listens_no_more(service)
        fake.gate.set()

        check_last(client.read_answer("POST"))
        assert client.read_to_the_end() == b""


def test_a_body_in_progress_is_awaited() -> None:
    with run_service(Settings(), FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(REQUEST[:-20])
        service.wait_for_status("ok")  # by then the head has been read
        terminate(service.server)
        wait_until_it_listens_no_more(service)
        client.send(REQUEST[-20:])

        check_last(client.read_answer("POST"))


def test_a_kept_connection_has_its_last_call() -> None:
    """A client that has not heard of the end yet may send one more request."""
    with run_service(Settings(), FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(REQUEST)
        assert client.read_answer("POST").headers.get("connection") is None
        terminate(service.server)
        wait_until_it_listens_no_more(service)
        client.send(REQUEST)

        check_last(client.read_answer("POST"))


def test_idle_connections_do_not_hold_up_the_end() -> None:
    settings = Settings(head_timeout_s=600, grace_s=600)
    with (
        run_service(settings, FakeEmbedder()) as service,
        connect(service.port, 2) as (kept, silent),
    ):
        kept.send(REQUEST)
        assert kept.read_answer("POST").status_code == 200
        terminate(service.server)

        assert kept.read_to_the_end() == b""
        assert silent.read_to_the_end() == b""


def test_who_waits_in_the_queue_of_the_listener_is_served() -> None:
    """The event loop is busy while clients connect, and stops listening right after."""
    with run_service(Settings(), FakeEmbedder()) as service, connect(service.port) as (holder,):
        busy = threading.Event()

        @service.app.get("/hold")
        async def hold_up() -> None:
            busy.set()
            time.sleep(1)  # noqa: ASYNC251 # that is the point

        holder.send(head(method="GET", path="/hold"))
        assert busy.wait(WAIT_S)
        with connect(service.port, 20) as clients:
            for client in clients:
                client.send(REQUEST)
            terminate(service.server)

            for client in clients:
                check_last(client.read_answer("POST"))


@pytest.mark.parametrize("request_", [REQUEST, REQUEST[:-20], REQUEST[:20]])
def test_what_the_grace_does_not_suffice_for_is_told_so(request_: bytes) -> None:
    fake = FakeEmbedder()
    with run_service(Settings(grace_s=1), fake) as service, connect(service.port) as (client,):
        fake.gate.clear()
        client.send(request_)
        service.wait_for_status("ok")  # by then the request has been read
        terminate(service.server)
        answer = client.read_answer("POST")
        fake.gate.set()

    check_error(answer, 503, "draining")
    check_last(answer, 503)


def test_no_request_of_a_kept_connection_is_lost_under_load() -> None:
    """Clients send as fast as they get answers, until they are asked to close."""
    for _ in range(20):
        outcomes: Counter[str] = Counter()
        with run_service(Settings(), FakeEmbedder()) as service, connect(service.port, 8) as all_:
            threads = [
                threading.Thread(target=_send_until_asked_to_close, args=(client, outcomes))
                for client in all_
            ]
            for thread in threads:
                thread.start()
            time.sleep(0.05)
            terminate(service.server)
            for thread in threads:
                thread.join(WAIT_S)
        assert outcomes == {"asked to close": len(all_)}


def _send_until_asked_to_close(client: RawClient, outcomes: Counter[str]) -> None:
    try:
        while True:
            client.send(REQUEST)
            answer = client.read_answer("POST")
            assert answer.status_code == 200, answer.text
            if answer.headers.get("connection") == "close":
                outcomes["asked to close"] += 1
                return
    except (OSError, AssertionError) as error:
        outcomes[repr(error)] += 1
