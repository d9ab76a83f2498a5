"""Multi-head self-attention of the SigLIP 2 NaFlex vision tower."""

import torch
from torch import nn

from model.modeling_siglip_vision_attention import SiglipAttention


class Siglip2Attention(SiglipAttention):
    """Attention in which nobody attends to padding; reference class `Siglip2Attention`."""

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mix the patches of each image: (batch, patches, hidden) -> (batch, patches, hidden).

        `attention_mask` is true for what may be attended to: (batch, patches).
        """
        attended = nn.functional.scaled_dot_product_attention(
            self._split_heads(self.q_proj(hidden_states)),
            self._split_heads(self.k_proj(hidden_states)),
            self._split_heads(self.v_proj(hidden_states)),
            attn_mask=None if attention_mask is None else attention_mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )  # (batch, heads, patches, head_dim)
        return self.out_proj(attended.transpose(1, 2).flatten(2))
