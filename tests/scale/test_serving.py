"""Two replicas behind HAProxy: the same answers, and what is lost when one goes."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from app.settings import Settings
from tests.app.images import encode, scene
from tests.app.service_server import run_service
from tests.reference import ReferenceCheckpoint
from tests.scale.replicas import RayService, asked, run_on_ray, wait_for

pytestmark = pytest.mark.timeout(900)

CLIENTS = 4
IMAGE = encode(scene(1))


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: ReferenceCheckpoint
) -> Iterator[RayService]:
    folder = tmp_path_factory.mktemp("on-ray")
    settings = {"model": str(tiny_checkpoint.folder), "device": "cpu", "dtype": "float32"}
    with run_on_ray(folder, **settings) as running:
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

    served = [_embedded(page) for page in service.replica_metrics()]

    assert len(served) == 2
    assert min(served) > 0
    assert load.lost == []


def test_an_error_has_the_shape_of_the_contract(service: RayService) -> None:
    answer = httpx.post(f"{service.url}/embed", content=b"no image", trust_env=False)

    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_image_format"


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
