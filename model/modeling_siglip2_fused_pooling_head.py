"""The NaFlex attention-pooling head rearranged for speed: the same function of the same weights."""

import torch

from model.modeling_siglip_vision_fused_pooling_head import FusedPoolingHead


class FusedSiglip2PoolingHead(FusedPoolingHead):
    """A `Siglip2MultiheadAttentionPoolingHead` for inference, in float32."""

    def forward(  # type: ignore[override] # other inputs
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Pool the patches of each image: (batch, patches, hidden) -> float32 (batch, hidden).

        `attention_mask` is true for what may be attended to: (batch, patches).
        """
        hidden_states = hidden_states.float()
        scores = hidden_states @ self.score_weight.T  # (batch, patches, heads)
        padding = ~attention_mask[..., None]
        return self._pool(hidden_states, scores.masked_fill(padding, -torch.inf))
