"""Batches through a tower on a CUDA device, the copies of one beside the computing of another.

There is a stream for each: while the device computes one batch, the pixels of the next come up from
pinned memory, and the vectors of the last go down into it. docs/decisions/0013-gpu-overlap.md.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from app.engine.protocol import Vectors
from app.engine.towers.batch import Batch, Collate, Tower
from app.engine.towers.runner import run_largest_batches


class CudaRunner:
    """Queues batches on a CUDA device; see `app.engine.towers.runner`.

    It is for one thread at a time, not always the same. Any number of batches may be queued: each
    has memory of its own until it is waited for.
    """

    batches_in_flight = 2
    """One computes, and one more is ready, so that the device never waits for the host."""

    def __init__(self, tower: Tower, collate: Collate, device: torch.device) -> None:
        self._tower, self._collate, self._device = tower, collate, device
        self._upload, self._compute, self._download = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # of torch
            for _ in range(3)
        )
        self._idle: list[_PinnedBuffers] = []
        torch.cuda.synchronize(device)  # the tower's weights have come through another stream

    def warm_up(self, one: Any, max_batch_size: int) -> None:
        """Run the largest batches once: first use is slow, and takes the memory that is needed."""
        run_largest_batches(self, one, max_batch_size)

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return the smallest and the largest batch."""
        return sorted({1, max_batch_size})

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
            outputs = self._tower(on_device, *batch.beside)
        self._download.wait_stream(self._compute)
        results = batch.pick_wanted(outputs, patches_of)
        with torch.cuda.stream(self._download):
            copies = {name: buffers.take_like(name, results[name]) for name in results}
            for name, copy in copies.items():
                copy.copy_(results[name], non_blocking=True)
            # Blocking: whoever waits sleeps, and spins on no core.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # of torch
            done.record(self._download)
        return _PendingVectors(done, batch, copies, (on_device, outputs), buffers, self._idle)


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
