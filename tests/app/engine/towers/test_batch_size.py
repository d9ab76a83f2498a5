"""The size of the largest batch: chosen for the device, and halved until it fits."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from app.engine.protocol import Pixels, StartError, UInt8Array, Vectors
from app.engine.towers.batch import Outputs, Tower
from app.engine.towers.batch_size import fit_batch_size, pick_max_batch_size
from app.engine.towers.fixed_family import collate_images
from app.engine.towers.plain import PlainRunner

IMAGE = np.zeros((8, 8, 3), np.uint8)


class SmallDevice:
    """A runner of a device that has memory for so many images in two batches together."""

    batches_in_flight = 2

    def __init__(self, images: int) -> None:
        self._images = images
        self.tried: list[int] = []

    def warm_up(self, image: UInt8Array, max_batch_size: int) -> None:
        assert image is IMAGE
        self.tried.append(max_batch_size)
        if 2 * max_batch_size > self._images:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def enter_thread(self) -> None:
        raise NotImplementedError

    def test_sizes(self, max_batch_size: int) -> Sequence[int]:
        raise NotImplementedError

    def begin(self, pixels: Pixels, patches_of: int) -> Callable[[], Vectors]:
        raise NotImplementedError


def run_plainly(tower: Tower, device: str) -> PlainRunner:
    return PlainRunner(tower, collate_images, torch.device(device), 4)


@pytest.mark.parametrize(
    ("max_patches", "images"),
    [
        (49, 64),
        (196, 64),  # base-patch16-224
        (256, 64),
        (257, 32),
        (576, 16),  # 384 pixels, 16 each
        (729, 16),
        (1024, 16),
        (1025, 8),
        (4096, 8),
        (100_000, 8),
    ],
)
def test_a_cuda_device_gets_a_power_of_two_of_at_most_so_many_patches(
    max_patches: int, images: int
) -> None:
    assert pick_max_batch_size(torch.device("cuda", 1), max_patches) == images


@pytest.mark.parametrize("device", ["cpu", "mps"])
@pytest.mark.parametrize("max_patches", [49, 196, 4096])
def test_other_devices_get_eight(device: str, max_patches: int) -> None:
    assert pick_max_batch_size(torch.device(device), max_patches) == 8


def test_a_suitable_size_that_does_not_fit_is_halved() -> None:
    runner = SmallDevice(images=33)

    assert fit_batch_size(runner, IMAGE, None, suitable=64) == 16
    assert runner.tried == [64, 32, 16]


def test_a_size_asked_for_is_what_there_is_or_an_error() -> None:
    assert fit_batch_size(SmallDevice(images=64), IMAGE, 32, suitable=8) == 32
    runner = SmallDevice(images=63)
    with pytest.raises(StartError, match="SIGLIP_MAX_BATCH_SIZE=32"):
        fit_batch_size(runner, IMAGE, 32, suitable=8)
    assert runner.tried == [32]


def test_a_device_without_memory_for_one_image_stops_the_start() -> None:
    runner = SmallDevice(images=0)
    with pytest.raises(StartError, match="a single image or text exceeds"):
        fit_batch_size(runner, IMAGE, None, suitable=8)
    assert runner.tried == [8, 4, 2, 1]


def test_what_no_smaller_batch_would_help_stops_the_start_at_once() -> None:
    def tower(_: torch.Tensor) -> Outputs:
        raise RuntimeError("no kernel image is available")

    with pytest.raises(RuntimeError, match="no kernel image"):
        fit_batch_size(run_plainly(tower, "meta"), IMAGE, None, suitable=8)


def test_a_warm_up_runs_the_largest_batch_on_anything_but_a_cpu() -> None:
    seen: list[tuple[int, ...]] = []

    def tower(pixels: torch.Tensor) -> Outputs:
        seen.append(tuple(pixels.shape))
        raise MemoryError

    with pytest.raises(StartError):
        fit_batch_size(run_plainly(tower, "meta"), IMAGE, 3, suitable=8)
    assert fit_batch_size(run_plainly(tower, "cpu"), IMAGE, 3, suitable=8) == 3
    assert seen == [(3, 8, 8, 3)]
