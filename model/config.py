"""Configuration of the SigLIP vision tower, and of the shapes that have names."""

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from model.config_encoder import EncoderConfig
from model.errors import ConfigError

# hidden_size, intermediate_size, num_hidden_layers, num_attention_heads
_SIZES = MappingProxyType(
    {
        "tiny": (64, 128, 2, 4),  # for tests and trials; no published model
        "base": (768, 3072, 12, 12),
        "large": (1024, 4096, 24, 16),
        "so400m": (1152, 4304, 27, 16),
        "giant-opt": (1536, 6144, 40, 16),
    }
)


@dataclass(frozen=True, kw_only=True)
class VisionTowerConfig(EncoderConfig):
    """What the towers of fixed resolution and of NaFlex have in common; the defaults are base's."""

    section = "vision_config"

    num_channels: int = 3
    patch_size: int = 16
    vision_use_head: bool = True

    def __post_init__(self) -> None:
        """Check also that images have the channels that the processors give them."""
        super().__post_init__()
        if self.num_channels != 3:
            raise ConfigError(f"num_channels cannot be {self.num_channels}: images are RGB")

    @classmethod
    def _read_value(cls, name: str, value: Any) -> Any:
        """Accept transformers' two-element form of a side when both agree."""
        if name not in ("image_size", "patch_size") or not isinstance(value, list | tuple):
            return value
        if len(value) != 2 or value[0] != value[1]:
            raise ConfigError(f"{name} must be square, got {value!r}")
        return value[0]


@dataclass(frozen=True, kw_only=True)
class SiglipVisionConfig(VisionTowerConfig):
    """Shape and constants of one vision tower; the defaults are siglip-base-patch16-224.

    Same fields and defaults as transformers' `SiglipVisionConfig`. Raises `ConfigError` when the
    values contradict each other.
    """

    model_types = frozenset({"siglip", "siglip_vision_model"})
    model_type = "siglip_vision_model"

    image_size: int = 224

    def __post_init__(self) -> None:
        """Check also that there is a patch."""
        super().__post_init__()
        if self.image_size < self.patch_size:
            raise ConfigError(
                f"image_size {self.image_size} is smaller than patch_size {self.patch_size}"
            )

    @property
    def grid_size(self) -> int:
        """Patches along one side; floors as the reference does: 384 px in patches of 14 is 27."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches, and so positions, of one image."""
        return self.grid_size**2

    @classmethod
    def from_shape(cls, shape: str) -> Self:
        """Build the configuration of a named shape: `base-patch16-224`, `so400m-patch14-384`."""
        sizes, image = read_shape(shape, r"[0-9]{1,4}", "<image pixels>")
        return cls(**sizes, image_size=int(image))

    @classmethod
    def _check_model_type(cls, model_type: str) -> None:
        if model_type in ("siglip2", "siglip2_vision_model"):
            raise ConfigError(
                f"model_type {model_type} (NaFlex) is for Siglip2VisionModel; this one is of fixed "
                "resolution"
            )
        super()._check_model_type(model_type)


def read_shape(shape: str, last: str, last_means: str) -> tuple[dict[str, Any], str]:
    """Split a named shape: -> sizes by configuration field, and its last part, which fits `last`.

    Raises `ConfigError`, which explains that part as `last_means`.
    """
    match = re.fullmatch(
        rf"(?P<size>[a-z0-9-]+)-patch(?P<patch>[0-9]{{1,3}})-(?P<last>{last})", shape
    )
    if match is None or match["size"] not in _SIZES:
        raise ConfigError(
            f"unknown shape {shape!r}: expected <size>-patch<pixels>-{last_means}, "
            f"size one of {', '.join(_SIZES)}"
        )
    hidden, intermediate, layers, heads = _SIZES[match["size"]]
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "patch_size": int(match["patch"]),
    }
    return sizes, match["last"]
