"""How many images go into one forward: as many as asked for, or as suit the device and fit in."""

from typing import Any

import structlog
import torch

from app.engine.protocol import DeviceOutOfMemoryError, StartError
from app.engine.towers.device import explain_device_errors
from app.engine.towers.runner import Runner

_log = structlog.get_logger(__name__)

# On a CPU more bring nothing: docs/performance.md. A CUDA device wants many rows in each matrix
# product, whose number is images x patches; beyond some thousands they only take memory and time.
_IMAGES = 8
_CUDA_PATCHES = 16384
_CUDA_MOST_IMAGES = 64


def pick_max_batch_size(device: torch.device, max_patches: int) -> int:
    """Return what `auto` stands for, for images of at most so many patches."""
    if device.type != "cuda":
        return _IMAGES
    images = max(1, _CUDA_PATCHES // max_patches)
    power_of_two = 1 << (images.bit_length() - 1)
    return min(max(power_of_two, _IMAGES), _CUDA_MOST_IMAGES)


def fit_batch_size(runner: Runner, one: Any, asked_for: int | None, suitable: int) -> int:
    """Warm up with the largest batch of an image and return its size.

    Without a size `asked_for` that is the `suitable` one, halved until it fits. Raises `StartError`
    when the size asked for, or a single image, exceeds the device's memory.
    """
    size = asked_for or suitable
    while not _fits(runner, one, size):
        if asked_for or size == 1:
            what = f"SIGLIP_MAX_BATCH_SIZE={size}" if asked_for else "a single image or text"
            raise StartError(f"{what} exceeds the device's memory")
        _log.warning("largest batch is too large for the device", images=size)
        size //= 2
    return size


def _fits(runner: Runner, one: Any, size: int) -> bool:
    try:
        with explain_device_errors():
            runner.warm_up(one, size)
    except DeviceOutOfMemoryError:
        return False
    return True
