"""The probes in every state of the engine, over a real socket."""

from pathlib import Path

import pytest

from app.settings import Settings
from tests.app.answers import check_error, post_images
from tests.app.fake_embedder import ENDS_THREAD, SPACE, FakeEmbedder
from tests.app.gated_checkpoint import GatedCheckpoint
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer, run_service
from tests.reference import ReferenceCheckpoint

PNG = plain_png((10, 20, 30))


def probe(service: ServiceServer) -> dict[str, tuple[int, str]]:
    """Return status code and body's status of each probe."""
    answers = {path: service.client.get(path) for path in ("/healthz", "/readyz", "/livez")}
    return {path: (answer.status_code, answer.json()["status"]) for path, answer in answers.items()}


def test_a_ready_service_is_well_in_every_probe(server: ServiceServer) -> None:
    assert probe(server) == dict.fromkeys(("/healthz", "/readyz", "/livez"), (200, "ok"))


def test_healthz_describes_model_queue_and_worker() -> None:
    fake = FakeEmbedder()
    with run_service(Settings(queue_images=77, max_images=7), fake) as service:
        health = service.client.get("/healthz").json()

    assert health.pop("uptime_s") >= 0
    assert health["worker"].pop("last_batch_age_s") >= 0
    assert health == {
        "status": "ok",
        "model": "fake/colours",
        "space": SPACE,
        "text_space": None,
        "device": "cpu",
        "dtype": "float32",
        "selftest_cosine": 0.99987,
        "queue": {"images": 0, "limit": 77, "oldest_ms": 0, "texts": 0},
        "worker": {"alive": True},
    }


def test_a_loading_service_is_alive_but_not_ready(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path
) -> None:
    gated = GatedCheckpoint(tiny_checkpoint.folder, tmp_path / "gated")
    with run_service(Settings(model=str(gated.folder), dtype="float32")) as service:
        while_loading = probe(service)
        refused = post_images(service.client, "raw", [PNG])
        docs = service.client.get("/docs")
        gated.open()
        service.wait_for_status("ok")
        after = post_images(service.client, "raw", [PNG])

    assert while_loading == {
        "/healthz": (503, "loading"),
        "/readyz": (503, "loading"),
        "/livez": (200, "loading"),
    }
    check_error(refused, 503, "not_ready")
    assert docs.status_code == 200
    assert after.status_code == 200


def test_a_service_that_could_not_load_stays_up_and_says_failed(tmp_path: Path) -> None:
    with run_service(Settings(model=str(tmp_path))) as service:
        service.wait_for_status("failed")
        probes = probe(service)
        refused = post_images(service.client, "raw", [PNG])

    assert probes["/healthz"] == (503, "failed")
    assert probes["/readyz"] == (503, "failed")
    error = check_error(refused, 503, "not_ready")
    assert str(tmp_path) not in error["message"]


def test_a_dead_worker_calls_for_a_restart() -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        post_images(service.client, "raw", [plain_png((ENDS_THREAD, 0, 0))])
        probes = probe(service)
        health = service.client.get("/healthz").json()

    assert probes == dict.fromkeys(("/healthz", "/readyz", "/livez"), (503, "dead"))
    assert health["worker"]["alive"] is False


def test_a_draining_service_takes_itself_out_but_still_serves() -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        service.engine.drain()
        probes = probe(service)
        served = post_images(service.client, "raw", [PNG])

    assert probes == {
        "/healthz": (503, "draining"),
        "/readyz": (503, "draining"),
        "/livez": (200, "draining"),
    }
    assert served.status_code == 200


def test_a_dead_worker_is_told_even_while_draining() -> None:
    with run_service(Settings(), FakeEmbedder()) as service:
        post_images(service.client, "raw", [plain_png((ENDS_THREAD, 0, 0))])
        service.engine.drain()
        refused = post_images(service.client, "raw", [PNG])

    assert refused.status_code == 503


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
def test_probes_answer_while_the_model_is_busy(path: str) -> None:
    fake = FakeEmbedder()
    with run_service(Settings(request_timeout_s=0.05), fake) as service:
        fake.gate.clear()
        waited = post_images(service.client, "raw", [PNG])
        answer = service.client.get(path)
        fake.gate.set()

    check_error(waited, 504, "deadline_exceeded")
    assert answer.status_code == 200
