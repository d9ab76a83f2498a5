"""What /v1/models tells, and that it tells the truth of every state."""

from pathlib import Path
from typing import Literal

import pytest

from app.settings import Settings
from tests.app.answers import check_error
from tests.app.fake_embedder import SPACE, FakeEmbedder
from tests.app.gated_checkpoint import GatedCheckpoint
from tests.app.service_server import ServiceServer, run_service
from tests.reference import ReferenceCheckpoint

FAKE = {
    "id": "fake/colours",
    "object": "model",
    "created": 0,
    "owned_by": "fake",
    "dim": 4,
    "image_size": 4,
    "patch_size": 2,
    "patches": 4,
    "pooled": True,
    "revision": "0" * 40,
    "space": SPACE,
    "text_space": None,
    "text": None,
    "logit_scale": None,
    "logit_bias": None,
    "dtype": "float32",
    "device": "cpu",
    "pretrained": True,
    "attention": "together",
    "max_batch_size": 8,
    "limits": {
        "images": 7,
        "image_bytes": 1000,
        "texts": 256,
        "text_bytes": 8192,
        "body_bytes": 2000,
    },
}


def test_the_model_is_listed_and_found_by_its_id() -> None:
    settings = Settings(max_images=7, max_image_bytes=1000, max_body_bytes=2000)
    with run_service(settings, FakeEmbedder()) as service:
        listed = service.client.get("/v1/models")
        found = service.client.get("/v1/models/fake/colours")
        shortened = service.client.get("/v1/models/colours")

    assert (listed.status_code, listed.json()) == (200, {"object": "list", "data": [FAKE]})
    assert (found.status_code, found.json()) == (200, FAKE)
    assert shortened.json() == FAKE


@pytest.mark.parametrize("model_id", ["fake", "fake/", "olours", "%00", "fake/colours/", "a" * 999])
def test_another_id_is_not_found_and_not_echoed(server: ServiceServer, model_id: str) -> None:
    answer = server.client.get(f"/v1/models/{model_id}")

    error = check_error(answer, 404, "model_not_found", "model")
    assert error["message"] == "the model served here is fake/colours"


@pytest.mark.parametrize(("asked_for", "images"), [("auto", 8), (3, 3)])
def test_the_largest_batch_is_told(asked_for: Literal["auto"] | int, images: int) -> None:
    settings = Settings(
        model="random:tiny-patch8-32", device="cpu", dtype="float32", max_batch_size=asked_for
    )
    with run_service(settings) as service:
        service.wait_for_status("ok")
        (model,) = service.client.get("/v1/models").json()["data"]

    assert model["max_batch_size"] == images


def test_random_weights_are_told() -> None:
    with run_service(Settings(), FakeEmbedder(pretrained=False)) as service:
        (model,) = service.client.get("/v1/models").json()["data"]

    assert model["pretrained"] is False


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/fake/colours"])
def test_while_loading_there_is_no_model_yet(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path, path: str
) -> None:
    gated = GatedCheckpoint(tiny_checkpoint.folder, tmp_path / "gated")
    with run_service(Settings(model=str(gated.folder), dtype="float32")) as service:
        answer = service.client.get(path)
        gated.open()

    check_error(answer, 503, "not_ready")
