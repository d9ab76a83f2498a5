"""All stages in their order, and how one is run in a process that may be told to end."""

import signal
import sys
import traceback

import torch

from app.observe.logs import configure_logs
from benchmarks.gpu import (
    gpu_tests,
    kernels,
    large,
    lock,
    machine,
    memory,
    parity,
    profiled,
    reference,
    service,
    sustained,
)
from benchmarks.gpu.stage import Plan, Results, Stage

STAGES = (
    Stage("machine", 30, machine.measure),
    Stage("tests", 300, gpu_tests.measure, needs_cuda=True),
    Stage("sustained", 120, sustained.measure),
    Stage("profile", 60, profiled.measure),
    Stage("lock", 60, lock.measure),
    Stage("kernels", 100, kernels.measure),
    Stage("large", 180, large.measure),
    Stage("service", 240, service.measure),
    Stage("memory", 150, memory.measure, needs_cuda=True),
    Stage("parity", 240, parity.measure),
    Stage("reference", 150, reference.measure),
)


def run_stage(name: str, plan: Plan) -> None:
    """Run one stage, and exit with status 1 if it breaks."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that its servers end with it
    configure_logs("warning", "console")  # "NO CUDA GRAPHS" is one
    if plan.torch_device.index is not None:
        torch.cuda.set_device(plan.torch_device)
    if not plan.on_cuda:
        torch.set_num_threads(1)  # on a busy machine threads that wait for each other take for ever
    stage = next(stage for stage in STAGES if stage.name == name)
    results = Results(name, plan.out)
    try:
        stage.run(plan, results)
    except Exception as error:
        results.skip(name, f"{type(error).__name__}: {error}")
        traceback.print_exc()
        raise SystemExit(1) from error
