"""Many clients at once against a real model: each gets its own vector or its own error."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.app.answers import FORMS, cosines, post_images
from tests.app.images import NO_IMAGE, encode, png_claiming, scene, truncated_jpeg
from tests.app.reference_pipeline import ReferencePipeline
from tests.app.service_server import ServiceServer

Vector = npt.NDArray[np.float32]

CLIENTS = 64
REQUESTS_OF_A_CLIENT = 4

ENCODINGS: tuple[Callable[[Image.Image], bytes], ...] = (
    lambda image: encode(image, "PNG"),
    lambda image: encode(image, "JPEG", quality=90),
    lambda image: encode(image, "JPEG", progressive=True),
    lambda image: encode(image, "WEBP", quality=80),
    lambda image: encode(image, "WEBP", lossless=True),
    lambda image: encode(image.quantize(64), "GIF"),
    lambda image: encode(image, "BMP"),
    lambda image: encode(image.convert("L"), "PNG"),
    lambda image: encode(image.convert("CMYK"), "JPEG"),
)
BAD = {
    NO_IMAGE: "unsupported_image_format",
    truncated_jpeg(): "image_truncated",
    b"\xff\xd8\xff" + bytes(50): "image_undecodable",
    png_claiming(30_000, 30_000): "image_too_large",
}


@dataclass(frozen=True)
class Task:
    """One request of a client: its form, and its images by their place in the pool."""

    form: str
    images: list[int]
    partial: bool


def draw_tasks(pool: list[bytes], seed: int) -> list[Task]:
    """Draw the requests of one client."""
    draw = random.Random(seed)  # noqa: S311 # not for secrets
    tasks = []
    for _ in range(REQUESTS_OF_A_CLIENT):
        form = draw.choice(FORMS)
        count = 1 if form in ("raw", "octet-stream") else draw.randint(1, 5)
        images = [draw.randrange(len(pool)) for _ in range(count)]
        tasks.append(Task(form, images, partial=draw.random() < 0.7))
    return tasks


@pytest.fixture(scope="module")
def pool() -> list[bytes]:
    """Encoded images of many sizes and formats, good and bad."""
    sizes = [(60, 40), (33, 90), (8, 8), (200, 150), (1, 70)]
    good = [
        encoder(scene(number, sizes[number % len(sizes)]))
        for number, encoder in enumerate(ENCODINGS * 3)
    ]
    return [*good, *BAD]


@pytest.fixture(scope="module")
def expected(pool: list[bytes], tiny_reference: ReferencePipeline) -> list[Vector | str]:
    """The reference's vector for each good image of the pool, the error code for each bad one."""
    return [
        BAD[data] if data in BAD else tiny_reference.pooled(Image.open(BytesIO(data)))
        for data in pool
    ]


def test_the_images_of_the_pool_are_told_apart_by_the_bar(
    expected: list[Vector | str],
) -> None:
    vectors = [vector for vector in expected if not isinstance(vector, str)]
    for first in range(len(vectors)):
        for second in range(first):
            assert cosines(vectors[first], vectors[second]) < 0.9999, (first, second)


def test_64_clients_with_good_and_bad_images_get_each_their_own(
    tiny_server: ServiceServer, pool: list[bytes], expected: list[Vector | str]
) -> None:
    def run_client(seed: int) -> list[tuple[Task, httpx.Response]]:
        with httpx.Client(base_url=tiny_server.url, timeout=60, trust_env=False) as client:
            return [
                (task, post_images(client, task.form, [pool[i] for i in task.images], options))
                for task in draw_tasks(pool, seed)
                for options in [{"on_error": "partial" if task.partial else "fail"}]
            ]

    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = [answer for run in threads.map(run_client, range(CLIENTS)) for answer in run]

    assert len(answers) == CLIENTS * REQUESTS_OF_A_CLIENT
    outcomes = [check_answer(task, answer, expected) for task, answer in answers]
    assert {"vectors", "partial", "failed"} == set(outcomes)
    assert tiny_server.client.get("/healthz").json()["queue"]["images"] == 0


def check_answer(task: Task, answer: httpx.Response, expected: list[Vector | str]) -> str:
    """Assert that every image of a request got what is its own; say how the request ended."""
    wanted = [expected[index] for index in task.images]
    bad = [code for code in wanted if isinstance(code, str)]
    if bad and not task.partial:
        error = answer.json()["error"]
        assert 400 <= answer.status_code < 500
        assert [item["code"] for item in error["details"]] == bad
        return "failed"
    assert answer.status_code == 200, answer.text
    items = answer.json()["data"]
    assert len(items) == len(wanted)
    for item, own in zip(items, wanted, strict=True):
        if isinstance(own, str):
            assert item["error"]["code"] == own
        else:
            assert cosines(item["embedding"], own) >= 0.99999
    return "partial" if bad else "vectors"
