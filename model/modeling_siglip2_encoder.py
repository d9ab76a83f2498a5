"""The stack of transformer layers of the SigLIP 2 NaFlex vision tower."""

import torch
from torch import nn

from model.config_siglip2 import Siglip2VisionConfig
from model.modeling_siglip2_encoder_layer import Siglip2EncoderLayer


class Siglip2Encoder(nn.Module):
    """`num_hidden_layers` encoder layers, one after the other; reference class `Siglip2Encoder`."""

    def __init__(self, config: Siglip2VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Siglip2EncoderLayer(config) for _ in range(config.num_hidden_layers)
        )

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Run all layers: (batch, patches, hidden) -> the same shape, not yet normalised."""
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask)
        return hidden_states
