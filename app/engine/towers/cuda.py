"""Batches through a tower on a CUDA device, the copies of one beside the computing of another.

There is a stream for each: while the device computes one batch, the pixels of the next come up from
pinned memory, and the vectors of the last go down into it. Computing is a CUDA graph where batches
have one shape. docs/decisions/0013-gpu-overlap.md; none of it has ever run on a device.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
import torch

from app.engine.protocol import Vectors
from app.engine.towers.batch import Batch, Collate, Tower
from app.engine.towers.buckets import bucket_sizes
from app.engine.towers.recording import RecordedTower, cuda_recorder
from app.engine.towers.runner import run_largest_batches

_log = structlog.get_logger(__name__)


class CudaRunner:
    """Queues batches on a CUDA device; see `app.engine.towers.runner`.

    It is for one thread at a time, not always the same. Any number of batches may be queued: each
    has memory of its own until it is waited for.

    `to_record` is what computes the same as `tower` and is recorded, where batches allow that. What
    is not recorded, for any reason, `tower` computes; with `must_record` that is raised instead.
    """

    batches_in_flight = 2
    """One computes, and one more is ready, so that the device never waits for the host."""

    def __init__(
        self,
        tower: Tower,
        collate: Collate,
        device: torch.device,
        to_record: Tower | None = None,
        *,
        must_record: bool = False,
    ) -> None:
        self._tower, self._collate, self._device = tower, collate, device
        self._to_record, self._must_record = to_record, must_record
        self._recorded: RecordedTower | None = None
        self._warmed_with: tuple[Any, int] | None = None
        self._upload, self._compute, self._download = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # of torch
            for _ in range(3)
        )
        self._idle: list[_PinnedBuffers] = []
        torch.cuda.synchronize(device)  # the tower's weights have come through another stream

    @property
    def graph_sizes(self) -> tuple[int, ...]:
        """Sizes of batches that are CUDA graphs; empty where that was not wanted, or failed."""
        return () if self._recorded is None else self._recorded.sizes

    def warm_up(self, one: Any, max_batch_size: int) -> None:
        """Run batches of all sizes, the largest first, and record them.

        First use is slow, and takes the memory that is needed.
        """
        self._recorded, self._warmed_with = None, (one, max_batch_size)
        run_largest_batches(self, one, max_batch_size)
        self.enter_thread()
        if self._to_record is not None:
            self._try_to_record(self._to_record, one, max_batch_size)

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return all sizes that may be recorded, each a program of its own, and one between."""
        return sorted({*bucket_sizes(max_batch_size), max(1, max_batch_size - 1)})

    def enter_thread(self) -> None:
        """Run batches of all sizes that it was warmed up with.

        cuBLAS begins anew in each thread, and what is not recorded would wait for that.
        """
        if self._warmed_with is None or self._recorded is not None:
            return
        one, max_batch_size = self._warmed_with
        for size in reversed(bucket_sizes(max_batch_size)):
            self.begin([one] * size, size)()

    @torch.inference_mode()
    def begin(self, inputs: Any, patches_of: int) -> Callable[[], Vectors]:
        """Queue a batch and return at once."""
        batch = self._collate(inputs)
        buffers = self._idle.pop() if self._idle else _PinnedBuffers()
        with torch.cuda.stream(self._upload):  # makes its device the current one as well
            staged = buffers.take("inputs", batch.shape, batch.dtype)
            batch.write(staged.numpy())
            on_device = staged.to(self._device, non_blocking=True)
        self._compute.wait_stream(self._upload)
        with torch.cuda.stream(self._compute):
            results = self._run(batch, on_device, patches_of)
        self._download.wait_stream(self._compute)
        with torch.cuda.stream(self._download):
            copies = {name: buffers.take_like(name, results[name]) for name in results}
            for name, copy in copies.items():
                copy.copy_(results[name], non_blocking=True)
            # Blocking: whoever waits sleeps, and spins on no core.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # of torch
            done.record(self._download)
        return _PendingVectors(done, batch, copies, (on_device, results), buffers, self._idle)

    def _run(self, batch: Batch, inputs: torch.Tensor, patches_of: int) -> dict[str, torch.Tensor]:
        pick = partial(batch.pick_wanted, patches_of=patches_of)
        if self._recorded is not None and self._recorded.takes(batch):
            return self._recorded.run(inputs, pick)
        return pick(self._tower(inputs, *batch.beside))

    def _try_to_record(self, tower: Tower, one: Any, max_batch_size: int) -> None:
        """Record batches of all sizes, and see that the largest still fit; or log why not."""
        batch = self._collate([one] * max_batch_size)
        if batch.beside:
            return  # each batch has a shape of its own
        start = time.monotonic()
        try:
            self._recorded = self._record(tower, batch)
            run_largest_batches(self, one, max_batch_size)
        except Exception as error:
            self._recorded = None
            if self._must_record:
                raise
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            _log.warning(
                "NO CUDA GRAPHS: batches are computed launch by launch, which is slower",
                advice="SIGLIP_COMPILE=off starts without trying",
                reason=reason,
            )
        else:
            seconds = round(time.monotonic() - start, 1)
            _log.info("CUDA graphs", sizes=self._recorded.sizes, seconds=seconds)
            return
        # Do they fit still, and does the device still answer? If not, it is told as ever.
        run_largest_batches(self, one, max_batch_size)

    @torch.inference_mode()
    def _record(self, tower: Tower, batch: Batch) -> RecordedTower:
        with torch.cuda.stream(self._compute):
            return RecordedTower(tower, cuda_recorder(), batch, self._device)


class _PendingVectors:
    """Waits for the vectors of one batch, and then gives its pinned memory back.

    `on_device` is kept until then: the allocator knows of one stream that uses a tensor, and these
    are used by two.
    """

    def __init__(
        self,
        done: torch.cuda.Event,
        batch: Batch,
        copies: dict[str, torch.Tensor],
        on_device: object,
        buffers: "_PinnedBuffers",
        idle: "list[_PinnedBuffers]",
    ) -> None:
        self._done, self._batch = done, batch
        self._copies, self._on_device = copies, on_device
        self._buffers, self._idle = buffers, idle

    @torch.inference_mode()
    def __call__(self) -> Vectors:
        self._done.synchronize()
        del self._on_device
        # Copies, of float32 too: the next batch overwrites what is pinned.
        arrays = {
            name: copied.to(torch.float32, copy=True).numpy()
            for name, copied in self._copies.items()
        }
        self._idle.append(self._buffers)
        del self._buffers, self._copies  # a second call fails, and harms nobody
        return self._batch.collect(arrays)


class _PinnedBuffers:
    """Pinned memory for one batch on its way up and down, as large as the largest so far.

    Only from pinned memory is a copy queued like a kernel. Getting it takes milliseconds, so it is
    kept.
    """

    def __init__(self) -> None:
        self._flat: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return memory of this shape, with what the last batch left in it."""
        size = math.prod(shape)
        if name not in self._flat or len(self._flat[name]) < size:
            self._flat[name] = torch.empty(size, dtype=dtype, pin_memory=True)
        return self._flat[name][:size].view(*shape)

    def take_like(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return memory for a copy of a tensor."""
        return self.take(name, tensor.shape, tensor.dtype)
