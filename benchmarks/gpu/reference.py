"""Stage 11: transformers' SigLIP on the same batches, eager and compiled.

In a process of its own: ours sets flags of the whole process that would change what it measures.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gpu.clocks import time_call
from benchmarks.gpu.material import has_compiler, image_side
from benchmarks.gpu.stage import Plan, Results
from benchmarks.report import Row
from model import SiglipVisionConfig


def measure(plan: Plan, results: Results) -> None:
    """Measure it as it is on all batches, and compiled on one: that takes a minute a size."""
    if importlib.util.find_spec("transformers") is None:
        results.skip("transformers", "not installed")
        return
    _measure(plan, results, plan.batches, compiled=False)
    if has_compiler(plan):
        _measure(plan, results, [plan.batches[len(plan.batches) // 2]], compiled=True)
    else:
        results.skip("torch.compile", "it takes a CUDA device and a C compiler")


def _measure(plan: Plan, results: Results, batches: Sequence[int], *, compiled: bool) -> None:
    name = f"transformers, {'torch.compile' if compiled else 'eager'}, {plan.shape}"
    with results.attempt(name), results.table(name) as add:
        model = _build_model(plan, compiled=compiled)
        for batch in batches:
            with results.attempt(f"{name}, batch {batch}"):
                add(_row(plan, model, batch))


def _build_model(plan: Plan, *, compiled: bool) -> Any:
    import transformers

    config = SiglipVisionConfig.from_shape(plan.shape)
    model: Any = transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
        )
    )
    model = model.eval().to(plan.torch_device, torch.bfloat16)
    if compiled:
        return torch.compile(model, mode="reduce-overhead" if plan.on_cuda else None)
    return model


def _row(plan: Plan, model: Any, batch: int) -> Row:
    pixels = torch.zeros(batch, 3, image_side(plan.shape), image_side(plan.shape))
    inputs = pixels.to(plan.torch_device, torch.bfloat16)

    @torch.no_grad()
    def call() -> object:
        return model(inputs).pooler_output

    for _ in range(3):
        call()
    timed = time_call(call, plan.torch_device, plan.window_s / 2)
    return {
        "batch": batch,
        "host ms of launches": timed.host_ms,
        "ms": timed.whole_ms,
        "images/s": 1000 * batch / timed.whole_ms,
    }
