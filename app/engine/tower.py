"""Batches from host memory through a tower and back, on the CPU's cores or on another device."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from app.engine.core_pool import CorePool
from app.engine.protocol import Float32Array, Pixels, UInt8Array, Vectors
from app.engine.runner import run_largest_batches

Tower = Callable[[torch.Tensor], Any]
"""uint8 (batch, height, width, 3) on its device -> `last_hidden_state` and `pooler_output`."""


class PlainRunner:
    """Runs a tower as it is; on the CPU, as `CorePool` does. See `app.engine.runner.Runner`."""

    batches_in_flight = 1

    def __init__(self, tower: Tower, device: torch.device, max_patches: int) -> None:
        self._forward, self._device = partial(forward, tower, device), device
        self._cores = CorePool(device, max_patches)

    def warm_up(self, image: UInt8Array, max_batch_size: int) -> None:
        """Run the largest batch once where first use is slow: on anything but the CPU."""
        if self._device.type != "cpu":
            run_largest_batches(self, image, max_batch_size)

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return the sizes of batches to test."""
        return self._cores.test_sizes(max_batch_size)

    def begin(self, pixels: Pixels, patches: bool) -> Callable[[], Vectors]:
        """Put a batch off until it is waited for."""
        return partial(self._run, pixels, patches)

    def _run(self, pixels: Pixels, patches: bool) -> Vectors:
        return join(self._cores.map(partial(self._forward, patches=patches), stack(pixels)))


def stack(pixels: Pixels) -> torch.Tensor:
    """Make one tensor of a batch: uint8 (batch, height, width, 3), in host memory."""
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


@torch.inference_mode()
def forward(tower: Tower, device: torch.device, pixels: torch.Tensor, patches: bool) -> Vectors:
    """Move a batch to the device, compute, and move the vectors back."""
    wanted = pick_wanted(tower(_upload(pixels, device)), patches)
    results = _download(device, *wanted.values())
    return Vectors(**{name: copy.numpy() for name, copy in zip(wanted, results, strict=True)})


def pick_wanted(outputs: Any, patches: bool) -> dict[str, torch.Tensor]:
    """Return of a tower's outputs what `Vectors` has, by its name there; without head no pooled."""
    wanted = {"pooled": outputs.pooler_output} if outputs.pooler_output is not None else {}
    return wanted | ({"patches": outputs.last_hidden_state} if patches else {})


def join(parts: Sequence[Vectors]) -> Vectors:
    """Put the vectors of a batch's parts together again."""
    if len(parts) == 1:
        return parts[0]
    return Vectors(*map(concatenate, zip(*parts, strict=True)))


def concatenate(parts: Sequence[Float32Array | None]) -> Float32Array | None:
    """Put rows together that all parts have, or none has."""
    rows = [part for part in parts if part is not None]
    return np.concatenate(rows) if rows else None


def _upload(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        pixels = pixels.pin_memory()  # so that the copy is queued like a kernel: nobody waits
    return pixels.to(device, non_blocking=True)


def _download(device: torch.device, *results: torch.Tensor) -> list[torch.Tensor]:
    """Bring results to the host as float32; with CUDA, by queued copies and one wait for all."""
    if device.type != "cuda":
        return [result.float().cpu() for result in results]
    copies = [torch.empty(result.shape, pin_memory=True) for result in results]
    for copy, result in zip(copies, results, strict=True):
        copy.copy_(result.float(), non_blocking=True)
    torch.cuda.current_stream(device).synchronize()
    return copies
