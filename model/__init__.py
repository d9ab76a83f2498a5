"""SigLIP vision tower in plain PyTorch: configuration, model, image processor, checkpoints."""

from model.checkpoint import CheckpointError, HubUnreachableError
from model.config import ConfigError, SiglipVisionConfig
from model.image_processing_siglip import SiglipImageProcessor
from model.modeling_siglip_vision_model import SiglipVisionModel
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling

__all__ = [
    "BaseModelOutputWithPooling",
    "CheckpointError",
    "ConfigError",
    "HubUnreachableError",
    "SiglipImageProcessor",
    "SiglipVisionConfig",
    "SiglipVisionModel",
]
