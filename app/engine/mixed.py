"""Texts and images of one request, on the ways that each of them has."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.engine.preparing import ImageSource
from app.engine.remote import RemoteImage
from app.engine.service import EmbeddedImage, EmbeddingService
from app.engine.texts import EmbeddedText
from app.errors import ServiceError


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
    """Embed the texts of one request and then its images; there may be none of either.

    Texts come first: they are short work, often remembered, and what is wrong with them costs no
    image. Raises what the two raise, and `TextDisabledError` where there are texts and no text
    tower.
    """
    start = time.monotonic()
    embedded_texts: Sequence[EmbeddedText] = ()
    images: Sequence[EmbeddedImage | ServiceError] = ()
    stage_s: dict[str, float] = {}
    if texts:
        embedded_texts = (await service.require_texts().embed(texts, timeout_s=timeout_s)).texts
        stage_s["texts"] = time.monotonic() - start
    if sources:
        left_s = max(0.0, timeout_s - (time.monotonic() - start))
        embedded = await service.embed(sources, patches=False, partial=partial, timeout_s=left_s)
        images = embedded.outcomes
        stage_s |= embedded.stage_s
    return EmbeddedMixed(embedded_texts, images, stage_s)
