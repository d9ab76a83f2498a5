"""Texts and images of one request, at the same time, each on its own way."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from app.engine.preparing import ImageSource
from app.engine.remote import RemoteImage
from app.engine.service import Embedded, EmbeddedImage, EmbeddingService
from app.engine.texts import EmbeddedText, EmbeddedTexts
from app.errors import ServiceError

Result = TypeVar("Result")


@dataclass(frozen=True)
class EmbeddedMixed:
    """The outcomes of one request in its order, and where its time went, in seconds."""

    texts: Sequence[EmbeddedText]
    images: Sequence[EmbeddedImage | ServiceError]
    stage_s: dict[str, float]


async def embed_mixed(
    service: EmbeddingService,
    texts: Sequence[str],
    sources: Sequence[ImageSource | RemoteImage],
    *,
    partial: bool = False,
    timeout_s: float,
) -> EmbeddedMixed:
    """Embed the texts and the images of one request; there may be none of either.

    What fails ends the other too. Raises what the two raise, and `TextDisabledError` where there
    are texts and no text tower.
    """
    working: dict[str, Coroutine[Any, Any, Any]] = {}
    if texts:
        working["texts"] = service.require_texts().embed(texts, timeout_s=timeout_s)
    if sources:
        working["images"] = service.embed(
            sources, patches=False, partial=partial, timeout_s=timeout_s
        )
    done = await _all(working)
    of_texts: EmbeddedTexts = done.get("texts", EmbeddedTexts([], {}))
    of_images: Embedded = done.get("images", Embedded([], {}))
    stage_s = dict(of_texts.stage_s)
    for stage, seconds in of_images.stage_s.items():
        # At the same time: of a stage that both have, the longer one was waited for.
        stage_s[stage] = max(seconds, stage_s.get(stage, 0.0))
    return EmbeddedMixed(of_texts.texts, of_images.outcomes, stage_s)


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
