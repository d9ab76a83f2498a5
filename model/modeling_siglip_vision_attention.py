"""Multi-head self-attention, the same in every tower."""

import torch
from torch import nn

from model.config_encoder import EncoderConfig


class SiglipAttention(nn.Module):
    """Every token attends to every token, in `num_attention_heads` subspaces.

    Vaswani et al. 2017, section 3.2; reference class `SiglipAttention`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from the reference's distribution."""
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mix the tokens of each image or text: (batch, tokens, hidden) -> the same shape.

        `attention_mask` is true for what may be attended to: (batch, tokens); without, all may.
        """
        attended = nn.functional.scaled_dot_product_attention(
            self._split_heads(self.q_proj(hidden_states)),
            self._split_heads(self.k_proj(hidden_states)),
            self._split_heads(self.v_proj(hidden_states)),
            attn_mask=None if attention_mask is None else attention_mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )  # (batch, heads, tokens, head_dim)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _split_heads(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) -> (batch, heads, tokens, head_dim)."""
        batch, tokens, _ = projected.shape
        return projected.view(batch, tokens, self.num_heads, -1).transpose(1, 2)
