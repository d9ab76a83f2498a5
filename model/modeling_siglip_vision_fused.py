"""The vision tower rearranged for speed: the same function of the same weights.

What differs from `SiglipVisionTransformer`: pixels are normalised inside the patch embedding;
query, key and value are one matrix; on the CPU, weights are stored in oneDNN's blocked layout, with
GELU computed while the result is in cache; attention takes one image at a time where that keeps its
scores in cache; and the pooling head projects no keys and only pooled values, since
its query is a constant. docs/performance.md has the measurements.
"""

import torch
from torch import nn

from model.fused_attention import pick_attention
from model.image_processing_siglip import SiglipImageProcessor
from model.modeling_siglip_vision_fused_embeddings import FusedVisionEmbeddings
from model.modeling_siglip_vision_fused_encoder import FusedEncoder, dtype_between_linears
from model.modeling_siglip_vision_fused_pooling_head import FusedPoolingHead
from model.modeling_siglip_vision_transformer import (
    BaseModelOutputWithPooling,
    SiglipVisionTransformer,
)


class FusedVisionTransformer(nn.Module):
    """Image normalisation and a `SiglipVisionTransformer` for inference, native size only.

    `dtype`, `compilable` and `consume` are as `FusedEncoder` has them. `attention` is how the
    images of a batch attend, together or one_by_one.
    """

    def __init__(
        self,
        tower: SiglipVisionTransformer,
        processor: SiglipImageProcessor,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compilable: bool = False,
        consume: bool = False,
    ) -> None:
        super().__init__()
        between = dtype_between_linears(dtype)
        self.attend = pick_attention(device, between, compilable=compilable)
        self.attention = self.attend.__name__.removeprefix("attend_")
        self.embeddings = FusedVisionEmbeddings(
            tower.embeddings, processor, device, between, compilable=compilable
        )
        self.encoder = FusedEncoder(
            tower.encoder.layers,
            tower.post_layernorm,
            device,
            dtype,
            compilable=compilable,
            consume=consume,
        )
        self.head = FusedPoolingHead(tower.head, device) if tower.head is not None else None

    def forward(self, pixels: torch.Tensor) -> BaseModelOutputWithPooling:
        """Encode images: uint8 (batch, height, width, channels) -> patch and pooled vectors.

        They are (batch, patches, hidden) and float32 (batch, hidden), the latter None without head.
        """
        hidden_states = self.encoder(self.embeddings(pixels), self.attend)
        pooled = self.head(hidden_states) if self.head is not None else None
        return BaseModelOutputWithPooling(hidden_states, pooled)
