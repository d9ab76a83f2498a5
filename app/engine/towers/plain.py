"""Batches through a tower as it is, on the CPU's cores or on a device without streams."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from app.engine.protocol import Vectors
from app.engine.towers.batch import Collate, Tower, join_vectors, run_batch
from app.engine.towers.core_pool import CorePool
from app.engine.towers.runner import run_largest_batches


class PlainRunner:
    """Runs a tower as it is; on the CPU, as `CorePool` does. See `app.engine.towers.runner`."""

    batches_in_flight = 1

    def __init__(
        self, tower: Tower, collate: Collate, device: torch.device, max_patches: int
    ) -> None:
        self._tower, self._collate, self._device = tower, collate, device
        self._cores = CorePool(device, max_patches)

    def enter_thread(self) -> None:
        """Do nothing: no thread is special here."""

    def warm_up(self, one: Any, max_batch_size: int) -> None:
        """Run the largest batch once where first use is slow: on anything but the CPU."""
        if self._device.type != "cpu":
            run_largest_batches(self, one, max_batch_size)

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        """Return the sizes of batches to test."""
        return self._cores.test_sizes(max_batch_size)

    def begin(self, inputs: Any, patches_of: int) -> Callable[[], Vectors]:
        """Put a batch off until it is waited for."""
        return partial(self._run, [(one, place < patches_of) for place, one in enumerate(inputs)])

    def _run(self, wanted: list[tuple[Any, bool]]) -> Vectors:
        return join_vectors(self._cores.map(self._forward, wanted))

    def _forward(self, wanted: list[tuple[Any, bool]]) -> Vectors:
        inputs, patches = zip(*wanted, strict=True)
        return run_batch(self._tower, self._device, self._collate(inputs), sum(patches))
