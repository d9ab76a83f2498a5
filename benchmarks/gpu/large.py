"""Stage 7: a large model at its batches, and NaFlex's attention in three ways."""

import torch
from torch import nn

from benchmarks.gpu.clocks import event_ms, time_call
from benchmarks.gpu.stage import Plan, Results
from benchmarks.gpu.sustained import measure_large
from benchmarks.report import Row
from model import Siglip2VisionConfig
from model.packing import Packing

_LENGTHS = (256, 196, 240, 128, 252, 64, 224, 250)  # patches of eight images, of 256 at most
_ALIGNED_TO = 8


def measure(plan: Plan, results: Results) -> None:
    """Measure both."""
    measure_large(plan, results)
    config = Siglip2VisionConfig.from_shape(plan.naflex_shape)
    attention = _NaflexAttention(plan, config, images=plan.batches[-1] // 4 or 1)
    with results.table(f"attention of one layer, {plan.naflex_shape}") as add:
        for way in (attention.masked, attention.added_mask, attention.varlen):
            with results.attempt(f"NaFlex, {way.__name__}"):
                add(attention.row(way.__name__))


class _NaflexAttention:
    """Attention within the images of a packed batch, in bfloat16."""

    def __init__(self, plan: Plan, config: Siglip2VisionConfig, images: int) -> None:
        self._plan, self._heads = plan, config.num_attention_heads
        self._head_dim = config.hidden_size // self._heads
        lengths = [_LENGTHS[place % len(_LENGTHS)] for place in range(images)]
        device = plan.torch_device
        self._packing, self._longest = Packing(lengths, device), max(lengths)
        self._qkv = torch.randn(sum(lengths), 3 * config.hidden_size).to(device, torch.bfloat16)
        self._qkv[:, : config.hidden_size] *= self._head_dim**-0.5  # queries are scaled already
        ends = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
        self._ends = ends
        self._added = self._aligned_mask()

    def _aligned_mask(self) -> torch.Tensor:
        """0 where there may be looked, else minus infinity; rows begin at multiples of 8."""
        mask = self._packing.mask
        aligned = -(-self._longest // _ALIGNED_TO) * _ALIGNED_TO
        added = torch.zeros(len(mask), 1, 1, aligned, device=mask.device, dtype=torch.bfloat16)
        added[..., : self._longest].masked_fill_(~mask[:, None, None], -torch.inf)
        return added[..., : self._longest]

    def masked(self) -> torch.Tensor:
        """A padded batch and a boolean mask."""
        return self._attend_padded(self._packing.mask[:, None, None])

    def added_mask(self) -> torch.Tensor:
        """A padded batch and a mask that is added to the scores."""
        return self._attend_padded(self._added)

    def _attend_padded(self, mask: torch.Tensor) -> torch.Tensor:
        padded = self._packing.pad(self._qkv)
        batch, tokens, _ = padded.shape
        query, key, value = (
            padded.view(batch, tokens, 3, self._heads, -1).permute(2, 0, 3, 1, 4).unbind()
        )
        attended = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=1.0
        )
        return self._packing.unpad(attended.transpose(1, 2).reshape(batch, tokens, -1))

    def varlen(self) -> torch.Tensor:
        """No padding at all."""
        from torch.nn.attention.varlen import varlen_attn

        query, key, value = self._qkv.view(len(self._qkv), 3, self._heads, -1).unbind(1)
        attended = varlen_attn(
            query, key, value, self._ends, self._ends, self._longest, self._longest, scale=1.0
        )
        assert isinstance(attended, torch.Tensor)  # noqa: S101 # for the type checker
        return attended.flatten(1)

    @torch.inference_mode()
    def row(self, way: str) -> Row:
        """Time one way, and compare it with the first."""
        call = getattr(self, way)
        timed = time_call(call, self._plan.torch_device, self._plan.window_s / 10)
        return {
            "": way,
            "ms": timed.whole_ms,
            "event ms": event_ms(call, self._plan.torch_device),
            "largest difference": float((call() - self.masked()).abs().max()),
        }
