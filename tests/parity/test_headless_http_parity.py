"""Models without pooling head over HTTP: patch vectors as transformers has them, no pooled ones."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.settings import Settings
from tests.app.answers import FORMS, check_error, cosines, post_images
from tests.app.images import encode
from tests.app.reference_pipeline import ReferencePipeline
from tests.app.service_server import ServiceServer, run_service
from tests.naflex_reference import reference_vectors, tiny_naflex_config, write_naflex_checkpoint
from tests.reference import tiny_vision_config, write_checkpoint

BAR = 0.99999

Served = tuple[ServiceServer, list[np.ndarray]]


@pytest.fixture(scope="module")
def jpegs(photographs: list[Image.Image]) -> list[bytes]:
    return [encode(photograph, "JPEG", quality=92) for photograph in photographs]


@pytest.fixture(scope="module", params=["fixed", "naflex"])
def served(
    request: pytest.FixtureRequest, jpegs: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A service with a tower without head, and the reference's patch vectors of each image."""
    folder = tmp_path_factory.mktemp(request.param)
    images = [Image.open(BytesIO(jpeg)) for jpeg in jpegs]
    if request.param == "fixed":
        pipeline = ReferencePipeline(
            write_checkpoint(folder, tiny_vision_config(vision_use_head=False))
        )
        expected = [pipeline.patches(image) for image in images]
    else:
        naflex = write_naflex_checkpoint(folder, tiny_naflex_config(vision_use_head=False))
        expected = [patches for _, patches in reference_vectors(naflex, images)]
    with run_service(Settings(model=str(folder), device="cpu", dtype="float32")) as service:
        service.wait_for_status("ok")
        yield service, expected


@pytest.mark.parametrize("form", FORMS)
def test_patch_vectors_are_the_references(served: Served, jpegs: list[bytes], form: str) -> None:
    service, expected = served
    images = jpegs[:1] if form in ("raw", "octet-stream") else jpegs

    answer = post_images(service.client, form, images, {"output": "patches"})

    assert answer.status_code == 200, answer.text
    for item, patches in zip(answer.json()["data"], expected[: len(images)], strict=True):
        assert "embedding" not in item
        assert item["patches"]["shape"] == list(patches.shape)
        assert cosines(item["patches"]["embedding"], patches).min() >= BAR


def test_patch_vectors_of_one_image_may_be_an_array(served: Served, jpegs: list[bytes]) -> None:
    service, expected = served
    accept = {"Accept": "application/x-npy"}

    answer = post_images(service.client, "raw", jpegs[:1], {"output": "patches"}, accept)

    assert cosines(np.load(BytesIO(answer.content))[0], expected[0]).min() >= BAR


@pytest.mark.parametrize("options", [{}, {"output": "pooled"}, {"output": "both"}])
@pytest.mark.parametrize("accept", ["application/json", "application/x-npy"])
@pytest.mark.parametrize("form", FORMS)
def test_pooled_vectors_are_refused_with_what_to_ask_for(
    served: Served, jpegs: list[bytes], form: str, options: dict[str, Any], accept: str
) -> None:
    service, _ = served

    answer = post_images(service.client, form, jpegs[:1], options, {"Accept": accept})

    error = check_error(answer, 400, "invalid_parameter", "output")
    assert "no pooling head" in error["message"]
    assert "ask for output=patches" in error["message"]


def test_a_refusal_costs_no_decoding_even_of_what_is_no_image(served: Served) -> None:
    service, _ = served
    check_error(
        post_images(service.client, "json", [b"no image"]), 400, "invalid_parameter", "output"
    )


def test_the_model_tells_that_it_has_no_pooled_vectors(served: Served) -> None:
    service, _ = served
    (model,) = service.client.get("/v1/models").json()["data"]
    assert model["pooled"] is False
    assert service.client.get("/healthz").json()["selftest_cosine"] >= BAR
