"""A client that leaves while its images wait is not computed for."""

import socket
import time

from app.settings import Settings
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service

WAIT_S = 30


def send(service: ServiceServer, colour: tuple[int, int, int]) -> socket.socket:
    body = plain_png(colour)
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S)
    head = (
        f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}"
    )
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    return connection


def wait_for_queue(service: ServiceServer, images: int) -> None:
    give_up_at = time.monotonic() + WAIT_S
    while service.client.get("/healthz").json()["queue"]["images"] != images:
        assert time.monotonic() < give_up_at, f"never {images} images in the queue"
        time.sleep(0.01)


def test_images_of_a_client_that_left_are_never_computed() -> None:
    fake = FakeEmbedder(max_batch_size=1)
    fake.gate.clear()
    with run_service(Settings(queue_images=64), fake) as service:
        running = send(service, (1, 1, 1))
        assert fake.entered.acquire(timeout=WAIT_S)
        leaving = [send(service, (2, shade, 0)) for shade in range(20)]
        staying = send(service, (3, 3, 3))
        wait_for_queue(service, 22)

        for connection in leaving:
            connection.close()
        wait_for_queue(service, 2)
        fake.gate.set()

        assert running.recv(12) == b"HTTP/1.1 200"
        assert staying.recv(12) == b"HTTP/1.1 200"
        running.close()
        staying.close()
    assert fake.computed == [(1, 1, 1), (3, 3, 3)]
