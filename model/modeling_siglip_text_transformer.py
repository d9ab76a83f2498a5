"""The whole text transformer: embeddings, encoder, final layer norm, projection."""

import torch
from torch import nn

from model.config_siglip_text import SiglipTextConfig
from model.initialization import lecun_normal_
from model.modeling_siglip_text_embeddings import SiglipTextEmbeddings
from model.modeling_siglip_vision_encoder import SiglipEncoder
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling


class SiglipTextTransformer(nn.Module):
    """Texts to token vectors and one pooled vector each.

    The pooled vector is that of the last position, be it a token or padding: the towers were
    trained on texts padded to their full length, without a mask. Zhai et al. 2023, section 3;
    reference class `SiglipTextModel`.
    """

    def __init__(self, config: SiglipTextConfig) -> None:
        super().__init__()
        self.embeddings = SiglipTextEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.projection_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights of the projection from the reference's distribution."""
        lecun_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: torch.Tensor) -> BaseModelOutputWithPooling:
        """Encode texts: integers (batch, tokens) -> token and pooled vectors."""
        hidden_states = self.encoder(self.embeddings(input_ids))
        last_hidden_state = self.final_layer_norm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state, self.head(last_hidden_state[:, -1]))
