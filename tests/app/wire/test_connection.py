"""Orders of events that load brings about only now and then, forced."""

import signal
import threading
from collections.abc import Callable

import pytest
from starlette.responses import StreamingResponse

from app.settings import Settings
from app.wire.connection import Connection
from tests.adversarial.raw_client import WAIT_S, connect, head
from tests.app.fake_embedder import FakeEmbedder
from tests.app.service_server import ServiceServer, run_service

LIVEZ = head(method="GET", path="/livez")
# More than all buffers between a service and a client that does not read.
PIECE, PIECES = bytes(2**20), 50


def only_connection(service: ServiceServer) -> Connection:
    (connection,) = service.server.server_state.connections
    assert isinstance(connection, Connection)
    return connection


def in_the_loop(connection: Connection, work: Callable[[], None]) -> None:
    """Run something in one turn of the event loop, in which it sees nothing that arrives."""
    done = threading.Event()

    def run() -> None:
        try:
            work()
        finally:
            done.set()

    connection.loop.call_soon_threadsafe(run)
    assert done.wait(WAIT_S)


def test_an_answer_that_has_begun_before_the_end_is_finished_and_is_the_last() -> None:
    """Its head is out, so it cannot say so; its connection must not be kept for all that."""
    settings = Settings(grace_s=600, body_timeout_s=600)
    with run_service(settings, FakeEmbedder()) as service, connect(service.port) as (client,):

        @service.app.get("/large")
        async def large() -> StreamingResponse:
            return StreamingResponse(PIECE for _ in range(PIECES))

        client.send(head(method="GET", path="/large"))
        assert client.hears_something(WAIT_S)
        connection = only_connection(service)
        in_the_loop(connection, lambda: service.server.handle_exit(signal.SIGTERM, None))
        in_the_loop(connection, connection.shutdown)
        answer = client.read_answer()

        assert answer.headers.get("connection") is None
        assert len(answer.content) == PIECES * len(PIECE)
        assert client.read_to_the_end() == b""


@pytest.mark.parametrize("request_", [LIVEZ, LIVEZ[:10]], ids=["whole", "begun"])
def test_a_request_that_arrives_with_the_end_of_a_kept_connection_is_served(
    request_: bytes,
) -> None:
    """The timer fires in the turn of the loop before the one that would see the request."""
    with run_service(Settings(), FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(LIVEZ)
        assert client.read_answer().status_code == 200
        connection = only_connection(service)

        def arrive_and_fire() -> None:
            client.send(request_)
            assert connection.timeout_keep_alive_task is not None
            connection.timeout_keep_alive_task.cancel()
            connection.timeout_keep_alive_handler()

        in_the_loop(connection, arrive_and_fire)
        client.send(LIVEZ[len(request_) :])

        assert client.read_answer().status_code == 200


def test_without_a_request_the_end_of_a_kept_connection_is_its_end() -> None:
    with run_service(Settings(), FakeEmbedder()) as service, connect(service.port) as (client,):
        client.send(LIVEZ)
        assert client.read_answer().status_code == 200
        connection = only_connection(service)
        in_the_loop(connection, connection.timeout_keep_alive_handler)

        assert client.read_to_the_end() == b""
