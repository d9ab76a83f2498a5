"""The NaFlex tower rearranged for speed: the same function of the same weights.

Beside what `FusedVisionTransformer` does, images are packed: their patches stand one after the
other, without padding, and only attention and pooling see where one image ends.
"""

from collections.abc import Sequence

import torch
from torch import nn

from model.fused_attention import pick_attention
from model.fused_packed_attention import pick_packed_attention
from model.image_processing_siglip2 import Siglip2ImageProcessor
from model.modeling_siglip2_fused_embeddings import FusedSiglip2Embeddings
from model.modeling_siglip2_transformer import Siglip2VisionTransformer
from model.modeling_siglip_vision_fused_encoder import FusedEncoder, FusedEncoderLayer
from model.modeling_siglip_vision_fused_pooling_head import FusedPoolingHead
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling
from model.packing import Packing


class FusedSiglip2Transformer(nn.Module):
    """Image normalisation and a `Siglip2VisionTransformer` for inference.

    `consume` is as `FusedEncoder` has it, `attention` as `FusedVisionTransformer` does.
    """

    def __init__(
        self,
        tower: Siglip2VisionTransformer,
        processor: Siglip2ImageProcessor,
        device: torch.device,
        dtype: torch.dtype,
        *,
        consume: bool = False,
    ) -> None:
        super().__init__()
        self.embeddings = FusedSiglip2Embeddings(tower.embeddings, processor, device, dtype)
        self.encoder = FusedEncoder(
            tower.encoder.layers, tower.post_layernorm, device, dtype, consume=consume
        )
        layer = self.encoder.layers[0]
        assert isinstance(layer, FusedEncoderLayer)  # noqa: S101 # for the type checker
        head_dim = tower.post_layernorm.normalized_shape[0] // layer.num_heads
        attend = pick_attention(device, dtype)
        self.attention = "one_by_one" if device.type == "cpu" else "together"
        self.attend_packed = pick_packed_attention(device, dtype, head_dim, attend)
        self.head = FusedPoolingHead(tower.head, device) if tower.head else None

    def forward(
        self, patches: torch.Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> BaseModelOutputWithPooling:
        """Encode images: uint8 (patches, patch * patch * channels), packed -> vectors.

        `spatial_shapes` are each image's rows and columns of patches. Patch vectors are packed too:
        (patches, hidden); pooled vectors are (batch, hidden).
        """
        packing = Packing([rows * columns for rows, columns in spatial_shapes], patches.device)
        hidden_states = self.embeddings(patches, spatial_shapes)
        hidden_states = self.encoder(hidden_states, self.attend_packed(packing))
        pooled = None
        if self.head is not None:
            pooled = self.head(packing.pad(hidden_states), packing.mask)
        return BaseModelOutputWithPooling(hidden_states, pooled)
