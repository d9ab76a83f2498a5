"""Two replicas behind HAProxy: the same answers, and what is lost when one goes."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from app.settings import Settings
from tests.app.answers import check_error, request_of
from tests.app.images import encode, scene
from tests.app.service_server import run_service
from tests.reference import ReferenceCheckpoint
from tests.scale.replicas import RayService, asked, run_on_ray, wait_for

pytestmark = pytest.mark.timeout(900)

CLIENTS = 4
IMAGE = encode(scene(1))
# Two batches, and what waits in Ray.
MORE_THAN_A_REPLICA_HOLDS = 150
BEGUN = b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
# As HAProxy checks a replica: every 5 s, and once more 0.25 s after one that failed.
TWO_CHECKS_S = 6
# Small enough to be reached, and more than CLIENTS ask for together.
LIMITS = {"queue_images": "8", "max_connections": "8", "max_batch_size": "16"}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: ReferenceCheckpoint
) -> Iterator[RayService]:
    folder = tmp_path_factory.mktemp("on-ray")
    settings = {"model": str(tiny_checkpoint.folder), "device": "cpu", "dtype": "float32"}
    with run_on_ray(folder, **settings, **LIMITS) as running:
        yield running


def test_vectors_are_those_of_a_single_process(
    service: RayService, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    settings = Settings(
        model=str(tiny_checkpoint.folder), device="cpu", dtype="float32", text="off"
    )
    bodies = [encode(scene(seed)) for seed in range(8)]
    with run_service(settings) as single:
        single.wait_for_status("ok")
        expected = [_embed(single.url, body) for body in bodies]

    got = [_embed(service.url, body) for body in bodies]

    assert {answer["space"] for answer in got} == {expected[0]["space"]}
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(_vector(ours), _vector(theirs), rtol=1e-4, atol=1e-6)


def test_each_replica_serves_and_shows_its_own_metrics(service: RayService) -> None:
    with asked(service.url, IMAGE, CLIENTS) as load:
        wait_for(lambda: load.answered > 100, "answers", service.process)

    served = [_embedded(page) for page in service.replica_metrics().values()]

    assert len(served) == 2
    assert min(served) > 0
    assert load.lost == []


def test_an_error_has_the_shape_of_the_contract(service: RayService) -> None:
    answer = httpx.post(f"{service.url}/embed", content=b"no image", trust_env=False)

    check_error(answer, 415, "unsupported_image_format", param="images[0]")


def test_more_than_the_queues_hold_is_refused_and_nobody_is_left_waiting(
    service: RayService,
) -> None:
    """Twice as many clients as HAProxy lets in, each with enough to fill a queue."""
    clients = 2 * int(LIMITS["max_connections"])
    request = request_of("multipart", [IMAGE] * 2 * int(LIMITS["queue_images"]))

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{service.url}/embed", **request, timeout=60, trust_env=False)

    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, range(clients)))

    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < clients
    for answer in refused:
        check_error(answer, 429, "queue_full")
    _embed(service.url, IMAGE)


def test_haproxy_lets_in_as_many_connections_as_the_settings_say(service: RayService) -> None:
    limit = f"haproxy_process_max_connections {LIMITS['max_connections']}"

    assert limit in service.haproxy_metrics().splitlines()


def test_a_full_house_takes_no_replica_for_dead(service: RayService) -> None:
    """HAProxy's checks open connections too: those of clients must leave it some."""
    before = _checks_turned(service)

    with ExitStack() as held:
        for _ in range(int(LIMITS["max_connections"])):
            connection = socket.create_connection(("127.0.0.1", service.port))
            held.enter_context(connection).sendall(BEGUN)
        time.sleep(TWO_CHECKS_S)

    assert _checks_turned(service) == before
    _embed(service.url, IMAGE)


def test_a_replica_holds_two_batches_and_refuses_what_it_has_no_place_for(
    service: RayService,
) -> None:
    """Past HAProxy, which would not let in so many: requests whose bodies do not come."""
    port = min(service.replica_metrics())

    with ExitStack() as held:

        def hold(count: int) -> None:
            for _ in range(count):
                connection = socket.create_connection(("127.0.0.1", port))
                held.enter_context(connection).sendall(BEGUN)

        hold(2 * int(LIMITS["max_batch_size"]) - 1)
        assert port in service.replica_metrics()
        hold(MORE_THAN_A_REPLICA_HOLDS)
        refused = wait_for(lambda: _refusal(port), "a refusal", service.process)

    assert refused
    check_error(refused, 429, "queue_full")
    wait_for(lambda: port in service.replica_metrics(), "room", service.process)


def test_a_killed_replica_loses_what_it_had_and_is_replaced(service: RayService) -> None:
    before = service.replicas
    assert len(before) == 2

    with asked(service.url, IMAGE, CLIENTS) as load:
        wait_for(lambda: load.answered > 50, "answers", service.process)
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: len(service.replicas - before) == 1, "a new one", service.process)
        wait_for(lambda: len(service.replica_metrics()) == 2, "that answers", service.process)

    assert len(load.lost) <= CLIENTS  # each has one request at a time


def test_a_rolling_redeploy_loses_nothing(service: RayService) -> None:
    before = service.replicas

    with asked(service.url, IMAGE, CLIENTS) as load:
        wait_for(lambda: load.answered > 50, "answers", service.process)
        service.redeploy()
        wait_for(lambda: not service.replicas & before, "the old ones gone", service.process)

    assert len(service.replicas) == 2
    assert load.lost == []


def _checks_turned(service: RayService) -> list[str]:
    """Return HAProxy's counts of servers that it has taken for dead, one each."""
    name = "haproxy_server_check_up_down_total{"
    counts = [line for line in service.haproxy_metrics().splitlines() if line.startswith(name)]
    assert len(counts) == 3, counts  # Ray's own proxy is one
    return counts


def _refusal(port: int) -> httpx.Response | None:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=2, trust_env=False)
    except httpx.TimeoutException:
        return None  # it has a place in the queue
    return None if answer.is_success else answer


def _embed(url: str, body: bytes) -> dict[str, Any]:
    headers = {"content-type": "image/png"}
    answer = httpx.post(f"{url}/embed", content=body, headers=headers, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _vector(answer: dict[str, Any]) -> npt.NDArray[np.float64]:
    return np.array(answer["data"][0]["embedding"])


def _embedded(metrics: str) -> float:
    (line,) = (
        line
        for line in metrics.splitlines()
        if line.startswith('siglip_images_total{outcome="embedded"}')
    )
    return float(line.rpartition(" ")[2])


def test_what_was_accepted_is_finished_at_the_end(service: RayService) -> None:
    """Comes last: it ends the service."""
    with asked(service.url, IMAGE, CLIENTS) as load:
        wait_for(lambda: load.answered > 50, "answers", service.process)
        service.process.terminate()
        assert service.process.wait(120) == 0
    assert all("ConnectError" in lost for lost in load.lost), set(load.lost)
