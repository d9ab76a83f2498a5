"""Stage 4: what a forward spends the device's time on, at a batch of 1 and at a large one."""

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.clocks import synchronize
from benchmarks.gpu.material import Forward, build_forward
from benchmarks.gpu.stage import Plan, Results
from benchmarks.report import Row

_CALLS = 10
_KERNELS = 15


def measure(plan: Plan, results: Results) -> None:
    """Profile the tower alone, launch by launch."""
    for batch in sorted({plan.batches[0], plan.batches[len(plan.batches) // 2]}):
        title = f"{plan.shape}, batch {batch}: what takes longest"
        with results.attempt(title), results.table(title) as add:
            for row in _rows(plan, build_forward(plan, plan.shape, batch)):
                add(row)


def _rows(plan: Plan, forward: Forward) -> list[Row]:
    forward()
    synchronize(plan.torch_device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if plan.on_cuda else [])
    with profile(activities=activities) as profiler:
        for _ in range(_CALLS):
            forward()
        synchronize(plan.torch_device)
    kernels = [event for event in profiler.key_averages() if _is_of_device(event, plan)]
    own_us = {event.key: _self_us(event, plan) for event in kernels}
    whole_us = sum(own_us.values()) or 1.0
    longest = sorted(kernels, key=lambda event: -own_us[event.key])[:_KERNELS]
    return [
        {
            "": event.key[:90],
            "calls": event.count // _CALLS,
            "ms": own_us[event.key] / _CALLS / 1000,
            "share": own_us[event.key] / whole_us,
        }
        for event in longest
    ]


def _is_of_device(event: torch.autograd.profiler_util.FunctionEventAvg, plan: Plan) -> bool:
    """Tell kernels; what the host does for them has the device's time a second time."""
    on_device = event.device_type.name == "CUDA"
    return bool(on_device) if plan.on_cuda else True


def _self_us(event: torch.autograd.profiler_util.FunctionEventAvg, plan: Plan) -> float:
    return float(event.self_device_time_total if plan.on_cuda else event.self_cpu_time_total)
