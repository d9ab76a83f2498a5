"""Files through the service, as many at once as keep the device busy; each becomes a row."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from app.bulk.image_file import ImageFile
from app.bulk.row import OutputKind, Row
from app.engine.forward import unit_vector
from app.engine.protocol import ModelInfo
from app.engine.service import EmbeddedImage, EmbeddingService
from app.errors import DeadlineExceededError, ItemsFailedError, ServiceError

# Two batches on the device or about to be, and as many images that are being prepared meanwhile.
_BATCHES_IN_FLIGHT = 4
# Nobody waits for one image; what does not answer at all ends in a standstill.
_PATIENCE_S = 365 * 24 * 3600.0
# Looks, not seconds on a clock: they do not go on while the process is stopped.
_LOOK_EVERY_S = 1.0
_STANDSTILL_LOOKS = 300


def images_in_flight(info: ModelInfo) -> int:
    """Return how many images are to be read, decoded, computed and written at one time."""
    return _BATCHES_IN_FLIGHT * info.max_batch_size + (os.cpu_count() or 1)


@dataclass(frozen=True)
class VectorOptions:
    """Which vectors each image is to have, and how many bytes its file may have."""

    output: OutputKind
    normalize: bool
    max_image_bytes: int


class Pipeline:
    """Embeds files; `keep` gets each row as soon as there is one, in no particular order."""

    def __init__(
        self, service: EmbeddingService, options: VectorOptions, keep: Callable[[Row], None]
    ) -> None:
        self._service = service
        self._options = options
        self._keep = keep
        self._workers: list[asyncio.Task[None]] = []
        self._waits: set[asyncio.Timeout] = set()
        self._kept = 0

    async def run(self, files: Mapping[str, str]) -> None:
        """Embed all files, or until `stop`.

        A bad image is a row with an error, and so is one whose file or decoder hangs, in the end.
        Raises `WorkerDeadError` when nothing more will be computed, and what `keep` raises.
        """
        left = iter(files.items())
        looking = asyncio.create_task(self._end_standstills())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(images_in_flight(self._service.info)):
                    self._workers.append(group.create_task(self._work(left)))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            looking.cancel()

    def stop(self) -> None:
        """Begin nothing more, and drop what has begun."""
        for worker in self._workers:
            worker.cancel()

    async def _work(self, left: Iterator[tuple[str, str]]) -> None:
        for name, path in left:
            self._keep(await self._embed(name, path))
            self._kept += 1

    async def _end_standstills(self) -> None:
        """Give up all that has begun when none of it ends for minutes."""
        looks, kept = 0, 0
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            looks, kept = (looks + 1 if self._kept == kept else 0), self._kept
            if looks >= _STANDSTILL_LOOKS:
                looks = 0
                for wait in self._waits:
                    wait.reschedule(0)

    async def _embed(self, name: str, path: str) -> Row:
        file = ImageFile(path, self._options.max_image_bytes)
        outcome = await self._outcome(file)
        if isinstance(outcome, ServiceError):
            return Row(name, file.sha256, error=outcome.code, message=outcome.message)
        return self._row(name, file.sha256, outcome)

    async def _outcome(self, file: ImageFile) -> EmbeddedImage | ServiceError:
        patches = self._options.output != "pooled"
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                embedded = await self._service.embed(
                    [file], patches=patches, partial=False, timeout_s=_PATIENCE_S
                )
        except ItemsFailedError as failed:
            return failed.details[0][1]
        except TimeoutError:
            return DeadlineExceededError("it was given up: no image was done for minutes")
        finally:
            self._waits.discard(wait)
        return embedded.outcomes[0]

    def _row(self, name: str, sha256: str | None, image: EmbeddedImage) -> Row:
        seen, (pooled, patches) = image.seen, image.vectors
        rows, columns = (side // self._service.info.patch_size for side in seen.input_size)
        if self._options.output == "patches":
            pooled = None
        elif self._options.normalize:
            pooled = unit_vector(pooled).astype(np.float32)
        return Row(
            name,
            sha256,
            seen.width,
            seen.height,
            grid=None if patches is None else (rows, columns),
            embedding=pooled,
            patches=patches,
        )
