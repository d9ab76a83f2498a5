"""Image preprocessing of NaFlex checkpoints: resize with the aspect kept, normalise, cut, pad."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from model.batch_feature import BatchFeature
from model.image_input import UInt8Array
from model.image_processing_base import BaseImageProcessor, read_size

# Bounds and end of the reference's search for the scale; they decide the size of some images.
_SMALLEST_SCALE = 1e-6
_LARGEST_SCALE = 100.0
_SCALE_STEP = 1e-5


class PackedPatches(NamedTuple):
    """What `FusedSiglip2Transformer` takes, in its order."""

    patches: torch.Tensor
    """uint8 (patches of all images, patch * patch * channels)."""
    spatial_shapes: list[tuple[int, int]]
    """Rows and columns of patches of each image."""


@dataclass(frozen=True, kw_only=True)
class Siglip2ImageProcessor(BaseImageProcessor):
    """RGB images to normalised patches; the defaults are siglip2-base-patch16-naflex.

    An image gets as many patches as keep its aspect ratio, at most `max_num_patches`; small images
    are enlarged. Gives the values of transformers' `Siglip2ImageProcessorPil`.
    """

    image_processor_type = "Siglip2ImageProcessor"

    patch_size: int = 16
    max_num_patches: int = 256
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the largest size in whole patches that keeps the aspect."""
        return get_image_size_for_max_num_patches(
            height, width, self.patch_size, self.max_num_patches
        )

    def normalize(self, patches: torch.Tensor) -> torch.Tensor:
        """Rescale and normalise on the tensor's device.

        uint8 (patches, patch * patch * 3) -> the same in float32.
        """
        mean = torch.tensor(self.image_mean, device=patches.device)
        std = torch.tensor(self.image_std, device=patches.device)
        values = patches.float().view(len(patches), -1, 3) * self.rescale_factor
        return ((values - mean) / std).flatten(1)

    def collate(self, resized: Sequence[UInt8Array]) -> BatchFeature:
        """Normalise, cut into patches and pad what `resize` gave for several images.

        `pixel_values` is float32 (batch, max_num_patches, patch * patch * channels), with 0 for
        padding; `pixel_attention_mask` int32 (batch, max_num_patches), 1 for a patch and 0 for
        padding; `spatial_shapes` int64 (batch, 2), rows and columns of patches.
        """
        values, masks, grids = [], [], []
        for pixels in resized:
            patches = torch.from_numpy(convert_image_to_patches(pixels, self.patch_size))
            padding = self.max_num_patches - len(patches)
            values.append(nn.functional.pad(self.normalize(patches), (0, 0, 0, padding)))
            mask = torch.ones(len(patches), dtype=torch.int32)
            masks.append(nn.functional.pad(mask, (0, padding)))
            grids.append(self._grid(pixels))
        return BatchFeature(
            pixel_values=torch.stack(values),
            pixel_attention_mask=torch.stack(masks),
            spatial_shapes=torch.tensor(grids),
        )

    def pack(self, resized: Sequence[UInt8Array]) -> PackedPatches:
        """Cut what `resize` gave into patches, and put those of all images one after the other."""
        patches = [convert_image_to_patches(pixels, self.patch_size) for pixels in resized]
        grids = [self._grid(pixels) for pixels in resized]
        return PackedPatches(torch.from_numpy(np.concatenate(patches)), grids)

    def _grid(self, resized: UInt8Array) -> tuple[int, int]:
        return resized.shape[0] // self.patch_size, resized.shape[1] // self.patch_size

    @classmethod
    def _read_sizes(cls, given: dict[str, Any]) -> dict[str, Any]:
        sizes = {"patch_size": cls.patch_size, "max_num_patches": cls.max_num_patches}
        return {name: read_size(name, given.get(name, usual)) for name, usual in sizes.items()}

    def _write_sizes(self) -> dict[str, Any]:
        return {"patch_size": self.patch_size, "max_num_patches": self.max_num_patches}


def get_image_size_for_max_num_patches(
    image_height: int, image_width: int, patch_size: int, max_num_patches: int
) -> tuple[int, int]:
    """Find the largest size in whole patches that keeps the aspect: -> (height, width) in pixels.

    By bisection of the scale, as in the reference function of the same name; a formula would give
    other sizes where that stops short.
    """

    def scaled(scale: float) -> tuple[int, int]:
        sides = (math.ceil(side * scale / patch_size) for side in (image_height, image_width))
        rows, columns = (max(1, side) for side in sides)
        return rows, columns

    low, high = _SMALLEST_SCALE, _LARGEST_SCALE
    while high - low >= _SCALE_STEP:
        scale = (low + high) / 2
        rows, columns = scaled(scale)
        low, high = (scale, high) if rows * columns <= max_num_patches else (low, scale)
    rows, columns = scaled(low)
    return rows * patch_size, columns * patch_size


def convert_image_to_patches(pixels: UInt8Array, patch_size: int) -> UInt8Array:
    """Cut an image into patches, row by row.

    (rows * patch, columns * patch, 3) -> (rows * columns, patch * patch * 3), channel fastest.
    """
    rows, columns = pixels.shape[0] // patch_size, pixels.shape[1] // patch_size
    patches = pixels.reshape(rows, patch_size, columns, patch_size, 3).swapaxes(1, 2)
    return patches.reshape(rows * columns, -1)
