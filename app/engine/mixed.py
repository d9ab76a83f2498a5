"""Texts and images of one request, at the same time, each on its own way."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from app.engine.preparing import ImageSource
from app.engine.remote import RemoteImage
from app.engine.service import EmbeddedImage, EmbeddingService
from app.engine.texts import EmbeddedText
from app.errors import ServiceError
from app.observe.work import Work

Result = TypeVar("Result")


@dataclass(frozen=True)
class EmbeddedMixed:
    """The outcomes of one request in its order."""

    texts: Sequence[EmbeddedText]
    images: Sequence[EmbeddedImage | ServiceError]


async def embed_mixed(
    service: EmbeddingService,
    texts: Sequence[str],
    sources: Sequence[ImageSource | RemoteImage],
    *,
    partial: bool = False,
    timeout_s: float,
    work: Work | None = None,
) -> EmbeddedMixed:
    """Embed the texts and the images of one request; there may be none of either.

    What fails ends the other too. Raises what the two raise, and `TextDisabledError` where there
    are texts and no text tower.
    """
    working: dict[str, Coroutine[Any, Any, Any]] = {}
    if texts:
        working["texts"] = service.require_texts().embed(texts, timeout_s=timeout_s, work=work)
    if sources:
        working["images"] = service.embed(
            sources, patches=False, partial=partial, timeout_s=timeout_s, work=work
        )
    done = await _all(working)
    return EmbeddedMixed(done.get("texts", []), done.get("images", []))


async def _all(working: Mapping[str, Coroutine[Any, Any, Result]]) -> dict[str, Result]:
    """Await all; the first that fails cancels the others."""
    if len(working) < 2:
        return {name: await work for name, work in working.items()}
    tasks = [asyncio.create_task(work) for work in working.values()]
    try:
        return dict(zip(working, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
