"""Stage 6: one way against another: GELU in the product, attention's kernels, a compiled tower."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from app.engine.towers.device import configure_device
from benchmarks.gpu.clocks import event_ms, time_call
from benchmarks.gpu.material import build_forward, has_compiler
from benchmarks.gpu.stage import Plan, Results
from benchmarks.report import Row
from model import SiglipVisionConfig

_BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


def measure(plan: Plan, results: Results) -> None:
    """Compare each pair on the shapes of the model at a large batch."""
    configure_device(plan.torch_device)
    batch = plan.batches[len(plan.batches) // 2]
    for shape, images in ((plan.shape, batch), (plan.large_shape, plan.large_batches[0])):
        config = SiglipVisionConfig.from_shape(shape)
        title = f"fc1 and GELU, {shape}, batch {images}"
        with results.attempt(title), results.table(title) as add:
            for row in _gelu_rows(plan, config, images):
                add(row)
        _compare_attention(plan, results, shape, images)
    _compare_compiled(plan, results, batch)


@torch.inference_mode()
def _gelu_rows(plan: Plan, config: SiglipVisionConfig, batch: int) -> list[Row]:
    device = plan.torch_device
    rows, hidden, inner = batch * config.num_patches, config.hidden_size, config.intermediate_size
    inputs, weight, bias = (
        torch.randn(*shape, device=device, dtype=torch.bfloat16)
        for shape in ((rows, hidden), (inner, hidden), (inner,))
    )
    weight /= hidden**0.5

    def alone() -> torch.Tensor:
        return nn.functional.linear(inputs, weight, bias)

    def apart() -> torch.Tensor:
        return nn.functional.gelu(alone(), approximate="tanh")

    def within() -> torch.Tensor:
        activated: torch.Tensor = torch._addmm_activation(bias, inputs, weight.T, use_gelu=True)
        return activated

    exact = nn.functional.gelu(
        nn.functional.linear(inputs.float(), weight.float(), bias.float()), approximate="tanh"
    )
    ways = {"the product alone": alone, "GELU after it": apart, "_addmm_activation": within}
    return [
        _row(plan, name, way) | {"largest error": _largest_error(way(), exact)}
        for name, way in ways.items()
    ]


def _largest_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got.float() - exact).abs().max())


@torch.inference_mode()
def _compare_attention(plan: Plan, results: Results, shape: str, batch: int) -> None:
    config = SiglipVisionConfig.from_shape(shape)
    heads = config.num_attention_heads
    query, key, value = torch.randn(
        3,
        batch,
        heads,
        config.num_patches,
        config.hidden_size // heads,
        device=plan.torch_device,
        dtype=torch.bfloat16,
    )
    attend = partial(nn.functional.scaled_dot_product_attention, query, key, value)
    with results.table(f"attention, {shape}, batch {batch}") as add:
        for backend in _BACKENDS:
            with results.attempt(f"{backend.name}, {shape}"), sdpa_kernel(backend):
                add(_row(plan, backend.name, attend))


def _compare_compiled(plan: Plan, results: Results, batch: int) -> None:
    if not has_compiler(plan):
        results.skip("torch.compile", "it takes a CUDA device and a C compiler")
        return
    with results.table(f"the tower alone, {plan.shape}, batch {batch}") as add:
        for name, compiled in (("as it is", False), ("torch.compile", True)):
            with results.attempt(f"the tower, {name}"):
                add(_row(plan, name, build_forward(plan, plan.shape, batch, compilable=compiled)))


def _row(plan: Plan, name: str, call: Callable[[], object]) -> dict[str, str | float | None]:
    timed = time_call(call, plan.torch_device, plan.window_s / 10)
    return {"": name, "ms": timed.whole_ms, "event ms": event_ms(call, plan.torch_device)}
