"""One pre-norm transformer layer of the SigLIP 2 NaFlex vision tower."""

import torch
from torch import nn

from model.config_siglip2 import Siglip2VisionConfig
from model.modeling_siglip2_attention import Siglip2Attention
from model.modeling_siglip_vision_mlp import SiglipMLP


class Siglip2EncoderLayer(nn.Module):
    """`SiglipEncoderLayer` with a mask for padding; reference class `Siglip2EncoderLayer`."""

    def __init__(self, config: Siglip2VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Siglip2Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SiglipMLP(config)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Refine the patches: (batch, patches, hidden) -> (batch, patches, hidden)."""
        hidden_states = hidden_states + self.self_attn(
            self.layer_norm1(hidden_states), attention_mask
        )
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))
