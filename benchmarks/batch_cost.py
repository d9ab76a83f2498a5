"""What a batch of 1, 2, 4, ... images costs: a peak of images/s tells the best batch size."""

from collections import deque
from functools import partial

from app.engine.protocol import Embedder, Pending, UInt8Array
from benchmarks.material import photograph_pixels
from benchmarks.report import Row
from benchmarks.timing import Clock, time_interleaved

_PAUSE_S = 0.02  # OpenMP's threads spin for a few milliseconds after their work


def cost_rows(embedder: Embedder, largest_batch: int, rounds: int, clock: Clock) -> list[Row]:
    """Time batches of every power of two up to the largest."""
    sizes = [2**n for n in range(largest_batch.bit_length())]
    pixels = photograph_pixels(sizes[-1], embedder.info.image_size)
    calls = {str(size): partial(_embed_batches, embedder, pixels[:size]) for size in sizes}
    timings = time_interleaved(calls, rounds, _PAUSE_S, clock)
    seconds = {size: timings[str(size)].low_s / _batches(embedder) for size in sizes}
    return [
        {
            "batch": size,
            "in flight": embedder.batches_in_flight,
            "ms": seconds[size] * 1000,
            "ms per image": seconds[size] * 1000 / size,
            "images/s": size / seconds[size],
            "dtype": embedder.info.dtype,
        }
        for size in sizes
    ]


def _batches(embedder: Embedder) -> int:
    """Return how many batches in a row show how they overlap; one where they do not."""
    return 1 if embedder.batches_in_flight == 1 else 8 * embedder.batches_in_flight


def _embed_batches(embedder: Embedder, pixels: UInt8Array) -> None:
    """Embed a batch again and again, as many in flight as the service has under load."""
    waits: deque[Pending] = deque()
    for _ in range(_batches(embedder)):
        if len(waits) == embedder.batches_in_flight:
            waits.popleft()()
        waits.append(embedder.begin(pixels))
    for wait in waits:
        wait()
