"""SiglipVisionModel: the vision tower with its configuration, and how to get one with weights."""

import torch

from model.config import SiglipVisionConfig
from model.modeling_siglip_vision_transformer import (
    BaseModelOutputWithPooling,
    SiglipVisionTransformer,
)
from model.pretrained import PreTrainedVisionModel


class SiglipVisionModel(PreTrainedVisionModel[SiglipVisionConfig]):
    """The SigLIP vision tower under the names of published checkpoints (`vision_model.*`).

    A new model has random weights, drawn from the reference's distributions. Reference class
    `SiglipVisionModel`.
    """

    config_class = SiglipVisionConfig
    vision_model: SiglipVisionTransformer

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        self.vision_model = SiglipVisionTransformer(config)

    def forward(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False
    ) -> BaseModelOutputWithPooling:
        """Encode images: (batch, channels, height, width) -> patch and pooled vectors.

        `pixel_values` are normalised as by `SiglipImageProcessor`, whose result can also be given
        whole. Raises `ValueError` for an image size whose patch grid the model has no positions
        for, unless `interpolate_pos_encoding`; and `TypeError` or `ValueError` for what is no batch
        of normalised images.
        """
        return self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
