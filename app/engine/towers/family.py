"""A family of models: what differs between one kind of vision tower and another, as one record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.engine.protocol import Pixels, UInt8Array
from app.engine.towers.batch import Batch, FusedTower
from model.config import VisionTowerConfig
from model.image_processing_base import BaseImageProcessor
from model.pretrained import PreTrainedVisionModel

Config = TypeVar("Config", bound=VisionTowerConfig)
Processor = TypeVar("Processor", bound=BaseImageProcessor)


@dataclass(frozen=True)
class Family(Generic[Config, Processor]):
    """One kind of vision tower."""

    name: str
    config: type[Config]
    model: type[PreTrainedVisionModel[Config]]
    processor: type[Processor]
    fused_tower: Callable[..., FusedTower]
    """Takes a model's tower, its processor, a device and a dtype."""
    uneven: bool
    """Whether images are of variable length in patches; neither int8 nor torch.compile takes that.

    Both need the rows of an image, or of a batch, to be as many as ever.
    """
    usual_processor: Callable[[Config], Processor]
    """What stands in for a preprocessor_config.json that is not there."""
    usual_processor_warning: str
    input_size: Callable[[Processor], str]
    """What of a processor config.json decides as well, in words."""
    config_identity: tuple[str, ...]
    """Fields of the configuration that are part of the space, beside those of all families."""
    processor_identity: tuple[str, ...]
    """Fields of the processor that are part of the space, beside those of all families."""
    image_size: Callable[[Config, Processor], int]
    """The side in pixels that a square image gets."""
    max_patches: Callable[[Config, Processor], int]
    collate: Callable[[Processor, Pixels], Batch]
    """Makes the fused tower's input of what the processor's `resize` gave."""
    draw_test_images: Callable[[int, int], list[UInt8Array]]
    """Two images that no model takes for the same, of an image size in patches of a size."""


AnyFamily = Family[Any, Any]
