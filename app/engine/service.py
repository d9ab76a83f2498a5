"""Images of one request to vectors: a permit, the decode pool, the batcher, the result."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from app.engine.admission import Admission, Permits
from app.engine.batcher import Batcher
from app.engine.failures import raise_if_failed
from app.engine.forward import OwnVectors
from app.engine.job import Job
from app.engine.labels import RecentLabels
from app.engine.preparing import ImageSource, PreparedImage, Preparer, Preparing, SeenImage
from app.engine.protocol import NO_TEXTS, Embedder, ModelInfo, NoTexts, TextEmbedder
from app.engine.remote import RemoteImage
from app.engine.texts import TextService
from app.errors import (
    DeadlineExceededError,
    ItemsFailedError,
    ServiceError,
    TextDisabledError,
)
from app.intake.decode import DecodeLimits
from app.observe.metrics import count_items
from app.observe.work import Work


class EmbeddedImage(NamedTuple):
    """One image's vectors, and what was seen of it."""

    vectors: OwnVectors
    seen: SeenImage


class EmbeddingService:
    """Turns encoded images into vectors; lives on one event loop and owns its threads."""

    def __init__(  # noqa: PLR0913 # the settings of its parts
        self,
        embedder: Embedder,
        *,
        decode_limits: DecodeLimits,
        decode_fast: bool = False,
        max_wait_s: float,
        queue_images: int | None = None,
        queue_texts: int | None = None,
        decode_memory: int = 2**30,
        texts: TextEmbedder | NoTexts = NO_TEXTS,
    ) -> None:
        self.info: ModelInfo = embedder.info
        largest = embedder.info.max_batch_size
        self.batcher = Batcher(
            embedder,
            max_batch_size=largest,
            max_wait_s=max_wait_s,
            texts=None if isinstance(texts, NoTexts) else texts,
        )
        self._texts = (
            texts if isinstance(texts, NoTexts) else TextService(texts, self.batcher, queue_texts)
        )
        self.labels = RecentLabels()
        self.admission = Admission(self._images_per_s, least=2 * largest, fixed=queue_images)
        self._preparer = Preparer(
            embedder, decode_limits, fast=decode_fast, decode_memory=decode_memory
        )

    @property
    def stalled(self) -> bool:
        """Whether the device takes too long to be hoped for, or no image can be decoded."""
        return self.batcher.stalled or self._preparer.broken

    @property
    def lost(self) -> bool:
        """Whether only a new process will compute again."""
        return self.batcher.lost or self._preparer.broken

    @property
    def texts(self) -> TextService | None:
        """What turns texts into vectors, where the model has that."""
        return None if isinstance(self._texts, NoTexts) else self._texts

    def require_texts(self) -> TextService:
        """Return it, or raise the `TextDisabledError` that says why there is none."""
        if isinstance(self._texts, NoTexts):
            raise TextDisabledError(f"no texts here: {self._texts.reason}")
        return self._texts

    async def embed(
        self,
        sources: Sequence[ImageSource | RemoteImage],
        *,
        patches: bool,
        partial: bool,
        timeout_s: float,
        work: Work | None = None,
    ) -> list[EmbeddedImage | ServiceError]:
        """Decode and embed the images of one request, at least one: outcomes in its order.

        A failed image is a `ServiceError` among the outcomes when `partial`, else the whole request
        raises `ItemsFailedError`. Raises `QueueFullError` before any work, `DeadlineExceededError`
        after `timeout_s`, `WorkerDeadError` or `DrainingError` when nobody will compute. `work` has
        what was done of it.
        """
        work = work or Work()
        work.images += len(sources)
        permits = self.admission.admit(len(sources), timeout_s)
        preparing: list[Preparing] = []
        outcomes: list[EmbeddedImage | ServiceError] = []
        try:
            preparing.extend(self._preparer.begin(source, owner=permits) for source in sources)
            async with asyncio.timeout(timeout_s):
                outcomes = await self._embed(preparing, permits, work, patches, partial)
        except ItemsFailedError as error:
            outcomes.extend(failed for _, failed in error.details)
            raise
        except TimeoutError:
            raise DeadlineExceededError("the time for this request ran out") from None
        finally:
            for index, image in enumerate(preparing):
                _release_after(image, permits, index)
            for index in range(len(preparing), len(sources)):
                permits.release(index)
            _count(outcomes, dropped=len(sources) - len(outcomes))
        return outcomes

    def close(self, timeout_s: float) -> None:
        """Finish accepted work within `timeout_s`, fail the rest, end the threads. Blocks."""
        self.batcher.stop(timeout_s)
        if self.texts is not None:
            self.texts.close()
        self._preparer.close()

    def _images_per_s(self) -> float:
        """Return the rate of the slower of decoding and inference; 0 before the first batch."""
        return min(self.batcher.per_second("image"), self._preparer.images_per_s)

    async def _embed(
        self,
        preparing: Sequence[Preparing],
        permits: Permits,
        work: Work,
        patches: bool,
        partial: bool,
    ) -> list[EmbeddedImage | ServiceError]:
        outcomes: dict[int, EmbeddedImage | ServiceError] = {}
        prepared: dict[int, PreparedImage] = {}
        for index, image in enumerate(await _prepared(preparing, work)):
            if isinstance(image, ServiceError):
                outcomes[index] = image
                permits.release(index)
            else:
                prepared[index] = image
        raise_if_failed("image", outcomes, partial=partial)
        pixels, places = [image.pixels for image in prepared.values()], [*prepared]
        job = Job(
            pixels,
            patches,
            on_settled=lambda index: permits.release(places[index]),
            work=work,
        )
        vectors = await self.batcher.compute(job) if prepared else []
        for (index, image), outcome in zip(prepared.items(), vectors, strict=True):
            if isinstance(outcome, ServiceError):
                outcomes[index] = outcome
            else:
                outcomes[index] = EmbeddedImage(outcome, image.seen)
        raise_if_failed("image", outcomes, partial=partial)
        return [outcomes[index] for index in range(len(preparing))]


def _release_after(image: Preparing, permits: Permits, index: int) -> None:
    """Give an image's permit back: now, or when a decode that cannot be interrupted has ended.

    Its caller may have left or run out of time before; the machine is no less busy for it.
    """
    image.cancel()  # if it has not begun, it need not
    image.add_done_callback(lambda _: permits.release(index))


async def _prepared(
    preparing: Sequence[Preparing], work: Work
) -> list[PreparedImage | ServiceError]:
    start = time.monotonic()
    try:
        return await asyncio.gather(*map(asyncio.wrap_future, preparing))
    finally:
        work.note("decode", start)


def _count(outcomes: Sequence[EmbeddedImage | ServiceError], *, dropped: int) -> None:
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, ServiceError)]
    count_items("image", len(outcomes) - len(codes), codes, dropped)
