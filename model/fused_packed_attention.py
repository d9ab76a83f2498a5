"""Attention within the images of a packed sequence, on devices other than the CPU.

There all images go at once: small kernels take longer to launch than to run.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial

import torch

from model.fused_attention import Attend, PackedAttention, attend_together
from model.packing import Packing

# What attention with a mask wants a row of it to begin at a multiple of, whatever the dtype; else
# PyTorch copies the mask in each layer.
_MASK_ALIGNMENT = 16

PackedAttend = Callable[[Packing], Attend]
"""Makes the attention of one batch: (patches, 3 hidden) -> (patches, hidden)."""


def pick_packed_attention(
    device: torch.device, dtype: torch.dtype, head_dim: int, attend: Attend
) -> PackedAttend:
    """Return the fastest way that works; on a CPU, `attend` image by image."""
    if device.type == "cpu":
        return partial(PackedAttention, attend=attend)
    if device.type == "cuda" and _takes_lengths(device, dtype, head_dim):
        return AttentionByLength
    return PaddedAttention


class AttentionByLength:
    """Variable-length (varlen) flash attention: told where images end, without padding or mask.

    For float16 and bfloat16 on CUDA devices of compute capability 8.0 or more.
    """

    def __init__(self, packing: Packing) -> None:
        self._starts, self._longest = packing.starts(), max(packing.lengths)

    def __call__(self, qkv: torch.Tensor, num_heads: int) -> torch.Tensor:
        """(patches, 3 hidden) -> (patches, hidden)."""
        from torch.nn.attention.varlen import varlen_attn

        query, key, value = qkv.view(len(qkv), 3, num_heads, -1).unbind(1)
        starts, longest = self._starts, self._longest
        attended = varlen_attn(query, key, value, starts, starts, longest, longest, scale=1.0)
        assert isinstance(attended, torch.Tensor)  # noqa: S101 # no more was asked for
        return attended.flatten(1)


class PaddedAttention:
    """Attention on a padded batch, with a mask that is made once for all layers."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._mask: torch.Tensor | None = None

    def __call__(self, qkv: torch.Tensor, num_heads: int) -> torch.Tensor:
        """(patches, 3 hidden) -> (patches, hidden)."""
        if self._mask is None:
            self._mask = _mask_to_add(self._packing.mask, qkv.dtype)
        padded = attend_together(self._packing.pad(qkv), num_heads, self._mask)
        return self._packing.unpad(padded)


def _mask_to_add(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return zero for what may be attended to, else minus infinity: -> (batch, 1, 1, tokens)."""
    batch, tokens = mask.shape
    aligned = math.ceil(tokens / _MASK_ALIGNMENT) * _MASK_ALIGNMENT
    added = torch.zeros(batch, 1, 1, aligned, dtype=dtype, device=mask.device)[..., :tokens]
    return added.masked_fill_(~mask[:, None, None], -math.inf)


@torch.inference_mode()
def _takes_lengths(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Try `AttentionByLength` on two short images, beside `PaddedAttention`."""
    capable = torch.cuda.get_device_capability(device) >= (8, 0)
    if not capable or dtype not in (torch.float16, torch.bfloat16):
        return False
    packing = Packing([3, 5], device)
    qkv = torch.linspace(-1, 1, 8 * 3 * head_dim, dtype=torch.float32, device=device)
    qkv = qkv.sin().view(8, -1).to(dtype)
    try:
        given = AttentionByLength(packing)(qkv, 1)
        torch.testing.assert_close(given, PaddedAttention(packing)(qkv, 1), rtol=0.05, atol=0.05)
    except (torch.AcceleratorError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 # another version of torch, or an unknown card
        warnings.warn(f"attention by length is not used: {error}", stacklevel=2)
        return False
    return True
