"""examples/client.py against a service that others keep busy: every image gets its own vector."""

import asyncio
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from app.settings import Settings
from examples import client as example
from tests.app.fake_embedder import FakeEmbedder, expected_pooled
from tests.app.images import Colour, plain_png
from tests.app.service_server import ServiceServer, run_service

COLOURS: list[Colour] = [(number // 16, number % 16, 7) for number in range(200)]

Embed = Callable[[str, list[bytes], Callable[[httpx.Response], None]], list[example.Vector]]


def embed_sync(
    url: str, images: list[bytes], see: Callable[[httpx.Response], None]
) -> list[example.Vector]:
    with httpx.Client(base_url=url, event_hooks={"response": [see]}, trust_env=False) as client:
        return example.embed_images(client, images)


def embed_async(
    url: str, images: list[bytes], see: Callable[[httpx.Response], None]
) -> list[example.Vector]:
    async def hook(response: httpx.Response) -> None:
        see(response)

    async def run() -> list[example.Vector]:
        async with httpx.AsyncClient(
            base_url=url, event_hooks={"response": [hook]}, trust_env=False
        ) as client:
            return await example.embed_images_async(client, images)

    return asyncio.run(run())


@pytest.fixture
def fake() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def service(fake: FakeEmbedder) -> Iterator[ServiceServer]:
    with run_service(Settings(queue_images=1), fake) as running:
        yield running


@pytest.mark.parametrize("embed", [embed_sync, embed_async])
def test_every_image_gets_its_vector_in_order_although_requests_are_refused(
    service: ServiceServer, fake: FakeEmbedder, embed: Embed
) -> None:
    statuses: list[int] = []

    def see(response: httpx.Response) -> None:
        """Free the device, which is held up until then, at the first refusal."""
        statuses.append(response.status_code)
        if response.status_code == 429:
            fake.gate.set()

    fake.gate.clear()
    vectors = embed(service.url, [plain_png(colour) for colour in COLOURS], see)

    expected = np.array([expected_pooled(colour) for colour in COLOURS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert 429 in statuses
    assert statuses.count(200) == 7  # of 32 images each, the last of 8


def test_requests_are_bounded_by_number_and_by_size() -> None:
    big, small = b"b" * (example.MAX_BYTES // 2), b"s"

    batches = list(example.in_batches([small] * 33 + [big] * 2 + [big * 3] + [small]))

    assert [len(batch) for batch in batches] == [32, 2, 1, 1, 1]
    assert list(example.in_batches([])) == []


def test_what_is_wrong_with_an_image_is_told(service: ServiceServer) -> None:
    with pytest.raises(RuntimeError, match="unsupported_image_format"):
        example.embed_images(service.client, [b"no image"])
