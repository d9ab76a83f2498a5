"""What an embedder keeps of a batch, and what it makes of a device's errors."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from app.engine.protocol import DeviceLostError, DeviceOutOfMemoryError, Vectors
from app.engine.towers.tower_embedder import TowerEmbedder

VECTORS = Vectors(np.ones((1, 4), np.float32))


class Waiting:
    """A batch on a device: holds a tensor there until it has been waited for."""

    def __init__(self, fault: Exception | None) -> None:
        self.on_device = torch.empty(1)
        self._fault = fault

    def __call__(self) -> Vectors:
        del self.on_device
        if self._fault is not None:
            raise self._fault
        return VECTORS


class OneBatch:
    """A runner that begins one batch, which may fail while it is waited for."""

    batches_in_flight = 2

    def __init__(self, fault: Exception | None = None) -> None:
        self.waiting = Waiting(fault)
        self._fault = fault

    def warm_up(self, one: Any, max_batch_size: int) -> None:
        raise NotImplementedError

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        raise NotImplementedError

    def enter_thread(self) -> None:
        if self._fault is not None:
            raise self._fault

    def begin(self, inputs: Any, patches_of: int) -> Callable[[], Vectors]:  # noqa: ARG002 # see Runner
        return self.waiting


def test_what_a_batch_lets_go_of_is_gone_though_somebody_keeps_the_batch() -> None:
    runner = OneBatch()
    on_device = weakref.ref(runner.waiting.on_device)
    pending = TowerEmbedder(runner, None).begin([])

    assert on_device() is not None
    assert pending() is VECTORS
    assert on_device() is None


@pytest.mark.parametrize(
    ("fault", "explained"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access"), DeviceLostError),
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceOutOfMemoryError),
        (ValueError("no matter of the device"), ValueError),
    ],
)
def test_errors_of_the_device_are_explained_while_waiting_too(
    fault: Exception, explained: type[Exception]
) -> None:
    pending = TowerEmbedder(OneBatch(fault), None).begin([])

    with pytest.raises(explained):
        pending()


def test_a_thread_is_entered_though_there_is_no_memory_for_its_largest_batch() -> None:
    TowerEmbedder(OneBatch(torch.OutOfMemoryError("CUDA out of memory")), None).enter_thread()

    with pytest.raises(DeviceLostError):
        TowerEmbedder(OneBatch(torch.AcceleratorError("CUDA error")), None).enter_thread()
