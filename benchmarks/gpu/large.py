"""Stage 7: a large model at its batches, and NaFlex's attention in three ways."""

import torch

from benchmarks.gpu.clocks import event_ms, time_call
from benchmarks.gpu.stage import Plan, Results
from benchmarks.gpu.sustained import measure_large
from benchmarks.report import Row
from model import Siglip2VisionConfig
from model.fused_attention import attend_together
from model.fused_packed_attention import AttentionByLength, PaddedAttention
from model.packing import Packing

_LENGTHS = (256, 196, 240, 128, 252, 64, 224, 250)  # patches of eight images, of 256 at most


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
        head_dim = config.hidden_size // self._heads
        lengths = [_LENGTHS[place % len(_LENGTHS)] for place in range(images)]
        self._packing = Packing(lengths, plan.torch_device)
        self._qkv = torch.randn(sum(lengths), 3 * config.hidden_size).to(
            plan.torch_device, torch.bfloat16
        )
        self._qkv[:, : config.hidden_size] *= head_dim**-0.5  # queries are scaled already
        self._added, self._by_length = (
            PaddedAttention(self._packing),
            AttentionByLength(self._packing),
        )

    def masked(self) -> torch.Tensor:
        """A padded batch and a boolean mask."""
        padded, mask = self._packing.pad(self._qkv), self._packing.mask[:, None, None]
        return self._packing.unpad(attend_together(padded, self._heads, mask))

    def added_mask(self) -> torch.Tensor:
        """A padded batch and a mask that is added to the scores."""
        return self._added(self._qkv, self._heads)

    def varlen(self) -> torch.Tensor:
        """No padding at all."""
        return self._by_length(self._qkv, self._heads)

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
