"""Attention-pooling head of the vision towers."""

import torch
from torch import nn

from model.config import VisionTowerConfig
from model.initialization import lecun_normal_
from model.modeling_siglip_vision_mlp import SiglipMLP


class SiglipMultiheadAttentionPoolingHead(nn.Module):
    """One learned query attends to all patches and becomes the image's vector.

    The residual starts at the attention's output; there is none around the attention itself, and
    no projection after it. Lee et al. 2019, section 3.2 (pooling by multihead attention); Zhai et
    al. 2022, appendix; reference class `SiglipMultiheadAttentionPoolingHead`.
    """

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.attention = nn.MultiheadAttention(
            config.hidden_size, config.num_attention_heads, batch_first=True
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SiglipMLP(config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from the reference's distribution."""
        nn.init.xavier_uniform_(self.probe)
        nn.init.xavier_uniform_(self.attention.in_proj_weight)
        nn.init.zeros_(self.attention.in_proj_bias)
        lecun_normal_(self.attention.out_proj.weight)
        nn.init.zeros_(self.attention.out_proj.bias)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Pool the patches of each image: (batch, patches, hidden) -> (batch, hidden).

        `attention_mask` is true for what may be attended to: (batch, patches); without, all may.
        """
        probe = self.probe.expand(hidden_states.shape[0], -1, -1)  # (batch, 1, hidden)
        padding = None if attention_mask is None else ~attention_mask
        pooled, _ = self.attention(
            probe, hidden_states, hidden_states, key_padding_mask=padding, need_weights=False
        )
        pooled = pooled + self.mlp(self.layernorm(pooled))
        return pooled[:, 0]
