"""Batches of images of unequal size through a NaFlex tower and back."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from app.engine.core_pool import CorePool
from app.engine.cuda import BATCHES_IN_FLIGHT, CudaPipeline
from app.engine.protocol import Float32Array, Pixels, UInt8Array, UnevenVectors, Vectors
from app.engine.runner import run_largest_batches
from app.engine.tower import concatenate, forward

Pack = Callable[[Sequence[UInt8Array]], tuple[torch.Tensor, list[tuple[int, int]]]]
"""Images -> uint8 patches of all, one after the other, and rows and columns of each."""


class PackedTower(Protocol):
    """A tower for images whose patches stand one after the other."""

    def __call__(self, patches: torch.Tensor, spatial_shapes: list[tuple[int, int]]) -> Any:
        """Compute on the device: uint8 patches, grids -> `last_hidden_state`, `pooler_output`."""
        ...


class PlainNaflexRunner:
    """Runs a tower on packed images, otherwise as `PlainRunner`; see `app.engine.runner.Runner`."""

    batches_in_flight = 1

    def __init__(
        self, tower: PackedTower, pack: Pack, device: torch.device, max_patches: int
    ) -> None:
        self._tower, self._pack, self._device = tower, pack, device
        self._cores = CorePool(device, max_patches)

    def warm_up(self, image: UInt8Array, max_batch_size: int) -> None:
        """Run the largest batch once where first use is slow: on anything but the CPU."""
        if self._device.type != "cpu":
            run_largest_batches(self, image, max_batch_size)

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return the sizes of batches to test."""
        return self._cores.test_sizes(max_batch_size)

    def begin(self, pixels: Pixels, patches: bool) -> Callable[[], UnevenVectors]:
        """Put a batch off until it is waited for."""
        return partial(self._run, list(pixels), patches)

    def _run(self, pixels: Sequence[UInt8Array], patches: bool) -> UnevenVectors:
        return _join(self._cores.map(partial(self._forward, patches=patches), pixels))

    def _forward(self, pixels: Sequence[UInt8Array], patches: bool) -> UnevenVectors:
        packed, grids = self._pack(pixels)
        tower = partial(self._tower, spatial_shapes=grids)
        return _unpack(forward(tower, self._device, packed, patches), grids)


class CudaNaflexRunner:
    """Runs a tower on packed images on a CUDA device; see `app.engine.cuda`."""

    batches_in_flight = BATCHES_IN_FLIGHT

    def __init__(self, tower: PackedTower, pack: Pack, device: torch.device) -> None:
        self._tower, self._pack = tower, pack
        self._pipeline = CudaPipeline(device)

    def warm_up(self, image: UInt8Array, max_batch_size: int) -> None:
        """Run the largest batches once: first use is slow, and takes the memory that is needed."""
        run_largest_batches(self, image, max_batch_size)

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return the smallest and the largest batch."""
        return sorted({1, max_batch_size})

    def begin(self, pixels: Pixels, patches: bool) -> Callable[[], UnevenVectors]:
        """Queue a batch."""
        packed, grids = self._pack(list(pixels))
        tower = partial(self._tower, spatial_shapes=grids)
        wait = self._pipeline.begin(
            tower, packed.shape, lambda staged: np.copyto(staged, packed.numpy()), patches
        )
        return lambda: _unpack(wait(), grids)


def _unpack(vectors: Vectors, grids: Sequence[tuple[int, int]]) -> UnevenVectors:
    """Give each image its own patches: (all patches, dim) -> (own patches, dim) each."""
    if vectors.patches is None:
        return UnevenVectors(vectors.pooled, None)
    ends = np.cumsum([rows * columns for rows, columns in grids])[:-1]
    return UnevenVectors(vectors.pooled, np.split(vectors.patches, ends))


def _join(parts: Sequence[UnevenVectors]) -> UnevenVectors:
    patches: list[Float32Array] = [own for part in parts for own in part.patches or ()]
    return UnevenVectors(concatenate([part.pooled for part in parts]), patches or None)
