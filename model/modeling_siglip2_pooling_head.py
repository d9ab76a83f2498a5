"""Attention-pooling head of the SigLIP 2 NaFlex vision tower."""

import torch

from model.modeling_siglip_vision_pooling_head import SiglipMultiheadAttentionPoolingHead


class Siglip2MultiheadAttentionPoolingHead(SiglipMultiheadAttentionPoolingHead):
    """Pooling that leaves padding out; reference class `Siglip2MultiheadAttentionPoolingHead`."""

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Pool the patches of each image: (batch, patches, hidden) -> (batch, hidden).

        `attention_mask` is true for what may be attended to: (batch, patches).
        """
        probe = self.probe.expand(hidden_states.shape[0], -1, -1)  # (batch, 1, hidden)
        padding = None if attention_mask is None else ~attention_mask
        pooled, _ = self.attention(
            probe, hidden_states, hidden_states, key_padding_mask=padding, need_weights=False
        )
        pooled = pooled + self.mlp(self.layernorm(pooled))
        return pooled[:, 0]
