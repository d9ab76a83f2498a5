"""Pieces of work through the service, as many at once as keep the device busy; each becomes rows.

A piece is an image file, or some texts that are a batch or more.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from app.bulk.row import Row
from app.cores import count_cores
from app.engine.protocol import ModelInfo, TextInfo
from app.engine.service import EmbeddingService
from app.errors import DeadlineExceededError, ServiceError

# Two batches on the device or about to be, and as many that are being prepared meanwhile.
_BATCHES_IN_FLIGHT = 4
# Fewer texts would be tokenised and awaited more often than is free.
_LEAST_TEXTS = 64
# Nobody waits for one image; what does not answer at all ends in a standstill.
PATIENCE_S = 365 * 24 * 3600.0
# Looks, not seconds on a clock: they do not go on while the process is stopped.
_LOOK_EVERY_S = 1.0
_STANDSTILL_LOOKS = 300


def images_in_flight(info: ModelInfo) -> int:
    """Return how many images are to be read, decoded, computed and written at one time."""
    return _BATCHES_IN_FLIGHT * info.max_batch_size + count_cores()


def texts_per_piece(info: TextInfo) -> int:
    """Return how many texts are given to the service together: full batches."""
    return -(-_LEAST_TEXTS // info.max_batch_size) * info.max_batch_size


def texts_in_flight(info: TextInfo) -> int:
    """Return how many texts are to be tokenised, computed and written at one time."""
    return _BATCHES_IN_FLIGHT * texts_per_piece(info)


class Piece(Protocol):
    """Something to embed."""

    async def embed(self, service: EmbeddingService) -> Sequence[Row]:
        """Return its rows, also of what has failed; raises `WorkerDeadError`."""
        ...

    def fail(self, error: ServiceError) -> Sequence[Row]:
        """Return the rows of what has been given up."""
        ...


class Pipeline:
    """Embeds pieces, some at a time; `keep` gets each row when there is one, in any order."""

    def __init__(
        self, service: EmbeddingService, in_flight: int, keep: Callable[[Row], None]
    ) -> None:
        self._service = service
        self._in_flight = in_flight
        self._keep = keep
        self._workers: list[asyncio.Task[None]] = []
        self._waits: set[asyncio.Timeout] = set()
        self._kept = 0

    async def run(self, left: Iterator[Piece]) -> None:
        """Embed all pieces, or until `stop`.

        A bad image is a row with an error, and so is one whose file or decoder hangs, in the end.
        Raises `WorkerDeadError` when nothing more will be computed, and what `keep` raises.
        """
        looking = asyncio.create_task(self._end_standstills())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._in_flight):
                    self._workers.append(group.create_task(self._work(left)))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            looking.cancel()

    def stop(self) -> None:
        """Begin nothing more, and drop what has begun."""
        for worker in self._workers:
            worker.cancel()

    async def _work(self, left: Iterator[Piece]) -> None:
        for piece in left:
            for row in await self._embed(piece):
                self._keep(row)
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

    async def _embed(self, piece: Piece) -> Sequence[Row]:
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                return await piece.embed(self._service)
        except TimeoutError:
            return piece.fail(
                DeadlineExceededError("it was given up: nothing was done for minutes")
            )
        finally:
            self._waits.discard(wait)
