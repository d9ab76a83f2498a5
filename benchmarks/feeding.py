"""What a batch costs beside its computing: pixels put together, outcomes, and callers told.

`python -m benchmarks.feeding [--batch 64] [--rounds 60] [--quick]`

Nothing is computed: the vectors are there at once. So all that is left is what the inference thread
and the event loop do for a batch, in CPU time of each thread; and how long the whole takes beside a
thread that is busy in Python, as the event loop and those that wait for decoders are under load.
"""

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from app.engine.batcher import Batcher
from app.engine.job import Job
from app.engine.protocol import Float32Array, Pending, UInt8Array, Vectors
from app.engine.towers.batch import run_batch, write_rows
from app.engine.towers.fixed_family import collate_images
from app.observe.logs import configure_logs
from benchmarks.busy_thread import busy_thread
from benchmarks.client import run_on_loop
from benchmarks.material import photograph_pixels
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import quantile, time_interleaved
from model.modeling_siglip_vision_transformer import BaseModelOutputWithPooling

_SIDE, _PATCHES, _DIM = 224, 196, 768  # as base-patch16-224 has them


class InstantEmbedder:
    """Puts pixels together as a tower's runner does, and has the vectors already."""

    batches_in_flight = 1

    def __init__(self, batch: int) -> None:
        rng = np.random.default_rng(0)
        self._inputs = np.empty((batch, _SIDE, _SIDE, 3), np.uint8)
        self._pooled: Float32Array = rng.standard_normal((batch, _DIM), np.float32)
        self._patches: Float32Array = rng.standard_normal((batch, _PATCHES, _DIM), np.float32)

    def enter_thread(self) -> None:
        """Do nothing: there is no device."""

    def begin(self, inputs: Any, /, patches_of: int = 0) -> Pending:
        """Put the pixels together."""
        collate_images(inputs).write(self._inputs[: len(inputs)])
        count = len(inputs)
        return lambda: Vectors(
            self._pooled[:count], self._patches[:patches_of] if patches_of else None
        )

    def embed_in_float32(self, inputs: Any, /, patches_of: int = 0) -> Vectors:
        """Do the same."""
        return self.begin(inputs, patches_of)()


@dataclass(frozen=True)
class _Seen:
    """Seconds that one batch took: of the inference thread, of the event loop, of the clock."""

    inference_s: float
    loop_s: float
    wall_s: float


def main() -> None:
    """Measure and report."""
    options = _parse_options()
    configure_logs("error", "console")
    show_machine()
    report = Report("feeding")
    title = f"a batch of {options.batch}, nothing computed: lower quartile of {options.rounds}"
    report.add_table(title, list(_rows(options.batch, options.rounds)))
    title = f"putting {options.batch} images together beside a busy thread, {options.rounds} times"
    report.add_table(title, _rows_of_writing(options.batch, options.rounds))
    title = f"vectors of {options.batch} images in bfloat16 to the host, {options.rounds} rounds"
    report.add_table(title, _rows_of_downloads(options.batch, options.rounds))
    report.save()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feeding", description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    options.rounds = 3 if options.quick else options.rounds
    return options


def _rows(batch: int, rounds: int) -> Iterator[Row]:
    pixels = list(photograph_pixels(batch, _SIDE))
    cases: dict[str, Callable[[], list[Job]]] = {
        "one request": lambda: [Job(pixels)],
        "a request each": lambda: [Job([own]) for own in pixels],
        "a request each, patches of one in eight": lambda: _every(8, pixels),
        "a request each, patches of all": lambda: _every(1, pixels),
    }
    batcher = Batcher(InstantEmbedder(batch), max_batch_size=batch, max_wait_s=10)
    for name, jobs in cases.items():
        alone = run_on_loop(_run(batcher, jobs, rounds))
        with busy_thread():
            beside = run_on_loop(_run(batcher, jobs, max(3, rounds // 10)))
        yield {
            "": name,
            "inference thread ms": _low_ms([seen.inference_s for seen in alone]),
            "event loop ms": _low_ms([seen.loop_s for seen in alone]),
            "wall ms": _low_ms([seen.wall_s for seen in alone]),
            "wall ms beside a busy thread": _low_ms([seen.wall_s for seen in beside]),
        }
    batcher.stop(1)


def _rows_of_writing(batch: int, rounds: int) -> list[Row]:
    """Compare with NumPy's own way, which gives up the interpreter's lock for each image.

    Some rounds wait for it each time, some never, as the two threads happen to lie on the cores: so
    here are the mean and the longest.
    """
    pixels = list(photograph_pixels(batch, _SIDE))
    out = np.empty((batch, _SIDE, _SIDE, 3), np.uint8)
    ways = {
        "np.stack": lambda: np.stack(pixels, out=out),
        "write_rows": lambda: write_rows(pixels, out),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, write in ways.items():
            with busy_thread():
                seconds[name].append(_seconds(write))
    return [
        {"": name, "mean ms": 1000 * statistics.mean(own), "longest ms": 1000 * max(own)}
        for name, own in seconds.items()
    ]


def _rows_of_downloads(batch: int, rounds: int) -> list[Row]:
    """Put pixels together and bring vectors down, with patches of all images, of some, of none."""
    pixels = list(photograph_pixels(batch, _SIDE))
    outputs = BaseModelOutputWithPooling(
        torch.randn(batch, _PATCHES, _DIM).bfloat16(), torch.randn(batch, _DIM).bfloat16()
    )
    device = torch.device("cpu")
    calls = {
        str(patches_of): partial(
            run_batch, lambda _: outputs, device, collate_images(pixels), patches_of
        )
        for patches_of in (batch, batch // 8, 0)
    }
    timings = time_interleaved(calls, rounds, clock=time.process_time)
    return [{"patches of": name, "CPU ms": 1000 * timing.low_s} for name, timing in timings.items()]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _every(nth: int, pixels: Sequence[UInt8Array]) -> list[Job]:
    return [Job([own], patches=place % nth == 0) for place, own in enumerate(pixels)]


async def _run(batcher: Batcher, make_jobs: Callable[[], list[Job]], rounds: int) -> list[_Seen]:
    inference = partial(time.clock_gettime, time.pthread_getcpuclockid(_inference_thread()))
    seen = []
    for _ in range(rounds):
        jobs = make_jobs()
        inference_s, loop_s, start = inference(), time.thread_time(), time.perf_counter()
        await asyncio.gather(*map(batcher.compute, jobs))
        wall_s = time.perf_counter() - start
        seen.append(_Seen(inference() - inference_s, time.thread_time() - loop_s, wall_s))
    return seen


def _inference_thread() -> int:
    idents = [own.ident for own in threading.enumerate() if own.name == "inference" and own.ident]
    return idents[-1]


def _low_ms(seconds: list[float]) -> float:
    return 1000 * quantile(seconds, 0.25)


if __name__ == "__main__":
    main()
