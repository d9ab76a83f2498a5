"""The NaFlex tower rearranged for speed: the same function of the same weights.

Beside what `FusedVisionTransformer` does, images are packed: their patches stand one after the
other, without padding, and only attention and pooling see where one image ends.
"""

from collections.abc import Sequence

import torch
from torch import nn

from model.fused_linear import copy_to
from model.image_processing_siglip2 import Siglip2ImageProcessor
from model.modeling_siglip2_fused_embeddings import FusedSiglip2Embeddings
from model.modeling_siglip2_fused_pooling_head import FusedSiglip2PoolingHead
from model.modeling_siglip2_transformer import Siglip2VisionTransformer
from model.modeling_siglip_vision_fused import FusedEncoderLayer, drain
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling
from model.packing import Packing


class FusedSiglip2Transformer(nn.Module):
    """Image normalisation and a `Siglip2VisionTransformer` for inference.

    With `consume` the original loses its layers, as in `FusedVisionTransformer`.
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
        layers = tower.encoder.layers
        self.embeddings = FusedSiglip2Embeddings(tower.embeddings, processor, device, dtype)
        self.layers = nn.ModuleList(
            PackedEncoderLayer(layer, device, dtype)  # type: ignore[arg-type] # has the same parts
            for layer in (drain(layers) if consume else layers)
        )
        self.post_layernorm = copy_to(tower.post_layernorm, device, dtype)
        self.head = FusedSiglip2PoolingHead(tower.head, device) if tower.head else None

    def forward(
        self, patches: torch.Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> BaseModelOutputWithPooling:
        """Encode images: uint8 (patches, patch * patch * channels), packed -> vectors.

        `spatial_shapes` are each image's rows and columns of patches. Patch vectors are packed too:
        (patches, hidden); pooled vectors are (batch, hidden).
        """
        packing = Packing([rows * columns for rows, columns in spatial_shapes], patches.device)
        hidden_states = self.embeddings(patches, spatial_shapes)
        for layer in self.layers:
            hidden_states = layer(hidden_states, packing)
        hidden_states = self.post_layernorm(hidden_states)
        pooled = None
        if self.head is not None:
            pooled = self.head(packing.pad(hidden_states), packing.mask)
        return BaseModelOutputWithPooling(hidden_states, pooled)


class PackedEncoderLayer(FusedEncoderLayer):
    """A `Siglip2EncoderLayer` for inference on packed patches."""

    def forward(  # type: ignore[override] # other inputs
        self, hidden_states: torch.Tensor, packing: Packing
    ) -> torch.Tensor:
        """Refine the patches: (patches, hidden) -> (patches, hidden)."""
        attended = self._attend_within_images(self.qkv(self.layer_norm1(hidden_states)), packing)
        hidden_states = self.out_proj(attended, hidden_states)
        return self.fc2(self.fc1(self.layer_norm2(hidden_states)), hidden_states)

    def _attend_within_images(self, qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
        """(patches, 3 hidden) -> (patches, hidden)."""
        if qkv.device.type == "cpu":
            return torch.cat([self._attend(own[None])[0] for own in packing.split(qkv)])
        return self._attend_padded(qkv, packing)

    def _attend_padded(self, qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
        """Do the same for all images at once: small kernels take longer to launch than to run."""
        padded = packing.pad(qkv)
        padded = padded.view(*padded.shape[:2], 3, self.num_heads, -1)
        query, key, value = padded.permute(2, 0, 3, 1, 4)  # (batch, heads, longest, head_dim) each
        attended = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=packing.mask[:, None, None], scale=1.0
        )
        return packing.unpad(attended.transpose(1, 2).flatten(2))
