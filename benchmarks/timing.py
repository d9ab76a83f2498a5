"""Interleaved timing: contenders take turns, so that a noisy machine is unfair to all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

# Samples shorter than this are timed as several calls: the clock and the call itself would show.
_LEAST_SAMPLE_S = 0.01

Clock = Callable[[], float]
"""`time.perf_counter`; or `time.process_time` for work of one thread on a busy machine."""


def cuda_clock(device: str) -> float:
    """Tell the time when a CUDA device has done all that is queued."""
    torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one sample a round.

    Compare contenders by `low_s`, the lower quartile: what else runs on a machine can only make a
    sample longer, so the fast samples are the ones that show the code.
    """

    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Median of all rounds."""
        return statistics.median(self.seconds)

    @property
    def low_s(self) -> float:
        """Lower quartile of all rounds."""
        return quantile(self.seconds, 0.25)


def quantile(values: tuple[float, ...] | list[float], fraction: float) -> float:
    """Return a quantile, interpolated between neighbours; a single value is all its quantiles."""
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def time_interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    pause_s: float = 0.0,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Time all contenders in turn, `rounds` times, after untimed calls of each.

    The order rotates, so that nobody always runs after the same neighbour. A pause between samples
    lets the threads of the neighbour's library stop spinning.
    """
    names = list(contenders)
    calls = {name: _calls_per_sample(contenders[name], clock) for name in names}
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause_s)
            samples[name].append(_sample(contenders[name], calls[name], clock))
    return {name: Timing(tuple(samples[name])) for name in names}


def _sample(call: Callable[[], object], calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        call()
    return (clock() - start) / calls


def _calls_per_sample(call: Callable[[], object], clock: Clock) -> int:
    """Warm up, then see how often a call fits into the shortest sample worth timing."""
    call()
    return max(1, round(_LEAST_SAMPLE_S / max(_sample(call, 1, clock), 1e-9)))
