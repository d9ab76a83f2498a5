"""Feed-forward block, the same in every tower."""

import torch
from torch import nn

from model.config_encoder import EncoderConfig
from model.initialization import normal_


class SiglipMLP(nn.Module):
    """Two linear layers around a GELU, for each token alone.

    Hendrycks & Gimpel 2016 (GELU, tanh form); reference class `SiglipMLP`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        tanh = config.hidden_act == "gelu_pytorch_tanh"
        self.activation_fn = nn.GELU(approximate="tanh" if tanh else "none")
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from the reference's distribution."""
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            normal_(linear.bias, std=1e-6)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform each token: (batch, tokens, hidden) -> (batch, tokens, hidden)."""
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))
