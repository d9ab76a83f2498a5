"""Attention of the fused layers: how a matrix of queries, keys and values becomes what is attended.

Which way is fastest depends on device, dtype and processor, so it is chosen where a tower is built.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from model.packing import Packing

# Of an image's heads, as many go together as have so many scores, 8 MiB of them. All heads of 729
# patches have twice as many, and take longer.
_SCORES_AT_ONCE = 2**22

Attend = Callable[[torch.Tensor, int], torch.Tensor]
"""(batch, tokens, 3 hidden), queries scaled already, and the number of heads -> (batch, tokens,
hidden). Of packed sequences without the batch: (tokens of all, 3 hidden) -> (.., hidden). It may
give fewer tokens: the last ones."""


def pick_attention(device: torch.device, dtype: torch.dtype, *, compilable: bool = False) -> Attend:
    """Return the fastest attention; `dtype` is that of the queries, keys and values.

    On the CPU in bfloat16 PyTorch's own is the fastest where it multiplies tiles, by AMX, and where
    the processor has no instruction for products in bfloat16.
    """
    in_bfloat16 = device.type == "cpu" and dtype == torch.bfloat16 and not compilable
    if in_bfloat16 and _multiplies_bfloat16() and not multiplies_tiles():
        return attend_one_by_one
    return attend_together


def multiplies_tiles() -> bool:
    """Tell whether PyTorch's attention may use AMX: ATEN_CPU_CAPABILITY can forbid it."""
    return torch.cpu._is_amx_tile_supported() and (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def _multiplies_bfloat16() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def attend_together(
    qkv: torch.Tensor, num_heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attend in one call of PyTorch; `mask` is added to the scores: (batch, 1, 1, tokens)."""
    batch, tokens, _ = qkv.shape
    query, key, value = _split_heads(qkv, num_heads)
    attended = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=1.0
    )
    return attended.transpose(1, 2).reshape(batch, tokens, -1)


def attend_one_by_one(qkv: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Attend in buffers that stay in cache from one image or text to the next."""
    batch, tokens, _ = qkv.shape
    qkv = qkv.view(batch, tokens, 3, num_heads, -1)
    head_dim = qkv.shape[-1]
    groups = math.ceil(num_heads * tokens**2 / _SCORES_AT_ONCE)
    inputs = qkv.new_empty(3, num_heads, tokens, head_dim)
    scores = qkv.new_empty(math.ceil(num_heads / groups), tokens, tokens)
    outputs = qkv.new_empty(num_heads, tokens, head_dim)
    attended = qkv.new_empty(batch, tokens, num_heads, head_dim)
    for one, result in zip(qkv, attended, strict=True):
        inputs.copy_(one.permute(1, 2, 0, 3))
        for group, output in zip(inputs.chunk(groups, 1), outputs.chunk(groups), strict=True):
            query, key, value = group
            some = scores[: len(output)]
            torch.bmm(query, key.transpose(1, 2), out=some)
            torch.softmax(some, -1, out=some)
            torch.bmm(some, value, out=output)
        result.copy_(outputs.transpose(0, 1))
    return attended.view(batch, tokens, -1)


def attend_from_last(qkv: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Attend from the last token alone: (batch, tokens, 3 hidden) -> (batch, 1, hidden)."""
    query, key, value = _split_heads(qkv, num_heads)
    scores = query[..., -1:, :] @ key.transpose(-1, -2)  # (batch, heads, 1, tokens)
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def _split_heads(qkv: torch.Tensor, num_heads: int) -> tuple[torch.Tensor, ...]:
    """(batch, tokens, 3 hidden) -> queries, keys, values (batch, heads, tokens, head_dim) each."""
    return qkv.view(*qkv.shape[:2], 3, num_heads, -1).permute(2, 0, 3, 1, 4).unbind()


class PackedAttention:
    """Attention within the images of a packed sequence, image by image; see `Attend`."""

    def __init__(self, packing: Packing, attend: Attend) -> None:
        self._packing, self._attend = packing, attend

    def __call__(self, qkv: torch.Tensor, num_heads: int) -> torch.Tensor:
        """(patches, 3 hidden) -> (patches, hidden)."""
        own = [self._attend(image[None], num_heads)[0] for image in self._packing.split(qkv)]
        return torch.cat(own)
