"""The stack of transformer layers, the same in every tower."""

import torch
from torch import nn

from model.config_encoder import EncoderConfig
from model.modeling_siglip_vision_encoder_layer import SiglipEncoderLayer


class SiglipEncoder(nn.Module):
    """`num_hidden_layers` encoder layers, one after the other; reference class `SiglipEncoder`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SiglipEncoderLayer(config) for _ in range(config.num_hidden_layers)
        )

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run all layers: (batch, tokens, hidden) -> the same shape, not yet normalised.

        `attention_mask` is as `SiglipAttention` has it.
        """
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask)
        return hidden_states
