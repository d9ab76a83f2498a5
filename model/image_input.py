"""The images that a processor is given: told from what is none, and brought into one form."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
ImageInput: TypeAlias = Image.Image | UInt8Array | Sequence[Image.Image | UInt8Array]
"""One image or several; arrays are (height, width, 3), or (batch, height, width, 3)."""

_EXPECTED = (
    "an image is a PIL image (PIL.Image.open reads a file) or a uint8 array (height, width, 3)"
)
# Pillow cuts these off at 255 on the way to RGB: most such images would be white, or black.
_DEEP_MODES = ("I", "F", "I;16")


def list_images(images: ImageInput) -> list[Image.Image]:
    """Return one image or several as a list of PIL images.

    Raises `TypeError` or `ValueError` for what is no image, or has no pixels, and where there is
    none.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, Sequence) or isinstance(images, str | bytes):
        return [_read_image(images, "images")]
    if not images:
        raise ValueError("images is empty; give at least one image")
    return [_read_image(image, f"images[{index}]") for index, image in enumerate(images)]


def _read_image(image: object, name: str) -> Image.Image:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{name} is an array {image.dtype} {image.shape}; {_EXPECTED}")
        image = Image.fromarray(image) if image.size else Image.new("RGB", (0, 0))
    if not isinstance(image, Image.Image):
        raise TypeError(f"{name} is of type {type(image).__name__}; {_EXPECTED}")
    if 0 in image.size:
        raise ValueError(f"{name} has no pixels")
    if image.mode.startswith(_DEEP_MODES):
        raise ValueError(f"{name} is of mode {image.mode}; scale its values to 8 bits first")
    return image
