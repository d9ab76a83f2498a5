"""NaFlex vectors over HTTP against transformers: images of many shapes, together and at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.settings import Settings
from tests.app.answers import check_error, cosines, from_base64, post_images
from tests.app.images import encode, scene
from tests.app.service_server import ServiceServer, run_service
from tests.naflex_reference import NaflexCheckpoint, reference_vectors, write_naflex_checkpoint

BAR = 0.99999
MAX_PATCHES = 24
NPY = {"Accept": "application/x-npy"}
# Width and height in pixels, and the grid that they get of at most 24 patches of 8 pixels.
SHAPES = {
    "square": ((200, 200), [4, 4]),
    "wide": ((300, 200), [4, 6]),
    "tall": ((120, 300), [8, 3]),
    "very wide": ((900, 60), [1, 15]),
    "small": ((9, 12), [6, 4]),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> NaflexCheckpoint:
    """A tiny NaFlex checkpoint."""
    folder = tmp_path_factory.mktemp("tiny-naflex")
    return write_naflex_checkpoint(folder, max_num_patches=MAX_PATCHES)


def settings_for(checkpoint: NaflexCheckpoint, **others: Any) -> Settings:
    """Return settings to serve it in float32."""
    values = {"revision": None, "model_fallback": None, "device": "cpu", "dtype": "float32"}
    return Settings(model=str(checkpoint.folder), **(values | others))


@pytest.fixture(scope="module")
def service(checkpoint: NaflexCheckpoint) -> Iterator[ServiceServer]:
    """A service with the checkpoint."""
    with run_service(settings_for(checkpoint)) as service:
        service.wait_for_status("ok")
        yield service


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """One image of each of `SHAPES`."""
    return [encode(scene(seed, size)) for seed, (size, _) in enumerate(SHAPES.values())]


def references(checkpoint: NaflexCheckpoint, images: list[bytes]) -> list[tuple[Any, Any]]:
    """Return the reference's pooled and patch vectors."""
    return reference_vectors(checkpoint, [Image.open(BytesIO(image)) for image in images])


def ask(service: ServiceServer, images: list[bytes], **options: Any) -> httpx.Response:
    """Ask for vectors of images in one JSON body."""
    return post_images(service.client, "json", images, options)


def test_a_mixed_request_gets_the_references_vectors_and_each_image_its_grid(
    service: ServiceServer, checkpoint: NaflexCheckpoint, images: list[bytes]
) -> None:
    answer = ask(service, images, output="both")

    assert answer.status_code == 200, answer.text
    for item, (pooled, patches), (_, grid) in zip(
        answer.json()["data"], references(checkpoint, images), SHAPES.values(), strict=True
    ):
        own = item["patches"]
        assert own["grid"] == grid
        assert own["shape"] == [grid[0] * grid[1], 32] == list(patches.shape)
        assert own["patch_size"] == 8
        assert own["input_size"] == [8 * side for side in grid]
        assert cosines(item["embedding"], pooled) >= BAR
        assert cosines(own["embedding"], patches).min() >= BAR
        np.testing.assert_allclose(
            own["embedding"], patches, rtol=0, atol=1e-4 * float(np.abs(patches).max())
        )


def test_an_image_gets_the_same_vector_alone_and_among_others(
    service: ServiceServer, images: list[bytes]
) -> None:
    together = ask(service, images).json()["data"]

    for item, image in zip(together, images, strict=True):
        (alone,) = ask(service, [image]).json()["data"]
        assert cosines(item["embedding"], alone["embedding"]) >= 0.999999


def test_requests_at_once_get_each_their_own_vectors(
    service: ServiceServer, checkpoint: NaflexCheckpoint, images: list[bytes]
) -> None:
    expected = references(checkpoint, images)
    order = [number % len(images) for number in range(60)]

    def ask_for(number: int) -> dict[str, Any]:
        item: dict[str, Any] = ask(service, [images[number]], output="both").json()["data"][0]
        return item

    with ThreadPoolExecutor(12) as pool:
        items = list(pool.map(ask_for, order))

    for number, item in zip(order, items, strict=True):
        pooled, patches = expected[number]
        assert cosines(item["embedding"], pooled) >= BAR
        assert cosines(item["patches"]["embedding"], patches).min() >= BAR


def test_a_bad_image_fails_alone_among_others_of_unequal_size(
    service: ServiceServer, checkpoint: NaflexCheckpoint, images: list[bytes]
) -> None:
    answer = ask(service, [images[0], b"no image", images[3]], on_error="partial")

    first, bad, last = answer.json()["data"]
    assert bad["error"]["code"] == "unsupported_image_format"
    expected = references(checkpoint, [images[0], images[3]])
    for item, (pooled, _) in zip((first, last), expected, strict=True):
        assert cosines(item["embedding"], pooled) >= BAR


def test_base64_holds_the_same_numbers_as_json(service: ServiceServer, images: list[bytes]) -> None:
    numbers = ask(service, images, output="patches").json()["data"]
    texts = ask(service, images, output="patches", encoding="base64").json()["data"]

    for number, text in zip(numbers, texts, strict=True):
        expected = np.array(number["patches"]["embedding"], np.float32)
        own = from_base64(text["patches"]["embedding"]).reshape(text["patches"]["shape"])
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-6 * float(np.abs(own).max()))


def test_patches_of_unequal_number_are_no_array(
    service: ServiceServer, images: list[bytes]
) -> None:
    answer = post_images(service.client, "json", images, {"output": "patches"}, NPY)

    check_error(answer, 406, "not_acceptable")


def test_pooled_vectors_of_unequal_images_and_patches_of_equal_ones_are_arrays(
    service: ServiceServer, images: list[bytes]
) -> None:
    pooled = post_images(service.client, "json", images, {}, NPY)
    patches = post_images(service.client, "json", images[1:2] * 2, {"output": "patches"}, NPY)

    assert np.load(BytesIO(pooled.content)).shape == (len(images), 32)
    assert np.load(BytesIO(patches.content)).shape == (2, 24, 32)


def test_only_an_enlarged_image_is_called_so(service: ServiceServer, images: list[bytes]) -> None:
    warnings = [item["warnings"] for item in ask(service, images).json()["data"]]

    assert ["upscaled" in each for each in warnings] == [False, False, False, False, True]


def test_the_model_tells_the_most_patches_of_an_image(service: ServiceServer) -> None:
    (model,) = service.client.get("/v1/models").json()["data"]

    assert (model["dim"], model["patch_size"], model["patches"]) == (32, 8, MAX_PATCHES)
    assert model["pretrained"]
    assert service.client.get("/healthz").json()["space"] == model["space"]


def test_an_answer_that_may_be_too_large_is_refused_before_any_work(
    checkpoint: NaflexCheckpoint, images: list[bytes]
) -> None:
    with run_service(settings_for(checkpoint, max_response_bytes=20_000)) as service:
        service.wait_for_status("ok")
        assert ask(service, images[:1], output="patches").status_code == 200
        check_error(ask(service, images[:2], output="patches"), 413, "response_too_large")


def test_large_jpegs_decoded_fast_keep_their_grid(
    checkpoint: NaflexCheckpoint, photographs: list[Image.Image]
) -> None:
    jpegs = [encode(photograph, "JPEG", quality=92) for photograph in photographs]
    with run_service(settings_for(checkpoint, decode="fast")) as service:
        service.wait_for_status("ok")
        items = ask(service, jpegs, output="both").json()["data"]

    for item, (pooled, patches) in zip(items, references(checkpoint, jpegs), strict=True):
        assert item["patches"]["shape"] == list(patches.shape)
        assert cosines(item["embedding"], pooled) >= 0.99
