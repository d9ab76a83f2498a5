"""How fast the model is: ours, transformers, OpenVINO, and the linear layers alone.

`python -m benchmarks.model [--shape base-patch16-224] [--batch 1 8] [--device cpu] [--compile]
[--quick]`

On a machine that others use too, `--cpu-time` compares CPU seconds of one thread: sharing a core
costs time, but hardly any CPU time. It says nothing of how well work spreads over cores.

With `--device cuda` every time ends when the device is done. OpenVINO, which does not run there, is
left out, and the findings, in model_cuda.json, are held against no budget.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from app.allocator import use_huge_pages
from app.engine.embedder import load_embedder
from app.observe.logs import configure_logs
from benchmarks.batch_cost import cost_rows
from benchmarks.contenders import (
    REFERENCE,
    Contender,
    compiled_contenders,
    has_openvino,
    openvino_contenders,
    other_attention,
    our_contenders,
    transformers_contenders,
)
from benchmarks.flop import roofline_contenders, roofline_gflop_per_s
from benchmarks.material import BASE, least_cosine, photograph_pixels, written_checkpoint
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import Clock, Timing, cuda_clock, time_interleaved
from model import SiglipVisionConfig
from model.published import forward_flop
from tests.reference import ReferenceCheckpoint

_PAUSE_S = 0.02  # OpenMP's threads spin for a few milliseconds after their work


@dataclass(frozen=True)
class _Run:
    """All timings of one batch size, of contenders and linear layers."""

    config: SiglipVisionConfig
    batch: int
    timings: Mapping[str, Timing]
    cosines: Mapping[str, float]

    def roofline(self, dtype: str) -> float:
        return roofline_gflop_per_s(self.timings, self.config, self.batch, dtype)

    def gflop_per_s(self, name: str) -> float:
        return self.batch * forward_flop(self.config) / self.timings[name].low_s / 1e9

    def speed_over(self, name: str, other: str) -> float | None:
        if name not in self.timings or other not in self.timings:
            return None
        return self.timings[other].low_s / self.timings[name].low_s


def main() -> None:
    """Measure and report."""
    options = _parse_options()
    configure_logs("error", "console")
    use_huge_pages()  # as the service does: for all contenders that run on torch
    if options.cpu_time:
        torch.set_num_threads(1)
    show_machine()
    report = Report("model" if options.device == "cpu" else "model_cuda")
    with written_checkpoint(options.shape) as checkpoint:
        contenders = _contenders(checkpoint, options)
        config = SiglipVisionConfig.from_shape(options.shape)
        for batch in options.batch:
            run = _measure(contenders, config, batch, options)
            unit = "CPU time of one thread" if options.cpu_time else "wall time"
            where = f"{options.shape}, {options.device}, batch {batch}"
            title = f"{where}: {unit}, lower quartile of {options.rounds}"
            report.add_table(title, _rows(contenders, run))
            _note_findings(report, run)
        if options.device == "cpu" and not has_openvino():
            report.miss("model.openvino", "the package openvino is not installed")
        del contenders  # their memory is better spent on large batches
        embedder = load_embedder(str(checkpoint.folder), options.device)
        rounds = max(3, options.rounds // 3)
        rows = cost_rows(embedder, options.largest_batch, rounds, _clock(options))
        report.add_table("cost of a batch, ours", rows)
    report.save()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    parser.add_argument("--shape", default=BASE, help="named shape, say so400m-patch14-224")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--device", default="cpu", help="cpu, or a CUDA device: cuda, cuda:1")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--largest-batch", type=int, default=64, help="end of the cost table")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes more")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    if options.device.partition(":")[0] not in ("cpu", "cuda"):
        parser.error("--device is cpu, cuda or cuda:N")
    if options.cpu_time and options.device != "cpu":
        parser.error("--cpu-time tells nothing of another device than the CPU")
    if options.quick:
        options.rounds, options.largest_batch = 3, 8
    return options


def _contenders(checkpoint: ReferenceCheckpoint, options: argparse.Namespace) -> list[Contender]:
    device = options.device
    contenders = [
        *our_contenders(checkpoint, device),
        *transformers_contenders(checkpoint, device),
    ]
    if options.compile:
        contenders += compiled_contenders(checkpoint, device, max(options.batch))
    if device == "cpu":
        contenders.append(other_attention(checkpoint))
        if has_openvino():
            contenders += openvino_contenders(checkpoint)
    return contenders


def _measure(
    contenders: Sequence[Contender],
    config: SiglipVisionConfig,
    batch: int,
    options: argparse.Namespace,
) -> _Run:
    pixels = photograph_pixels(batch, config.image_size)
    calls = {contender.name: contender.prepare(pixels) for contender in contenders}
    vectors = {name: call() for name, call in calls.items()}
    cosines = {name: least_cosine(vectors[name], vectors[REFERENCE]) for name in calls}
    linears = roofline_contenders(config, batch, options.device)
    both: dict[str, Callable[[], object]] = {**calls, **linears}
    timings = time_interleaved(both, options.rounds, _PAUSE_S, _clock(options))
    return _Run(config, batch, timings, cosines)


def _clock(options: argparse.Namespace) -> Clock:
    if options.device != "cpu":
        return partial(cuda_clock, options.device)
    return time.process_time if options.cpu_time else time.perf_counter


def _rows(contenders: Sequence[Contender], run: _Run) -> list[Row]:
    rows: list[Row] = []
    for contender in contenders:
        name, dtype = contender.name, contender.dtype
        timing = run.timings[name]
        rows.append(
            {
                "": name,
                "ms": timing.low_s * 1000,
                "median ms": timing.median_s * 1000,
                "images/s": run.batch / timing.low_s,
                "GFLOP/s": run.gflop_per_s(name),
                "of roofline": run.gflop_per_s(name) / run.roofline(dtype),
                "x transformers": run.speed_over(name, f"transformers {dtype}"),
                "x its float32": run.speed_over(name, REFERENCE),
                "x OpenVINO": run.speed_over(name, f"OpenVINO {dtype}"),
                "least cosine": run.cosines[name],
            }
        )
    if not has_openvino():
        rows.append({"": "OpenVINO: not measured (not installed)"})
    rows += [
        {"": f"linear layers alone, {dtype}", "GFLOP/s": run.roofline(dtype), "of roofline": 1.0}
        for dtype in ("bfloat16", "float32")
    ]
    return rows


def _note_findings(report: Report, run: _Run) -> None:
    where = f"model.batch{run.batch}"
    for dtype in ("bfloat16", "float32"):
        ours = f"ours {dtype}"
        report.find(f"{where}.{dtype}.of_roofline", run.gflop_per_s(ours) / run.roofline(dtype))
        for what, peer in (
            ("over_transformers", f"transformers {dtype}"),
            ("over_transformers_float32", REFERENCE),
            ("over_openvino", f"OpenVINO {dtype}"),
        ):
            ratio = run.speed_over(ours, peer)
            if ratio is not None:
                report.find(f"{where}.{dtype}.{what}", ratio)


if __name__ == "__main__":
    main()
