"""Embed many images over HTTP: batches of 32, a few requests at a time, trying again when told to.

Run as `python examples/client.py cat.jpg dog.png`, or copy what you need; it takes httpx alone.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

IMAGES, BYTES = 32, 30_000_000  # in one request; the service's own limits are in /v1/models
AT_ONCE = 4  # requests, which is enough to keep the service busy
TRIES = 100

Vector = list[float]


def embed_images(client: httpx.Client, images: Iterable[bytes]) -> list[Vector]:
    """Return the vector of each image, in order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda batch: embed_batch(client, batch), in_batches(images))
        return [vector for vectors in answers for vector in vectors]


def embed_batch(client: httpx.Client, batch: list[bytes]) -> list[Vector]:
    """Send one request, and send it again while the service asks for that."""
    for _ in range(TRIES):
        response = client.post("/embed", files=[("images", image) for image in batch])
        if "Retry-After" not in response.headers:  # 429 and 503 have it
            break
        time.sleep(int(response.headers["Retry-After"]))
    return read_vectors(response)


async def embed_images_async(client: httpx.AsyncClient, images: Iterable[bytes]) -> list[Vector]:
    """Return the vector of each image, in order."""
    turn = asyncio.Semaphore(AT_ONCE)
    answers = (embed_batch_async(client, turn, batch) for batch in in_batches(images))
    return [vector for vectors in await asyncio.gather(*answers) for vector in vectors]


async def embed_batch_async(
    client: httpx.AsyncClient, turn: asyncio.Semaphore, batch: list[bytes]
) -> list[Vector]:
    """Send one request, and send it again while the service asks for that."""
    async with turn:
        for _ in range(TRIES):
            response = await client.post("/embed", files=[("images", image) for image in batch])
            if "Retry-After" not in response.headers:
                break
            await asyncio.sleep(int(response.headers["Retry-After"]))
    return read_vectors(response)


def in_batches(images: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Group images into requests, by number and by size."""
    batch: list[bytes] = []
    for image in images:
        if len(batch) == IMAGES or (batch and sum(map(len, batch)) + len(image) > BYTES):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def read_vectors(response: httpx.Response) -> list[Vector]:
    """Return the vectors of an answer; raise with the service's own words when it has none."""
    if response.is_error:
        raise RuntimeError(response.text)
    return [item["embedding"] for item in response.json()["data"]]


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    with httpx.Client(base_url="http://localhost:8000", timeout=120) as client:
        vectors = embed_images(client, (path.read_bytes() for path in paths))
    for path, vector in zip(paths, vectors, strict=True):
        print(json.dumps({"path": str(path), "embedding": vector}))
