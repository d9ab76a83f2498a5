"""The attention-pooling head rearranged for speed: the same function of the same weights."""

import torch
from torch import nn

from model.fused_linear import copy_to
from model.modeling_siglip_vision_pooling_head import SiglipMultiheadAttentionPoolingHead


class FusedPoolingHead(nn.Module):
    """A `SiglipMultiheadAttentionPoolingHead` for inference, in float32.

    The query is a constant, so it is multiplied into the key projection once: scores are one small
    matrix product with the patches. The value projection follows the weighted mean instead of
    preceding it, and then sees one row per head instead of one per patch. Both are the associative
    law; the key bias shifts all scores of a head alike and drops out of the softmax.
    """

    @torch.no_grad()  # else the buffers would ask for gradients
    def __init__(self, head: SiglipMultiheadAttentionPoolingHead, device: torch.device) -> None:
        super().__init__()
        attention = head.attention
        heads, hidden = attention.num_heads, attention.embed_dim
        weight = attention.in_proj_weight.float().view(3, heads, -1, hidden)
        bias = attention.in_proj_bias.float().view(3, heads, -1)
        query = torch.einsum("hed,d->he", weight[0], head.probe.float().flatten()) + bias[0]
        scores = torch.einsum("he,hed->hd", query, weight[1]) * query.shape[-1] ** -0.5
        self.score_weight = nn.Buffer(scores.to(device))  # (heads, hidden)
        self.value_weight = nn.Buffer(weight[2].to(device, copy=True))  # (heads, head_dim, hidden)
        self.value_bias = nn.Buffer(bias[2].flatten().to(device, copy=True))  # (hidden,)
        self.out_proj = copy_to(attention.out_proj, device, torch.float32)
        self.layernorm = copy_to(head.layernorm, device, torch.float32)
        self.fc1 = copy_to(head.mlp.fc1, device, torch.float32)
        self.activation_fn = head.mlp.activation_fn
        self.fc2 = copy_to(head.mlp.fc2, device, torch.float32)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Pool the patches of each image: (batch, patches, hidden) -> float32 (batch, hidden).

        `attention_mask` is true for what may be attended to: (batch, patches); without, all may.
        """
        hidden_states = hidden_states.float()
        scores = hidden_states @ self.score_weight.T  # (batch, patches, heads)
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask[..., None], -torch.inf)
        means = scores.softmax(1).transpose(1, 2) @ hidden_states  # (batch, heads, hidden)
        values = torch.einsum("bhd,hed->bhe", means, self.value_weight).flatten(1)
        pooled = self.out_proj(values + self.value_bias)
        return pooled + self.fc2(self.activation_fn(self.fc1(self.layernorm(pooled))))
