"""Siglip2VisionModel: the NaFlex tower with its configuration, and how to get one with weights."""

import torch

from model.config_siglip2 import Siglip2VisionConfig
from model.modeling_siglip2_transformer import Siglip2VisionTransformer
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling
from model.pretrained import PreTrainedVisionModel


class Siglip2VisionModel(PreTrainedVisionModel[Siglip2VisionConfig]):
    """The tower of siglip2-*-naflex under the names of published checkpoints (`vision_model.*`).

    SigLIP 2 checkpoints of fixed resolution are for `SiglipVisionModel`. Reference class
    `Siglip2VisionModel`.
    """

    config_class = Siglip2VisionConfig
    vision_model: Siglip2VisionTransformer

    def __init__(self, config: Siglip2VisionConfig) -> None:
        super().__init__(config)
        self.vision_model = Siglip2VisionTransformer(config)

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor,
        spatial_shapes: torch.Tensor,
    ) -> BaseModelOutputWithPooling:
        """Encode what `Siglip2ImageProcessor` gives, whole or in parts: -> patch, pooled vectors.

        `pixel_values` (batch, max_length, patch * patch * channels), padded; `pixel_attention_mask`
        (batch, max_length), 1 for patches and 0 for padding; `spatial_shapes` (batch, 2), rows and
        columns of patches. Rows of padding in the result have no meaning. Raises `TypeError`
        or `ValueError` for shapes that do not fit together, and for patches that are not
        normalised.

        torch.export takes the parts behind the embeddings: positions are resized to each image's
        grid, which a program made in advance cannot know.
        """
        return self.vision_model(pixel_values, pixel_attention_mask, spatial_shapes)
