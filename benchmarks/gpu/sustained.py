"""Stages 3 and 7: images per second, held up for seconds, at batches of several sizes."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from app.engine.embedder import load_embedder
from app.engine.protocol import Embedder, Pending, UInt8Array
from app.engine.towers.device import configure_device
from benchmarks.gpu.clocks import event_ms, time_call
from benchmarks.gpu.material import (
    build_forward,
    draw_pixels,
    gflop_of,
    graph_sizes,
    image_side,
    record_graph,
)
from benchmarks.gpu.stage import Plan, Results
from benchmarks.report import Row

_PEAK_SECONDS = 1.0


def measure(plan: Plan, results: Results) -> None:
    """Measure ours through its runner, and the tower alone."""
    _measure_shape(plan, results, plan.shape, plan.batches)


def measure_large(plan: Plan, results: Results) -> None:
    """Measure a large model in the same way."""
    _measure_shape(plan, results, plan.large_shape, plan.large_batches)


def _measure_shape(plan: Plan, results: Results, shape: str, batches: Sequence[int]) -> None:
    configure_device(plan.torch_device)  # the peak too is that of our flags
    peak = peak_tflop_per_s(plan)
    results.find(f"{shape}.peak_tflop_per_s", peak)
    title = f"ours, {shape}, bfloat16, {plan.window_s:g} s each"
    with results.attempt(title), results.table(title) as add:
        embedder = load_embedder(f"random:{shape}", plan.device, "bfloat16", max(batches))
        for batch in batches:
            with results.attempt(f"ours, {shape}, batch {batch}"):
                add(_row(plan, embedder, shape, batch, peak))
        del embedder
    with results.table(f"the tower alone, {shape}, launches and a graph of them") as add:
        for batch in batches:
            with results.attempt(f"the tower alone, {shape}, batch {batch}"):
                add(_row_alone(plan, shape, batch))


def peak_tflop_per_s(plan: Plan) -> float:
    """Measure a large product in bfloat16: what the device gives at its best."""
    side, device = plan.peak_side, plan.torch_device
    left, right = (torch.randn(side, side).to(device, torch.bfloat16) for _ in range(2))
    best_ms = min(
        time_call(lambda: left @ right, device, _PEAK_SECONDS * plan.window_s / 15).whole_ms
        for _ in range(3)
    )
    return 2 * side**3 / best_ms / 1e9


def _row(plan: Plan, embedder: Embedder, shape: str, batch: int, peak: float) -> Row:
    pixels = draw_pixels(batch, image_side(shape))
    begin_s, wall_s, batches = _embed_for(embedder, pixels, plan.window_s)
    per_s = batch * batches / wall_s
    return {
        "batch": batch,
        "in flight": embedder.batches_in_flight,
        "graphs": graph_sizes(embedder),
        "ms of begin": 1000 * begin_s / batches,
        "ms": 1000 * wall_s / batches,
        "images/s": per_s,
        "TFLOP/s": per_s * gflop_of(shape) / 1000,
        "of peak": per_s * gflop_of(shape) / 1000 / peak,
    }


def _embed_for(embedder: Embedder, pixels: UInt8Array, seconds: float) -> tuple[float, float, int]:
    """Keep as many batches in flight as the service does: seconds of `begin`, of all; batches."""
    embedder.embed(pixels)
    waits: deque[Pending] = deque()
    begin_s, batches, start = 0.0, 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        if len(waits) == embedder.batches_in_flight:
            waits.popleft()()
        begun = time.perf_counter()
        waits.append(embedder.begin(pixels))
        begin_s += time.perf_counter() - begun
        batches += 1
    for wait in waits:
        wait()
    return begin_s, time.perf_counter() - start, batches


def _row_alone(plan: Plan, shape: str, batch: int) -> Row:
    device = plan.torch_device
    forward = build_forward(plan, shape, batch)
    timed = time_call(forward, device, plan.window_s / 5)
    row: dict[str, Any] = {
        "batch": batch,
        "host ms of launches": timed.host_ms,
        "ms": timed.whole_ms,
        "event ms": event_ms(forward, device),
    }
    if not plan.on_cuda:
        return row
    replay = record_graph(forward, device)
    timed = time_call(replay, device, plan.window_s / 5)
    return row | {
        "host ms of replay": timed.host_ms,
        "graph's ms": timed.whole_ms,
        "graph's event ms": event_ms(replay, device),
    }
