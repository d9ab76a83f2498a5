"""Images of one request to vectors: a permit, the decode pool, the batcher, the result."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from app.engine.admission import Admission
from app.engine.batcher import Batcher, Job
from app.engine.forward import ImageVectors, Outcome
from app.engine.protocol import Embedder, ModelInfo, UInt8Array
from app.engine.remote import RemoteImage, prepare_remote
from app.errors import (
    DeadlineExceededError,
    DrainingError,
    ImagesFailedError,
    ImageUndecodableError,
    ServiceError,
    WorkerDeadError,
)
from app.intake.decode import DecodedImage, DecodeLimits, decode_image
from app.intake.memory import DecodeMemory

_log = structlog.get_logger(__name__)

# Weight of the newest image in the running mean of seconds that decoding takes.
_DECODE_WEIGHT = 0.05

ImageSource = Callable[[], bytes]
"""Gives the encoded bytes of one image; runs on the decode pool and may raise a `ServiceError`."""


@dataclass(frozen=True)
class SeenImage:
    """What was seen of an image: upright size in pixels, encoded format, warning codes.

    `input_size` is the height and width in pixels that the model got of it.
    """

    width: int
    height: int
    format: str
    warnings: tuple[str, ...]
    input_size: tuple[int, int]


class EmbeddedImage(NamedTuple):
    """One image's vectors, and what was seen of it."""

    vectors: ImageVectors
    seen: SeenImage


@dataclass(frozen=True)
class Embedded:
    """The outcomes of one request in its order, and where its time went, in seconds."""

    outcomes: list[EmbeddedImage | ServiceError]
    stage_s: dict[str, float]


class _Prepared(NamedTuple):
    """A decoded image at the model's input size, and what was seen of it."""

    pixels: UInt8Array
    seen: SeenImage


Decoding = Future[_Prepared | ServiceError]


class EmbeddingService:
    """Turns encoded images into vectors; lives on one event loop and owns its threads."""

    def __init__(  # noqa: PLR0913 # what a machine can carry, each with its default
        self,
        embedder: Embedder,
        *,
        decode_limits: DecodeLimits,
        decode_fast: bool = False,
        max_batch_size: int,
        max_wait_s: float,
        queue_images: int | None = None,
        decode_memory: int = 2**30,
    ) -> None:
        self.info: ModelInfo = embedder.info
        self.batcher = Batcher(embedder, max_batch_size=max_batch_size, max_wait_s=max_wait_s)
        self.admission = Admission(
            self._images_per_s, least_images=2 * max_batch_size, queue_images=queue_images
        )
        self._decode_s = 0.0
        self._decode_memory = DecodeMemory(decode_memory)
        self._resize = embedder.resize
        self._decode_limits = decode_limits
        # Half as much again as the model's input leaves the resize enough: docs/performance.md.
        self._least_side = 3 * embedder.info.image_size // 2 if decode_fast else None
        self._decode_threads = os.cpu_count() or 1
        self._decode_pool = ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode")

    async def embed(
        self,
        sources: Sequence[ImageSource | RemoteImage],
        *,
        patches: bool,
        partial: bool,
        timeout_s: float,
    ) -> Embedded:
        """Decode and embed the images of one request, at least one.

        A failed image is a `ServiceError` among the outcomes when `partial`, else the whole request
        raises `ImagesFailedError`. Raises `QueueFullError` before any work, `DeadlineExceededError`
        after `timeout_s`, `WorkerDeadError` or `DrainingError` when nobody will compute.
        """
        self.admission.admit(len(sources), timeout_s)
        decoding = [self._begin(source) for source in sources]
        try:
            async with asyncio.timeout(timeout_s):
                return await self._embed(decoding, patches=patches, partial=partial)
        except TimeoutError:
            raise DeadlineExceededError("the time for this request ran out") from None
        finally:
            for image in decoding:
                self._release_after(image)

    def close(self, timeout_s: float) -> None:
        """Finish accepted work within `timeout_s`, fail the rest, end the threads. Blocks."""
        self.batcher.stop(timeout_s)
        self._decode_pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, source: ImageSource | RemoteImage) -> Decoding:
        if isinstance(source, RemoteImage):
            return prepare_remote(source, self._prepare, self._decode_pool)
        return self._decode_pool.submit(self._prepare, source)

    def _release_after(self, decoding: Decoding) -> None:
        """Give an image's permit back: now, or when a decode that cannot be interrupted has ended.

        Its caller may have left or run out of time before; the machine is no less busy for it.
        """
        decoding.cancel()  # if it has not begun, it need not
        decoding.add_done_callback(lambda _: self.admission.release())

    def _images_per_s(self) -> float:
        """Return the rate of the slower of decoding and inference; 0 before the first batch."""
        computed = self.batcher.images_per_s
        return min(computed, self._decode_threads / self._decode_s) if self._decode_s else computed

    async def _embed(
        self, decoding: Sequence[Decoding], *, patches: bool, partial: bool
    ) -> Embedded:
        stage_s: dict[str, float] = {}
        outcomes: dict[int, EmbeddedImage | ServiceError] = {}
        prepared: dict[int, _Prepared] = {}
        for index, image in enumerate(await _decoded(decoding, stage_s)):
            if isinstance(image, ServiceError):
                outcomes[index] = image
            else:
                prepared[index] = image
        _raise_if_failed(outcomes, len(decoding), partial=partial)
        pixels = [image.pixels for image in prepared.values()]
        vectors = await self._compute(pixels, patches, stage_s)
        for (index, image), outcome in zip(prepared.items(), vectors, strict=True):
            if isinstance(outcome, ServiceError):
                outcomes[index] = outcome
            else:
                outcomes[index] = EmbeddedImage(outcome, image.seen)
        _raise_if_failed(outcomes, len(decoding), partial=partial)
        return Embedded([outcomes[index] for index in range(len(decoding))], stage_s)

    async def _compute(
        self, pixels: Sequence[UInt8Array], patches: bool, stage_s: dict[str, float]
    ) -> list[Outcome]:
        job = Job(pixels, patches)
        self.batcher.submit(job)
        outcomes = await asyncio.wrap_future(job.future)
        started_at = job.started_at or job.queued_at
        stage_s["queue"] = started_at - job.queued_at
        stage_s["forward"] = time.monotonic() - started_at
        return outcomes

    def _prepare(self, source: ImageSource) -> _Prepared | ServiceError:
        """Decode and resize one image; runs on the decode pool, errors are values."""
        start = time.monotonic()
        try:
            with ExitStack() as held:  # until the image is small
                decoded = decode_image(
                    source(),
                    self._decode_limits,
                    reserve=lambda size: held.enter_context(self._decode_memory.reserved(size)),
                    least_side=self._least_side,
                )
                pixels = self._resize(decoded.pixels)
            self._note_decode_s(time.monotonic() - start)
            return _Prepared(pixels, self._seen(decoded, pixels))
        except ServiceError as error:
            # As a value it outlives the call, and its frames would keep the decoded pixels alive.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except Exception:  # noqa: BLE001 # a fault of ours must stay with its image
            _log.exception("decoding failed unexpectedly")
            return ImageUndecodableError("the image cannot be decoded")

    def _seen(self, decoded: DecodedImage, pixels: UInt8Array) -> SeenImage:
        width, height = decoded.size
        warnings = decoded.warnings
        input_height, input_width, _ = pixels.shape
        if width < input_width or height < input_height:
            warnings += ("upscaled",)
        if not self.info.pretrained:
            warnings += ("random_weights",)
        return SeenImage(width, height, decoded.format, warnings, (input_height, input_width))

    def _note_decode_s(self, seconds: float) -> None:
        weight = _DECODE_WEIGHT if self._decode_s else 1.0
        self._decode_s += weight * (seconds - self._decode_s)


async def _decoded(
    decoding: Sequence[Decoding], stage_s: dict[str, float]
) -> list[_Prepared | ServiceError]:
    start = time.monotonic()
    prepared = await asyncio.gather(*map(asyncio.wrap_future, decoding))
    stage_s["decode"] = time.monotonic() - start
    return prepared


def _raise_if_failed(
    outcomes: Mapping[int, EmbeddedImage | ServiceError], images: int, *, partial: bool
) -> None:
    """Fail the request for any bad image, or in partial mode when no image is left.

    Whatever ends all work alike is raised as it is: it is no matter of one image.
    """
    failed = {i: outcome for i, outcome in outcomes.items() if isinstance(outcome, ServiceError)}
    for error in failed.values():
        if isinstance(error, WorkerDeadError | DrainingError):
            raise error
    if failed and (not partial or len(failed) == images):
        raise ImagesFailedError(failed, all_failed=len(failed) == images and partial)
