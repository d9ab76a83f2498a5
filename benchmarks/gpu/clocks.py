"""How long a call takes: of the host until it returns, and of the device until it is done."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

_LEAST_CALLS = 3
_MOST_CALLS = 200


class CallTime(NamedTuple):
    """Milliseconds of one call: until it returned, and with all that it had queued."""

    host_ms: float
    whole_ms: float


def time_call(call: Callable[[], object], device: torch.device, seconds: float) -> CallTime:
    """Call again and again for some seconds, the device never waiting for a look at the clock.

    The host is timed beforehand, over few calls to an idle device: a queue that is full of launches
    would have it wait.
    """
    call()
    host_s = 0.0
    for _ in range(_LEAST_CALLS):
        synchronize(device)
        begun = time.perf_counter()
        call()
        host_s += time.perf_counter() - begun
    synchronize(device)
    start, calls = time.perf_counter(), 0
    while calls < _LEAST_CALLS or (calls < _MOST_CALLS and time.perf_counter() - start < seconds):
        call()
        calls += 1
    synchronize(device)
    whole_s = time.perf_counter() - start
    return CallTime(1000 * host_s / _LEAST_CALLS, 1000 * whole_s / calls)


def event_ms(call: Callable[[], object], device: torch.device, calls: int = 20) -> float | None:
    """Return the milliseconds between two events on the stream, for each call between them."""
    if device.type != "cuda":
        return None
    call()
    begin, end = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call] # of torch
        for _ in range(2)
    )
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / calls


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
