"""SigLIP in plain PyTorch: configurations, models, image processors, checkpoints."""

from model.batch_feature import BatchFeature
from model.config import SiglipVisionConfig
from model.config_siglip import Siglip2Config, SiglipConfig
from model.config_siglip2 import Siglip2VisionConfig
from model.config_siglip_text import Siglip2TextConfig, SiglipTextConfig
from model.errors import CheckpointError, ConfigError, HubUnreachableError
from model.image_processing_siglip import SiglipImageProcessor
from model.image_processing_siglip2 import Siglip2ImageProcessor
from model.modeling_siglip2_model import Siglip2VisionModel
from model.modeling_siglip_model import Siglip2Model, SiglipModel, SiglipOutput
from model.modeling_siglip_text_model import Siglip2TextModel, SiglipTextModel
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
    "Siglip2Config",
    "Siglip2ImageProcessor",
    "Siglip2Model",
    "Siglip2TextConfig",
    "Siglip2TextModel",
    "Siglip2VisionConfig",
    "Siglip2VisionModel",
    "SiglipConfig",
    "SiglipImageProcessor",
    "SiglipModel",
    "SiglipOutput",
    "SiglipTextConfig",
    "SiglipTextModel",
    "SiglipVisionConfig",
    "SiglipVisionModel",
    "TokenizedText",
    "load_tokenizer",
]
