"""Configurations of whole models: a vision tower and a text tower."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from model.config import SiglipVisionConfig, VisionTowerConfig
from model.config_siglip2 import Siglip2VisionConfig
from model.config_siglip_text import Siglip2TextConfig, SiglipTextConfig
from model.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DualEncoderConfig:
    """Two towers whose vectors can be compared.

    Raises `ConfigError` when the towers do not go together.
    """

    model_type: ClassVar[str]

    vision_config: VisionTowerConfig
    text_config: SiglipTextConfig

    def __post_init__(self) -> None:
        """Check that both towers give one vector each, of the same length."""
        vision, text = self.vision_config, self.text_config
        if not vision.vision_use_head:
            raise ConfigError("vision_use_head is off: images have no vector to compare")
        if vision.hidden_size != text.projection_size:
            raise ConfigError(
                f"vision_config has hidden_size {vision.hidden_size}, "
                f"text_config has projection_size {text.projection_size}"
            )

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """Read a parsed config.json; each tower's class reads its part, with the same errors."""
        return cls(**{part.name: part.type.from_dict(config) for part in fields(cls)})  # type: ignore[union-attr] # both have it

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds; `from_dict` reads it."""
        parts = {part.name: getattr(self, part.name).to_dict() for part in fields(self)}
        return {"model_type": self.model_type} | parts


@dataclass(frozen=True, kw_only=True)
class SiglipConfig(DualEncoderConfig):
    """A model of fixed resolution; the defaults are siglip-base-patch16-224."""

    model_type = "siglip"

    vision_config: SiglipVisionConfig = field(default_factory=SiglipVisionConfig)
    text_config: SiglipTextConfig = field(default_factory=SiglipTextConfig)


@dataclass(frozen=True, kw_only=True)
class Siglip2Config(DualEncoderConfig):
    """A NaFlex model; the defaults are those of its two parts."""

    model_type = "siglip2"

    vision_config: Siglip2VisionConfig = field(default_factory=Siglip2VisionConfig)
    text_config: Siglip2TextConfig = field(default_factory=Siglip2TextConfig)
