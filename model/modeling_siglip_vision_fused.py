"""The vision tower rearranged for speed: the same function of the same weights.

What differs from `SiglipVisionTransformer`: pixels are normalised inside the patch embedding;
query, key and value are one matrix; on the CPU, weights are stored in oneDNN's blocked layout, with
GELU computed while the result is in cache; attention takes one image at a time where that keeps its
scores in cache; and the pooling head projects no keys and only pooled values, since
its query is a constant. docs/performance.md has the measurements.
"""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from model.fused_linear import copy_to, fused_linear
from model.image_processing_siglip import SiglipImageProcessor
from model.modeling_siglip_vision_encoder_layer import SiglipEncoderLayer
from model.modeling_siglip_vision_fused_embeddings import FusedVisionEmbeddings
from model.modeling_siglip_vision_fused_pooling_head import FusedPoolingHead
from model.modeling_siglip_vision_transformer import (
    BaseModelOutputWithPooling,
    SiglipVisionTransformer,
)

# Of an image's heads, as many go together as have so many scores, 8 MiB of them. All heads of 729
# patches have twice as many, and take longer.
_SCORES_AT_ONCE = 2**22


class FusedVisionTransformer(nn.Module):
    """Image normalisation and a `SiglipVisionTransformer` for inference, native size only.

    With dtype int8 the encoder's linear layers are `Int8Linear`, and all else is bfloat16. With
    `packed` false, what torch.compile cannot trace is left out. With `consume` the original loses
    its layers, each as soon as it is packed, so that the two are never in memory whole.
    """

    def __init__(
        self,
        tower: SiglipVisionTransformer,
        processor: SiglipImageProcessor,
        device: torch.device,
        dtype: torch.dtype,
        *,
        packed: bool = True,
        consume: bool = False,
    ) -> None:
        super().__init__()
        between = _dtype_between_linears(dtype)
        layers = tower.encoder.layers
        self.embeddings = FusedVisionEmbeddings(
            tower.embeddings, processor, device, between, packed=packed
        )
        self.layers = nn.ModuleList(
            FusedEncoderLayer(layer, device, dtype, packed=packed)  # type: ignore[arg-type] # ModuleList is untyped
            for layer in (drain(layers) if consume else layers)
        )
        self.post_layernorm = copy_to(tower.post_layernorm, device, between)
        self.head = FusedPoolingHead(tower.head, device) if tower.head is not None else None

    def forward(self, pixels: torch.Tensor) -> BaseModelOutputWithPooling:
        """Encode images: uint8 (batch, height, width, channels) -> patch and pooled vectors."""
        hidden_states = self.embeddings(pixels)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        hidden_states = self.post_layernorm(hidden_states)
        pooled = self.head(hidden_states) if self.head is not None else None
        return BaseModelOutputWithPooling(hidden_states, pooled)


class FusedEncoderLayer(nn.Module):
    """A `SiglipEncoderLayer` for inference."""

    def __init__(
        self,
        layer: SiglipEncoderLayer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        packed: bool = True,
    ) -> None:
        super().__init__()
        linear = partial(fused_linear, device=device, dtype=dtype, packed=packed)
        between = _dtype_between_linears(dtype)
        attention, mlp = layer.self_attn, layer.mlp
        self.num_heads = attention.num_heads
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        scale = (query.out_features // attention.num_heads) ** -0.5
        weight = torch.cat([query.weight.float() * scale, key.weight.float(), value.weight.float()])
        bias = torch.cat([query.bias.float() * scale, key.bias.float(), value.bias.float()])
        self.image_by_image = packed and device.type == "cpu" and between == torch.bfloat16
        self.layer_norm1 = copy_to(layer.layer_norm1, device, between)
        self.qkv = linear(weight, bias)
        self.out_proj = linear(attention.out_proj.weight, attention.out_proj.bias)
        self.layer_norm2 = copy_to(layer.layer_norm2, device, between)
        self.fc1 = linear(mlp.fc1.weight, mlp.fc1.bias, activation=mlp.activation_fn)
        self.fc2 = linear(mlp.fc2.weight, mlp.fc2.bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Refine the patches: (batch, patches, hidden) -> (batch, patches, hidden)."""
        attended = self._attend(self.qkv(self.layer_norm1(hidden_states)))
        hidden_states = self.out_proj(attended, hidden_states)
        return self.fc2(self.fc1(self.layer_norm2(hidden_states)), hidden_states)

    def _attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """(batch, patches, 3 hidden) -> (batch, patches, hidden)."""
        batch, patches, _ = qkv.shape
        qkv = qkv.view(batch, patches, 3, self.num_heads, -1)
        if self.image_by_image:
            return _attend_image_by_image(qkv).view(batch, patches, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (batch, heads, patches, head_dim) each
        attended = nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return attended.transpose(1, 2).reshape(batch, patches, -1)


def drain(layers: nn.ModuleList) -> Iterator[nn.Module]:
    """Take the layers out one by one, so that nothing keeps one that has been packed."""
    while len(layers):
        yield layers.pop(0)


def _dtype_between_linears(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.int8 else dtype


def _attend_image_by_image(qkv: torch.Tensor) -> torch.Tensor:
    """Dot-product attention, scaled already, in buffers that stay in cache from image to image.

    (batch, patches, 3, heads, head_dim) -> (batch, patches, heads, head_dim).
    """
    batch, patches, _, heads, head_dim = qkv.shape
    groups = math.ceil(heads * patches**2 / _SCORES_AT_ONCE)
    inputs = qkv.new_empty(3, heads, patches, head_dim)
    scores = qkv.new_empty(math.ceil(heads / groups), patches, patches)
    outputs = qkv.new_empty(heads, patches, head_dim)
    attended = qkv.new_empty(batch, patches, heads, head_dim)
    for image, result in zip(qkv, attended, strict=True):
        inputs.copy_(image.permute(1, 2, 0, 3))
        for group, output in zip(inputs.chunk(groups, 1), outputs.chunk(groups), strict=True):
            query, key, value = group
            some = scores[: len(output)]
            torch.bmm(query, key.transpose(1, 2), out=some)
            torch.softmax(some, -1, out=some)
            torch.bmm(some, value, out=output)
        result.copy_(outputs.transpose(0, 1))
    return attended
