"""The one seam of the engine: what a model must offer, and what it answers."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


class DeviceOutOfMemoryError(Exception):
    """The device has no memory for a batch of this size; a smaller one may do."""


class DeviceLostError(Exception):
    """The device will not compute again in this process."""


class Vectors(NamedTuple):
    """The vectors of a batch, row i for image i."""

    pooled: Float32Array
    """(batch, dim), not normalised."""
    patches: Float32Array | None
    """(batch, patches, dim), or None when they were not asked for."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a caller may know of the loaded model; sizes in pixels, `grid` in patches."""

    model: str
    revision: str | None
    space: str
    dim: int
    image_size: int
    patch_size: int
    grid: tuple[int, int]
    device: str
    dtype: str
    pretrained: bool


class Embedder(Protocol):
    """A loaded model. `resize` may run in many threads at once, the rest runs in one.

    The two that compute may raise `DeviceOutOfMemoryError`, `DeviceLostError` and anything else.
    """

    @property
    def info(self) -> ModelInfo:
        """Describe the model."""
        ...

    def resize(self, image: Image.Image) -> UInt8Array:
        """Bring upright RGB pixels to the model's input: -> uint8 (height, width, 3)."""
        ...

    def embed(self, pixels: UInt8Array, patches: bool = False) -> Vectors:
        """Compute the vectors of a batch: uint8 (batch, height, width, 3) -> `Vectors`."""
        ...

    def embed_in_float32(self, pixels: UInt8Array, patches: bool = False) -> Vectors:
        """Compute the same, slower and in float32, for images whose vectors are not finite."""
        ...
