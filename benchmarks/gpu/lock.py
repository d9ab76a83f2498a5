"""Stage 5: what the interpreter's lock costs: launches and a graph, beside a busy thread."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import product

from benchmarks.busy_thread import busy_thread
from benchmarks.gpu.clocks import time_call
from benchmarks.gpu.material import build_forward, record_graph
from benchmarks.gpu.stage import Plan, Results
from benchmarks.report import Row

_SWITCH_INTERVALS_S = (0.005, 0.0005, 0.00005)
_SHARES = (0.0, 0.82, 1.0)


def measure(plan: Plan, results: Results) -> None:
    """Time a single image, whose launches take the host longer than the device."""
    forward = build_forward(plan, plan.shape, 1)
    calls: dict[str, Callable[[], object]] = {"launches": forward}
    if plan.on_cuda:
        with results.attempt("graph"):
            calls["graph"] = record_graph(forward, plan.torch_device)
    else:
        results.skip("graph", "it takes a CUDA device")
    with results.table(f"{plan.shape}, batch 1, beside a thread busy in Python") as add:
        for (name, call), interval_s, share in product(calls.items(), _SWITCH_INTERVALS_S, _SHARES):
            add(_row(plan, name, call, interval_s, share))


def _row(plan: Plan, name: str, call: Callable[[], object], interval_s: float, share: float) -> Row:
    with switch_interval(interval_s), busy_thread(share) if share else nullcontext():
        timed = time_call(call, plan.torch_device, plan.window_s / 5)
    return {
        "": name,
        "switch interval ms": 1000 * interval_s,
        "thread busy": share,
        "host ms": timed.host_ms,
        "ms": timed.whole_ms,
    }


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Let the interpreter's lock change hands after so long, within the block."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
