"""SigLIP vision tower in plain PyTorch: configuration, model, image processor, checkpoints."""

from model.batch_feature import BatchFeature
from model.config import SiglipVisionConfig
from model.config_siglip2 import Siglip2VisionConfig
from model.errors import CheckpointError, ConfigError, HubUnreachableError
from model.image_processing_siglip import SiglipImageProcessor
from model.image_processing_siglip2 import Siglip2ImageProcessor
from model.modeling_siglip2_model import Siglip2VisionModel
from model.modeling_siglip_vision_model import SiglipVisionModel
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling
from model.tokenization_base import TokenizedText
from model.tokenizer_loading import load_tokenizer

__all__ = [
    "BaseModelOutputWithPooling",
    "BatchFeature",
    "CheckpointError",
    "ConfigError",
    "HubUnreachableError",
    "Siglip2ImageProcessor",
    "Siglip2VisionConfig",
    "Siglip2VisionModel",
    "SiglipImageProcessor",
    "SiglipVisionConfig",
    "SiglipVisionModel",
    "TokenizedText",
    "load_tokenizer",
]
