"""Vectors over HTTP against transformers: real photographs, every form, pooled and every patch."""

from collections.abc import Iterator
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from app.settings import Settings
from tests.app.answers import FORMS, cosines, from_base64, post_images
from tests.app.images import encode
from tests.app.reference_pipeline import ReferencePipeline
from tests.app.service_server import ServiceServer, run_service
from tests.reference import ReferenceCheckpoint, tiny_vision_config, write_checkpoint

BAR = 0.99999
NAMES = ("astronaut", "coffee", "chelsea", "rocket")


@pytest.fixture(scope="module")
def real_shape_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ReferenceCheckpoint:
    """Two layers of the shape of siglip-base-patch16-224."""
    config = tiny_vision_config(
        hidden_size=768,
        intermediate_size=3072,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    )
    return write_checkpoint(tmp_path_factory.mktemp("real-shape"), config, seed=7)


@pytest.fixture(scope="module")
def bilinear_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ReferenceCheckpoint:
    """The tiny shape with the resize of SigLIP 2."""
    return write_checkpoint(
        tmp_path_factory.mktemp("bilinear"), seed=8, resample=Image.Resampling.BILINEAR
    )


@pytest.fixture(scope="module", params=["tiny", "real-shape", "bilinear"])
def served(
    request: pytest.FixtureRequest,
    tiny_checkpoint: ReferenceCheckpoint,
    real_shape_checkpoint: ReferenceCheckpoint,
    bilinear_checkpoint: ReferenceCheckpoint,
) -> Iterator[tuple[ServiceServer, ReferencePipeline]]:
    """A service with one of the checkpoints in float32, and the reference for it."""
    checkpoint = {
        "tiny": tiny_checkpoint,
        "real-shape": real_shape_checkpoint,
        "bilinear": bilinear_checkpoint,
    }[request.param]
    settings = Settings(
        model=str(checkpoint.folder),
        revision=None,
        model_fallback=None,
        device="cpu",
        dtype="float32",
    )
    with run_service(settings) as service:
        service.wait_for_status("ok")
        yield service, ReferencePipeline(checkpoint)


@pytest.fixture(scope="module")
def jpegs(photographs: list[Image.Image]) -> list[bytes]:
    """The photographs as a camera would store them."""
    return [encode(photograph, "JPEG", quality=92) for photograph in photographs]


def check_item(item: dict[str, object], image: bytes, reference: ReferencePipeline) -> None:
    """Assert that one item's pooled vector and every patch vector are the reference's."""
    pooled, patches = reference.vectors(Image.open(BytesIO(image)))
    own_patches = item["patches"]
    assert isinstance(own_patches, dict)
    assert cosines(item["embedding"], pooled) >= BAR  # type: ignore[arg-type]
    assert own_patches["shape"] == list(patches.shape)
    assert cosines(own_patches["embedding"], patches).min() >= BAR
    np.testing.assert_allclose(
        own_patches["embedding"], patches, rtol=0, atol=1e-4 * float(np.abs(patches).max())
    )


@pytest.mark.parametrize("form", ["multipart", "json", "json-data-uri"])
def test_a_batch_of_photographs_gets_the_references_vectors(
    served: tuple[ServiceServer, ReferencePipeline], jpegs: list[bytes], form: str
) -> None:
    service, reference = served

    answer = post_images(service.client, form, jpegs, {"output": "both"})

    assert answer.status_code == 200, answer.text
    for item, image in zip(answer.json()["data"], jpegs, strict=True):
        check_item(item, image, reference)


@pytest.mark.parametrize("form", ["raw", "octet-stream"])
@pytest.mark.parametrize("photograph", range(len(NAMES)), ids=NAMES)
def test_a_single_photograph_gets_the_references_vectors(
    served: tuple[ServiceServer, ReferencePipeline],
    jpegs: list[bytes],
    photograph: int,
    form: str,
) -> None:
    service, reference = served
    image = jpegs[photograph]

    answer = post_images(service.client, form, [image], {"output": "both"})

    assert answer.status_code == 200, answer.text
    check_item(answer.json()["data"][0], image, reference)


def test_vectors_that_are_not_normalised_have_the_references_length(
    served: tuple[ServiceServer, ReferencePipeline], jpegs: list[bytes]
) -> None:
    service, reference = served

    answer = post_images(service.client, "json", jpegs, {"normalize": False})

    for item, image in zip(answer.json()["data"], jpegs, strict=True):
        pooled = reference.pooled(Image.open(BytesIO(image)))
        np.testing.assert_allclose(
            item["embedding"], pooled, rtol=0, atol=1e-4 * float(np.abs(pooled).max())
        )


@pytest.mark.parametrize("answer_form", ["application/x-npy", "application/octet-stream"])
@pytest.mark.parametrize("output", ["pooled", "patches"])
def test_binary_and_base64_answers_hold_the_same_numbers_as_json(
    served: tuple[ServiceServer, ReferencePipeline],
    jpegs: list[bytes],
    answer_form: str,
    output: str,
) -> None:
    service, _ = served
    options = {"output": output}

    in_json = post_images(service.client, "json", jpegs, options)
    in_base64 = post_images(service.client, "json", jpegs, options | {"encoding": "base64"})
    binary = post_images(service.client, "json", jpegs, options, {"Accept": answer_form})

    numbers = read_array(binary)
    texts = vectors_of(in_base64, output)
    from_json = np.array(vectors_of(in_json, output), np.float32)
    from_texts = np.stack([from_base64(text).reshape(numbers.shape[1:]) for text in texts])
    for other in (from_json, from_texts):  # three requests, perhaps in other batches
        np.testing.assert_allclose(other, numbers, rtol=0, atol=1e-6 * float(np.abs(numbers).max()))


def vectors_of(answer: httpx.Response, output: str) -> list[str]:
    """Return the vectors of a JSON answer as they stand in it."""
    items = answer.json()["data"]
    if output == "pooled":
        return [item["embedding"] for item in items]
    return [item["patches"]["embedding"] for item in items]


def read_array(answer: httpx.Response) -> np.ndarray:
    """Read the float32 array of a binary answer."""
    if answer.headers["content-type"] == "application/x-npy":
        array: np.ndarray = np.load(BytesIO(answer.content), allow_pickle=False)
        return array
    shape = [int(side) for side in answer.headers["x-embedding-shape"].split(",")]
    return np.frombuffer(answer.content, "<f4").reshape(shape)


def test_every_form_of_request_gives_the_same_vector(
    served: tuple[ServiceServer, ReferencePipeline], jpegs: list[bytes]
) -> None:
    service, _ = served

    vectors = [
        post_images(service.client, form, jpegs[:1]).json()["data"][0]["embedding"]
        for form in FORMS
    ]

    for vector in vectors[1:]:
        np.testing.assert_allclose(vector, vectors[0], rtol=0, atol=1e-6)


def test_an_image_gets_the_same_vector_alone_and_in_a_batch(
    served: tuple[ServiceServer, ReferencePipeline], jpegs: list[bytes]
) -> None:
    service, _ = served
    together = post_images(service.client, "json", jpegs).json()["data"]

    for item, image in zip(together, jpegs, strict=True):
        (alone,) = post_images(service.client, "raw", [image]).json()["data"]
        assert cosines(item["embedding"], alone["embedding"]) >= 0.999999
