"""The whole vision transformer: embeddings, encoder, final layer norm, pooling head."""

from typing import NamedTuple

import torch
from torch import nn

from model.config import SiglipVisionConfig
from model.modeling_siglip_vision_embeddings import SiglipVisionEmbeddings
from model.modeling_siglip_vision_encoder import SiglipEncoder
from model.modeling_siglip_vision_pooling_head import SiglipMultiheadAttentionPoolingHead


class BaseModelOutputWithPooling(NamedTuple):
    """What the tower returns; the field names are the reference's."""

    last_hidden_state: torch.Tensor
    """(batch, patches, hidden), after the final layer norm."""
    pooler_output: torch.Tensor | None
    """(batch, hidden), not L2-normalised; None for a tower without pooling head."""


class SiglipVisionTransformer(nn.Module):
    """Images to patch vectors and one pooled vector each.

    Zhai et al. 2023, section 3; reference class `SiglipVisionTransformer` (transformers < 5.6) and
    `SiglipVisionModel` (since).
    """

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.embeddings = SiglipVisionEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = SiglipMultiheadAttentionPoolingHead(config) if config.vision_use_head else None

    def forward(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False
    ) -> BaseModelOutputWithPooling:
        """Encode images: (batch, channels, height, width) -> patch and pooled vectors.

        They are (batch, patches, hidden) and (batch, hidden), the latter None without head.
        """
        hidden_states = self.embeddings(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding
        )
        last_hidden_state = self.post_layernorm(self.encoder(hidden_states))
        pooler_output = self.head(last_hidden_state) if self.head is not None else None
        return BaseModelOutputWithPooling(last_hidden_state, pooler_output)
