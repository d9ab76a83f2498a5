"""The encoder of every tower rearranged for speed: the same function of the same weights."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from model.fused_attention import Attend
from model.fused_linear import OneDnnLinear, copy_to, fused_linear
from model.modeling_siglip_vision_encoder_layer import SiglipEncoderLayer

# So many values of what `fc1` gives go to `fc2` at a time: in bfloat16 most of them are still in a
# second-level cache of 2 MiB. Where it is smaller nothing is lost (docs/performance.md).
_VALUES_BETWEEN = 1_300_000


def dtype_between_linears(dtype: torch.dtype) -> torch.dtype:
    """Return what all but the linear layers compute in: those of int8 give bfloat16."""
    return torch.bfloat16 if dtype == torch.int8 else dtype


class FusedEncoder(nn.Module):
    """A tower's layers and its final layer norm for inference.

    With dtype int8 the linear layers are `Int8Linear`, and all else is bfloat16. With `compilable`,
    what torch.compile cannot trace is left out. With `consume` the original loses its layers, each
    as soon as there is a fused one, so that the two are never in memory whole.
    """

    def __init__(  # of what, how, and at what cost
        self,
        layers: nn.ModuleList,
        norm: nn.LayerNorm,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compilable: bool = False,
        consume: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            FusedEncoderLayer(layer, device, dtype, compilable=compilable)  # type: ignore[arg-type] # ModuleList is untyped
            for layer in (_drain(layers) if consume else layers)
        )
        self.norm = copy_to(norm, device, dtype_between_linears(dtype))

    def forward(
        self, hidden_states: torch.Tensor, attend: Attend, attend_at_last: Attend | None = None
    ) -> torch.Tensor:
        """Run all layers and normalise: (.., hidden) -> the same shape.

        `attend_at_last` takes the place of `attend` in the last layer: where it gives fewer tokens,
        so does this.
        """
        attentions = [attend] * (len(self.layers) - 1) + [attend_at_last or attend]
        for layer, attend_here in zip(self.layers, attentions, strict=True):
            hidden_states = layer(hidden_states, attend_here)
        return self.norm(hidden_states)


class FusedEncoderLayer(nn.Module):
    """A `SiglipEncoderLayer` for inference."""

    def __init__(
        self,
        layer: SiglipEncoderLayer,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compilable: bool = False,
    ) -> None:
        super().__init__()
        linear = partial(fused_linear, device=device, dtype=dtype, compilable=compilable)
        between = dtype_between_linears(dtype)
        attention, mlp = layer.self_attn, layer.mlp
        self.num_heads = attention.num_heads
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        scale = (query.out_features // attention.num_heads) ** -0.5
        weight = torch.cat([query.weight.float() * scale, key.weight.float(), value.weight.float()])
        bias = torch.cat([query.bias.float() * scale, key.bias.float(), value.bias.float()])
        self.layer_norm1 = copy_to(layer.layer_norm1, device, between)
        self.qkv = linear(weight, bias)
        self.out_proj = linear(attention.out_proj.weight, attention.out_proj.bias)
        self.layer_norm2 = copy_to(layer.layer_norm2, device, between)
        self.fc1 = linear(mlp.fc1.weight, mlp.fc1.bias, activation=mlp.activation_fn)
        self.fc2 = linear(mlp.fc2.weight, mlp.fc2.bias)

    def forward(self, hidden_states: torch.Tensor, attend: Attend) -> torch.Tensor:
        """Refine the tokens that `attend` gives: (.., tokens, hidden) -> (.., tokens, hidden)."""
        attended = attend(self.qkv(self.layer_norm1(hidden_states)), self.num_heads)
        refined = hidden_states[..., -attended.shape[-2] :, :]
        hidden_states = self.out_proj(attended, refined)
        blocks = self._blocks(hidden_states)
        if blocks == 1:
            return self._feed_forward(hidden_states)
        rows = hidden_states.flatten(0, -2).tensor_split(blocks)
        return torch.cat([self._feed_forward(some) for some in rows]).view_as(hidden_states)

    def _feed_forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1(self.layer_norm2(hidden_states)), hidden_states)

    def _blocks(self, hidden_states: torch.Tensor) -> int:
        """Return how many blocks of rows are fed forward one after the other."""
        if not isinstance(self.fc1, OneDnnLinear):
            return 1
        values = hidden_states.shape[:-1].numel() * self.fc1.bias.numel()
        return math.ceil(values / (_VALUES_BETWEEN * torch.get_num_threads()))


def _drain(layers: nn.ModuleList) -> Iterator[nn.Module]:
    """Take the layers out one by one, so that nothing keeps one that has been fused."""
    while len(layers):
        yield layers.pop(0)
