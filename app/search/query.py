"""What is searched for, an image or a text, and its vector from the engine that `embed` uses."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from app.bulk.image_file import ImageFile
from app.bulk.row import BulkError
from app.engine.lifecycle import Engine
from app.engine.protocol import Embedder, Float32Array
from app.engine.service import EmbeddingService
from app.errors import FileUnreadableError, ServiceError, TextDisabledError, WorkerDeadError

_log = structlog.get_logger(__name__)

# Long enough for any one image on any device; what hangs is noticed before.
_PATIENCE_S = 300.0


class Query(Protocol):
    """Something that a service can embed."""

    async def embed(self, service: EmbeddingService) -> Float32Array:
        """Return the vector, (dim,), not normalised; raises `ServiceError` or `BulkError`."""
        ...


class ImageQuery:
    """An image file, which is read at once: one that cannot be had is told before a model loads."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Raises `BulkError`."""
        try:
            self._data = ImageFile(path, max_bytes)()
        except FileUnreadableError as error:
            raise BulkError(f"{path}: {error.message}") from None

    async def embed(self, service: EmbeddingService) -> Float32Array:
        """Decode it and return the vector."""
        embedded = await service.embed(
            [lambda: self._data], patches=False, partial=True, timeout_s=_PATIENCE_S
        )
        (image,) = embedded
        if isinstance(image, ServiceError):
            raise image
        vector: Float32Array = image.vectors.pooled
        return vector


class TextQuery:
    """A text."""

    def __init__(self, text: str, max_bytes: int) -> None:
        """Raises `BulkError`."""
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise BulkError("--text is not UTF-8") from None
        if not text.strip():
            raise BulkError("--text is empty")
        if size > max_bytes:
            raise BulkError(
                f"--text has {size} bytes; at most {max_bytes} are taken (SIGLIP_MAX_TEXT_BYTES)"
            )
        self._text = text

    async def embed(self, service: EmbeddingService) -> Float32Array:
        """Return the vector; warns of a text of which the model gets a part only."""
        try:
            texts = service.require_texts()
        except TextDisabledError as error:
            raise BulkError(f"{error.message}; search with --image") from None
        embedded = await texts.embed([self._text], timeout_s=_PATIENCE_S)
        (text,) = embedded
        if text.truncated:
            _log.warning("the text is cut short", tokens=text.tokens)
        return text.vector


def pick_query(
    image: Path | None, text: str | None, max_image_bytes: int, max_text_bytes: int
) -> Query:
    """Return the one that is given; raises `BulkError`, also for both or none."""
    if image is not None and text is None:
        return ImageQuery(image, max_image_bytes)
    if text is not None and image is None:
        return TextQuery(text, max_text_bytes)
    raise BulkError("give either --image or --text")


def embed_query(
    query: Query, embedder: Embedder, build: Callable[[Embedder], EmbeddingService]
) -> Float32Array:
    """Return the vector of a query; raises what it raises, and `WorkerDeadError`."""
    return asyncio.run(_embed(query, embedder, Engine(build)))


async def _embed(query: Query, embedder: Embedder, engine: Engine) -> Float32Array:
    await engine.start(lambda: embedder)
    embedding = asyncio.create_task(query.embed(engine.require_service()))
    watching = asyncio.create_task(engine.watch())
    watching.add_done_callback(lambda _: embedding.cancel())
    try:
        return await embedding
    except asyncio.CancelledError:
        raise WorkerDeadError("the engine failed") from None
    finally:
        watching.cancel()
        await engine.close()
