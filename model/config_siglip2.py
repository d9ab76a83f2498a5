"""Configuration of the SigLIP 2 NaFlex vision tower, which keeps an image's aspect ratio."""

import math
from dataclasses import dataclass
from typing import Self

from model.config import VisionTowerConfig, read_shape
from model.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Siglip2VisionConfig(VisionTowerConfig):
    """Shape and constants of one tower; the defaults are siglip2-base-patch16-naflex.

    Same fields and defaults as transformers' `Siglip2VisionConfig`. Raises `ConfigError` when the
    values contradict each other.
    """

    model_types = frozenset({"siglip2", "siglip2_vision_model"})
    model_type = "siglip2_vision_model"

    num_patches: int = 256
    """Learned positions, a square; how many patches an image may have is the processor's matter."""

    def __post_init__(self) -> None:
        """Check also that the positions are a square."""
        super().__post_init__()
        if self.grid_size**2 != self.num_patches:
            raise ConfigError(f"num_patches {self.num_patches} is no square number")

    @property
    def grid_size(self) -> int:
        """Learned positions along one side."""
        return math.isqrt(self.num_patches)

    @classmethod
    def from_shape(cls, shape: str) -> Self:
        """Build the configuration of a named shape: `base-patch16-naflex`."""
        sizes, _ = read_shape(shape, "naflex", "naflex")
        return cls(**sizes)

    @classmethod
    def _check_model_type(cls, model_type: str) -> None:
        if model_type in ("siglip", "siglip_vision_model"):
            raise ConfigError(
                f"model_type {model_type} is of fixed resolution, which also most SigLIP 2 "
                "checkpoints are: it is for SiglipVisionModel"
            )
        super()._check_model_type(model_type)
