"""The stack of transformer layers of the SigLIP vision tower."""

import torch
from torch import nn

from model.config import SiglipVisionConfig
from model.modeling_siglip_vision_encoder_layer import SiglipEncoderLayer


class SiglipEncoder(nn.Module):
    """`num_hidden_layers` encoder layers, one after the other; reference class `SiglipEncoder`."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SiglipEncoderLayer(config) for _ in range(config.num_hidden_layers)
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Run all layers: (batch, patches, hidden) -> the same shape, not yet normalised."""
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states
