"""Image preprocessing of SigLIP checkpoints: resize, rescale, normalise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from model.batch_feature import BatchFeature
from model.image_input import UInt8Array
from model.image_processing_base import BaseImageProcessor, read_size


@dataclass(frozen=True, kw_only=True)
class SiglipImageProcessor(BaseImageProcessor):
    """RGB images to normalised pixel values; the defaults are siglip-base-patch16-224.

    Images are squashed to the model's square input, neither cropped nor padded. Gives the values of
    transformers' `SiglipImageProcessorPil`. The two steps can be run apart: `resize` on the CPU,
    `normalize` on the model's device.
    """

    image_processor_type = "SiglipImageProcessor"

    height: int = 224
    width: int = 224

    def target_size(self, height: int, width: int) -> tuple[int, int]:  # noqa: ARG002
        """Return the model's input size, whatever the image's."""
        return self.height, self.width

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Rescale and normalise on the tensor's device.

        uint8 (batch, height, width, 3) -> float32 (batch, 3, height, width).
        """
        mean = torch.tensor(self.image_mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.image_std, device=pixels.device).view(3, 1, 1)
        channels_first = pixels.permute(0, 3, 1, 2).to(
            torch.float32, memory_format=torch.contiguous_format
        )
        return (channels_first * self.rescale_factor - mean) / std

    def collate(self, resized: Sequence[UInt8Array]) -> BatchFeature:
        """Normalise what `resize` gave: `pixel_values` is float32 (batch, 3, height, width)."""
        return BatchFeature(pixel_values=self.normalize(torch.from_numpy(np.stack(resized))))

    @classmethod
    def _read_sizes(cls, given: dict[str, Any]) -> dict[str, Any]:
        size = given.get("size", {"height": 224, "width": 224})
        if isinstance(size, int):
            size = {"height": size, "width": size}
        if isinstance(size, list) and len(size) == 2:
            size = dict(zip(("height", "width"), size, strict=True))
        if not isinstance(size, dict) or size.keys() != {"height", "width"}:
            raise ValueError(f"size {size!r} is not a height and a width")
        return {side: read_size(f"size {size!r}: {side}", size[side]) for side in size}

    def _write_sizes(self) -> dict[str, Any]:
        return {"size": {"height": self.height, "width": self.width}}
