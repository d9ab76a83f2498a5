"""One pre-norm transformer layer, the same in every tower."""

import torch
from torch import nn

from model.config_encoder import EncoderConfig
from model.modeling_siglip_vision_attention import SiglipAttention
from model.modeling_siglip_vision_mlp import SiglipMLP


class SiglipEncoderLayer(nn.Module):
    """Attention, then feed-forward, each normalised before and added back.

    Xiong et al. 2020, section 3 (pre-LN); reference class `SiglipEncoderLayer`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SiglipAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SiglipMLP(config)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Refine the tokens: (batch, tokens, hidden) -> (batch, tokens, hidden).

        `attention_mask` is as `SiglipAttention` has it.
        """
        hidden_states = hidden_states + self.self_attn(
            self.layer_norm1(hidden_states), attention_mask
        )
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))
