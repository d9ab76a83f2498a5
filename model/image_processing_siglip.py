"""Image preprocessing of SigLIP checkpoints: resize, rescale, normalise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from model.checkpoint import find_checkpoint_folder, read_json
from model.config import ConfigError

UInt8Array = npt.NDArray[np.uint8]

# Images become RGB whatever do_convert_rgb says: nothing else fits the model.
_STEPS = MappingProxyType(
    {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_center_crop": False,
        "do_pad": False,
    }
)
_BICUBIC = Image.Resampling.BICUBIC
_LARGEST_SIDE = 2**16


@dataclass(frozen=True, kw_only=True)
class SiglipImageProcessor:
    """RGB images to normalised pixel values; the defaults are siglip-base-patch16-224.

    Images are squashed to the model's square input, neither cropped nor padded. Gives the values of
    transformers' `SiglipImageProcessorPil`. The two steps can be run apart: `resize` on the CPU,
    `normalize` on the model's device.
    """

    height: int = 224
    width: int = 224
    resample: Image.Resampling = _BICUBIC
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        """Refuse what cannot be divided by."""
        if 0 in self.image_std:
            raise ConfigError("image_std cannot be 0")

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str], revision: str | None = None
    ) -> Self:
        """Read preprocessor_config.json of a local folder or hub repository.

        Raises `CheckpointError` when it cannot be had, `ConfigError` when it asks for other steps.
        """
        folder, _ = find_checkpoint_folder(name_or_path, revision)
        return cls.from_folder(folder)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read the processor of one local folder; same errors as `from_pretrained`."""
        combined = (
            folder / "processor_config.json"
        )  # where transformers 5 saves it beside a tokenizer
        if combined.is_file() and not (folder / "preprocessor_config.json").is_file():
            config = read_json(combined).get("image_processor")
            if not isinstance(config, dict):
                raise ConfigError(f"{combined} has no image_processor")
            return cls.from_dict(config)
        return cls.from_dict(read_json(folder / "preprocessor_config.json"))

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """Read a parsed preprocessor_config.json; absent keys take the reference's defaults."""
        given = {key: value for key, value in config.items() if value is not None}
        for step, usual in _STEPS.items():
            if given.get(step, usual) is not usual:
                raise ConfigError(
                    f"preprocessor_config.json sets {step} to {given[step]!r}, "
                    f"which no SigLIP checkpoint does"
                )
        try:
            height, width = _read_size(given.get("size", {"height": 224, "width": 224}))
            return cls(
                height=height,
                width=width,
                resample=Image.Resampling(int(_read_number(given.get("resample", _BICUBIC)))),
                rescale_factor=_read_number(given.get("rescale_factor", 1 / 255)),
                image_mean=_read_channels(given.get("image_mean", 0.5)),
                image_std=_read_channels(given.get("image_std", 0.5)),
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"preprocessor_config.json cannot be used: {error}") from error

    def resize(self, image: Image.Image) -> UInt8Array:
        """Convert one image to RGB on white and squash it: -> uint8 (height, width, 3)."""
        resized = _convert_to_rgb(image).resize((self.width, self.height), resample=self.resample)
        return np.asarray(resized)

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

    def __call__(self, images: Image.Image | Sequence[Image.Image]) -> torch.Tensor:
        """Preprocess one PIL image or a list: -> float32 (batch, 3, height, width)."""
        if isinstance(images, Image.Image):
            images = [images]
        return self.normalize(torch.from_numpy(np.stack([self.resize(image) for image in images])))


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, transparency on white as in the reference since version 5."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _read_size(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if isinstance(size, list) and len(size) == 2:
        size = dict(zip(("height", "width"), size, strict=True))
    if not isinstance(size, dict) or size.keys() != {"height", "width"}:
        raise ValueError(f"size {size!r} is not a height and a width")
    height, width = (_read_number(size[side]) for side in ("height", "width"))
    if not all(side.is_integer() and 0 < side <= _LARGEST_SIDE for side in (height, width)):
        raise ValueError(f"size {size!r} is not a height and a width in pixels")
    return int(height), int(width)


def _read_channels(value: Any) -> tuple[float, float, float]:
    """Read one number for all channels, or one for each."""
    red, green, blue = value if isinstance(value, list | tuple) else (value, value, value)
    return _read_number(red), _read_number(green), _read_number(blue)


def _read_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
