"""Embed many images over HTTP: 32 in a request, four requests at a time, again when told to wait.

Run as `.venv/bin/python examples/client.py cat.jpg dog.png`, or copy it: it needs httpx alone.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

MAX_IMAGES, MAX_BYTES = 32, 30_000_000  # of a request; /v1/models tells what the service takes
AT_ONCE = 4  # requests

Batch = list[tuple[str, bytes]]
Vector = list[float]


def embed_images(client: httpx.Client, images: Iterable[bytes]) -> list[Vector]:
    """Return the vector of each image, in order."""

    def post(batch: Batch) -> httpx.Response:
        answer = client.post("/embed", files=batch)
        while "Retry-After" in answer.headers:  # of 429 and 503
            time.sleep(int(answer.headers["Retry-After"]))
            answer = client.post("/embed", files=batch)
        return answer

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return read_vectors(pool.map(post, in_batches(images)))


async def embed_images_async(client: httpx.AsyncClient, images: Iterable[bytes]) -> list[Vector]:
    """Return the vector of each image, in order."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def post(batch: Batch) -> httpx.Response:
        async with turn:
            answer = await client.post("/embed", files=batch)
            while "Retry-After" in answer.headers:
                await asyncio.sleep(int(answer.headers["Retry-After"]))
                answer = await client.post("/embed", files=batch)
        return answer

    return read_vectors(await asyncio.gather(*map(post, in_batches(images))))


def in_batches(images: Iterable[bytes]) -> Iterator[Batch]:
    """Group images into the form fields of one request each."""
    batch: Batch = []
    size = 0
    for image in images:
        if batch and (len(batch) == MAX_IMAGES or size + len(image) > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(("images", image))
        size += len(image)
    if batch:
        yield batch


def read_vectors(answers: Iterable[httpx.Response]) -> list[Vector]:
    """Return the vectors of all answers; raise what the first without any says."""
    vectors = []
    for answer in answers:
        if answer.is_error:
            raise RuntimeError(answer.text)
        vectors += [item["embedding"] for item in answer.json()["data"]]
    return vectors


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    with httpx.Client(base_url="http://localhost:8000", timeout=120) as client:
        vectors = embed_images(client, (path.read_bytes() for path in paths))
    for path, vector in zip(paths, vectors, strict=True):
        print(json.dumps({"path": str(path), "embedding": vector}))
