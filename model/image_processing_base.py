"""What the image processors have in common: their files, their values, colour to RGB."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import numpy as np
from PIL import Image

from model.batch_feature import BatchFeature
from model.checkpoint_folder import find_checkpoint_folder, read_json_if_any
from model.checkpoint_writer import replace_files
from model.errors import CheckpointError, ConfigError
from model.image_input import ImageInput, UInt8Array, list_images
from model.torch_resize import TORCH_MODES, resize_with_torch

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
_LARGEST_SIZE = 2**16
_COMBINED = "processor_config.json"


@dataclass(frozen=True, kw_only=True)
class BaseImageProcessor:
    """Values that every processor has, and how they are read from a checkpoint.

    `backend` is what resizes: Pillow, as the reference does, or PyTorch; see `resize_with_torch`.
    No checkpoint names it.
    """

    image_processor_type: ClassVar[str]
    """The reference class that reads the same file."""

    resample: Image.Resampling = Image.Resampling.BICUBIC
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    backend: Literal["pil", "torch"] = "pil"

    def __post_init__(self) -> None:
        """Refuse what cannot be divided by, and what leaves nothing of an image."""
        if not 0 < self.rescale_factor < math.inf:
            raise ConfigError(f"rescale_factor cannot be {self.rescale_factor!r}")
        if 0 in self.image_std:
            raise ConfigError("image_std cannot be 0")

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str], revision: str | None = None
    ) -> Self:
        """Read the processor of a local folder or hub repository.

        Raises `CheckpointError` when it cannot be had, `ConfigError` when it asks for other steps.
        """
        folder, _ = find_checkpoint_folder(name_or_path, revision)
        return cls.from_folder(folder)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read the processor of one local folder; same errors as `from_pretrained`."""
        config = read_processor_config(folder)
        if config is None:
            raise CheckpointError(f"{folder} has no preprocessor_config.json")
        return cls.from_dict(config)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """Read a parsed preprocessor_config.json; absent keys take the reference's defaults."""
        given = {key: value for key, value in config.items() if value is not None}
        for step, usual in _STEPS.items():
            value = config.get(step, usual)
            if value is not usual and (value is not None or usual):  # null is off, in the reference
                raise ConfigError(
                    f"preprocessor_config.json sets {step} to {value!r}, "
                    f"which no SigLIP checkpoint does"
                )
        try:
            return cls(
                resample=Image.Resampling(int(read_number(given.get("resample", cls.resample)))),
                rescale_factor=read_number(given.get("rescale_factor", 1 / 255)),
                image_mean=_read_channels(given.get("image_mean", 0.5)),
                image_std=_read_channels(given.get("image_std", 0.5)),
                **cls._read_sizes(given),
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"preprocessor_config.json cannot be used: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return what preprocessor_config.json holds; `from_dict` reads it."""
        return {
            "image_processor_type": self.image_processor_type,
            **{step: True for step, usual in _STEPS.items() if usual},
            "do_convert_rgb": True,
            "resample": int(self.resample),
            "rescale_factor": self.rescale_factor,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            **self._write_sizes(),
        }

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Write preprocessor_config.json, which the reference reads too.

        Raises `CheckpointError` when it cannot be written, or would not be read.
        """
        with replace_files(save_directory) as files:
            combined = read_json_if_any(files.parent / _COMBINED) or {}
            if combined.get("image_processor") is not None:
                raise CheckpointError(
                    f"{files.parent} has a {_COMBINED}, which would be read instead; remove it"
                )
            (files / "preprocessor_config.json").write_text(json.dumps(self.to_dict(), indent=2))

    @property
    def resizes_with_pillow(self) -> bool:
        """Whether `resize` is Pillow's, which can do it without this processor."""
        return self.backend == "pil" or self.resample not in TORCH_MODES

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width in pixels that `resize` gives an image of that size."""
        raise NotImplementedError

    def resize(self, image: Image.Image) -> UInt8Array:
        """Convert one image to RGB on white and resize it: -> uint8 (height, width, 3)."""
        height, width = self.target_size(image.height, image.width)
        rgb = convert_to_rgb(image)
        if self.resizes_with_pillow:
            return np.asarray(rgb.resize((width, height), resample=self.resample))
        return resize_with_torch(rgb, height, width, self.resample)

    def collate(self, resized: Sequence[UInt8Array]) -> BatchFeature:
        """Make the model's input of what `resize` gave for several images."""
        raise NotImplementedError

    def __call__(self, images: ImageInput, return_tensors: str | None = None) -> BatchFeature:
        """Preprocess one image or several: what the model of the same checkpoint takes.

        Images are PIL images or uint8 arrays (height, width, 3). The result holds tensors, which is
        what `return_tensors="pt"` asks for, also without. Raises `TypeError` or `ValueError` for
        what is no image.
        """
        if return_tensors not in (None, "pt"):
            raise ValueError(f'return_tensors {return_tensors!r} is not supported; there is "pt"')
        return self.collate([self.resize(image) for image in list_images(images)])

    @classmethod
    def _read_sizes(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Read the fields that a processor adds, or raise `ValueError`."""
        raise NotImplementedError

    def _write_sizes(self) -> dict[str, Any]:
        """Return those fields as the file has them."""
        raise NotImplementedError


def read_processor_config(folder: Path) -> dict[str, Any] | None:
    """Read the image processor's settings where transformers 5 does, or None where it finds none.

    What it nests in processor_config.json goes before preprocessor_config.json; older
    processor_config.json only name a class.
    """
    combined = read_json_if_any(folder / _COMBINED) or {}
    config = combined.get("image_processor")
    if config is None:
        return read_json_if_any(folder / "preprocessor_config.json")
    if not isinstance(config, dict):
        raise ConfigError(
            f"{folder}/processor_config.json has an image_processor that is no object"
        )
    return config


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, transparency on white as in the reference since version 5."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def read_size(name: str, value: Any) -> int:
    """Read a whole positive number of pixels or patches, or raise `ValueError`."""
    number = read_number(value)
    if not number.is_integer() or not 0 < number <= _LARGEST_SIZE:
        raise ValueError(f"{name} cannot be {value!r}")
    return int(number)


def read_number(value: Any) -> float:
    """Read a finite number, or raise `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _read_channels(value: Any) -> tuple[float, float, float]:
    """Read one number for all channels, or one for each."""
    red, green, blue = value if isinstance(value, list | tuple) else (value, value, value)
    return read_number(red), read_number(green), read_number(blue)
