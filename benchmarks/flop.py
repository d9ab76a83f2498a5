"""How much arithmetic a forward takes, and how fast this machine does that arithmetic at best."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

from benchmarks.timing import Timing
from model import SiglipVisionConfig

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Matmul:
    """`count` products (rows, inner) x (inner, columns) of one forward."""

    rows: int
    inner: int
    columns: int
    count: int

    @property
    def flop(self) -> int:
        """Floating-point operations of one product: a multiplication and an addition each."""
        return 2 * self.rows * self.inner * self.columns


def tower_matmuls(config: SiglipVisionConfig, batch: int) -> list[Matmul]:
    """List the linear layers of patch embedding and encoder, query, key and value as one."""
    rows, hidden = batch * config.num_patches, config.hidden_size
    layers, inner = config.num_hidden_layers, config.intermediate_size
    return [
        Matmul(rows, config.num_channels * config.patch_size**2, hidden, 1),
        Matmul(rows, hidden, 3 * hidden, layers),
        Matmul(rows, hidden, hidden, layers),
        Matmul(rows, hidden, inner, layers),
        Matmul(rows, inner, hidden, layers),
    ]


def roofline_contenders(
    config: SiglipVisionConfig, batch: int, device: str
) -> dict[str, Callable[[], torch.Tensor]]:
    """Build every linear layer alone, by each library of the device in both dtypes, one name each.

    Best case on purpose: random operands, the same weight each time, nothing but the product.
    """
    contenders: dict[str, Callable[[], torch.Tensor]] = {}
    for dtype in _DTYPES:
        for matmul in tower_matmuls(config, batch):
            for library, call in _linears(matmul, device, _DTYPES[dtype]):
                contenders[_name(dtype, matmul, library)] = call
    return contenders


def roofline_gflop_per_s(
    timings: Mapping[str, Timing], config: SiglipVisionConfig, batch: int, dtype: str
) -> float:
    """Return the rate of all linear layers, each by the library that is faster for its shape."""
    matmuls = tower_matmuls(config, batch)
    seconds = 0.0
    for matmul in matmuls:
        by_library = [
            timings[name].low_s
            for name in (_name(dtype, matmul, library) for library in ("F.linear", "oneDNN"))
            if name in timings
        ]
        seconds += matmul.count * min(by_library)
    return sum(matmul.count * matmul.flop for matmul in matmuls) / seconds / 1e9


def _linears(
    matmul: Matmul, device: str, dtype: torch.dtype
) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(matmul.rows, matmul.inner, generator=generator).to(device, dtype)
    weight = torch.randn(matmul.columns, matmul.inner, generator=generator).to(device, dtype)
    bias = torch.zeros(matmul.columns, device=device, dtype=dtype)
    yield "F.linear", lambda: functional.linear(inputs, weight, bias)
    if device == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        run: Callable[..., torch.Tensor] = torch.ops.mkldnn._linear_pointwise
        yield "oneDNN", lambda: run(inputs, packed, bias, "none", [], "")


def _name(dtype: str, matmul: Matmul, library: str) -> str:
    return f"{dtype} {matmul.rows}x{matmul.inner}x{matmul.columns} {library}"
