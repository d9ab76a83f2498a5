"""The whole SigLIP 2 NaFlex vision transformer: embeddings, encoder, final layer norm, head."""

import torch
from torch import nn

from model.config_siglip2 import Siglip2VisionConfig
from model.input_checks import check_shape
from model.modeling_siglip2_embeddings import Siglip2VisionEmbeddings
from model.modeling_siglip_vision_encoder import SiglipEncoder
from model.modeling_siglip_vision_pooling_head import SiglipMultiheadAttentionPoolingHead
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling


class Siglip2VisionTransformer(nn.Module):
    """Images of any aspect ratio to patch vectors and one pooled vector each.

    Tschannen et al. 2025, section 2.4.2 (NaFlex); reference class `Siglip2VisionModel`.
    """

    def __init__(self, config: Siglip2VisionConfig) -> None:
        super().__init__()
        self.embeddings = Siglip2VisionEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = SiglipMultiheadAttentionPoolingHead(config) if config.vision_use_head else None

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor,
        spatial_shapes: torch.Tensor,
    ) -> BaseModelOutputWithPooling:
        """Encode patches: (batch, max_length, patch * patch * channels) -> patch, pooled vectors.

        They are (batch, max_length, hidden), where rows of padding mean nothing, and
        (batch, hidden), the latter None without head.
        """
        hidden_states = self.embeddings(pixel_values, spatial_shapes)
        check_shape("pixel_attention_mask", pixel_attention_mask, *pixel_values.shape[:2])
        mask = pixel_attention_mask.bool()
        last_hidden_state = self.post_layernorm(self.encoder(hidden_states, mask))
        pooler_output = self.head(last_hidden_state, mask) if self.head is not None else None
        return BaseModelOutputWithPooling(last_hidden_state, pooler_output)
