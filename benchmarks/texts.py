"""What texts cost a service: one alone, texts beside a full load of images, start and memory.

`python -m benchmarks.texts [--quick]`

The base model with a vocabulary of 256,000, in a process of its own on loopback; the client shares
the machine with it. No text is asked for twice, so none is remembered. What the text tower does by
itself is `python -m benchmarks.text_tower`.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from app.engine.towers.dtypes import pick_dtypes
from app.observe.logs import configure_logs
from benchmarks.beside_images import report_beside_images
from benchmarks.client import Connection, run_on_loop
from benchmarks.material import BASE, encode, photograph_of_size
from benchmarks.messages import raw_request
from benchmarks.processes import Memory, Server, free_port, running_server
from benchmarks.report import Report, Row, show_machine
from benchmarks.text_material import TextCheckpoints, unseen_requests, written_text_checkpoints
from benchmarks.timing import Timing, quantile

# What texts may take beside their layers: tokenizer, libraries, activations.
_ALLOWED_EXTRA_BYTES = 100e6


@dataclass(frozen=True)
class _Plan:
    idle_rounds: int = 60
    turns: int = 6
    phase_s: float = 10.0
    starts: int = 5


@dataclass(frozen=True)
class _Start:
    """One start until readiness: how it went, and the memory by then."""

    ready_s: float
    cpu_s: float
    memory: Memory


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.texts", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    plan = _Plan(12, 1, 8.0, 2) if parser.parse_args().quick else _Plan()
    configure_logs("error", "console")
    show_machine()
    report = Report("texts")
    jpeg = raw_request("/embed", encode(photograph_of_size(640, 480), "JPEG", quality=90))
    with written_text_checkpoints(BASE) as checkpoints:
        _compare_starts(report, checkpoints, plan.starts)
        with _running(checkpoints.siglip2, "on") as server:
            idle_s = _compare_idle(report, server, jpeg, plan.idle_rounds)
            report_beside_images(report, server, jpeg, idle_s, plan.turns, plan.phase_s)
    report.save()


@contextmanager
def _running(folder: Path, text: str) -> Iterator[Server]:
    environment = {
        "SIGLIP_MODEL": str(folder),
        "SIGLIP_DEVICE": "cpu",
        "SIGLIP_TEXT": text,
        "SIGLIP_PORT": str(port := free_port()),
        "SIGLIP_QUEUE_IMAGES": "256",  # a busy machine works few off in three seconds
    }
    with tempfile.TemporaryDirectory() as logs:
        log = Path(logs) / "log"
        with running_server(["-m", "app", "serve"], environment, port, "/readyz", log) as server:
            yield server


def _compare_starts(report: Report, checkpoints: TextCheckpoints, rounds: int) -> None:
    """Start without texts, and with those of each generation, in turns."""
    kinds = {
        "SIGLIP_TEXT=off": (checkpoints.siglip2, "off"),
        "texts, SigLIP": (checkpoints.siglip, "on"),
        "texts, SigLIP 2": (checkpoints.siglip2, "on"),
    }
    starts: dict[str, list[_Start]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, (folder, text) in kinds.items():
            starts[kind].append(_time_start(folder, text))
    off, siglip2 = starts["SIGLIP_TEXT=off"], starts["texts, SigLIP 2"]
    (dtype,) = pick_dtypes("auto", torch.device("cpu"))
    allowed = checkpoints.layer_weights * dtype.itemsize + _ALLOWED_EXTRA_BYTES
    grown = _resident(siglip2) - _resident(off)
    title = f"start with {BASE}, 256,000 tokens: lower quartile of {rounds}"
    report.add_table(title, [_start_row(kind, starts) for kind in kinds])
    report.find("texts.resident", grown / allowed)
    report.find("texts.start_cpu", _low([s.cpu_s for s in siglip2]) / _low([s.cpu_s for s in off]))


def _time_start(folder: Path, text: str) -> _Start:
    begun = time.perf_counter()
    with _running(folder, text) as server:
        return _Start(time.perf_counter() - begun, server.cpu_s(), server.memory())


def _start_row(kind: str, starts: Mapping[str, list[_Start]]) -> Row:
    own, off = starts[kind], starts["SIGLIP_TEXT=off"]
    return {
        "": kind,
        "ready s": _low([start.ready_s for start in own]),
        "CPU s": _low([start.cpu_s for start in own]),
        "RSS MB": _resident(own) / 1e6,
        "of it anonymous": _low([start.memory.anonymous for start in own]) / 1e6,
        "more than without": (_resident(own) - _resident(off)) / 1e6,
    }


def _resident(starts: list[_Start]) -> float:
    return _low([start.memory.resident for start in starts])


def _low(values: list[float]) -> float:
    return Timing(tuple(values)).low_s


def _compare_idle(report: Report, server: Server, jpeg: bytes, rounds: int) -> float:
    """Ask for a text and an image in turns; return the median of the texts' latencies."""
    texts, images = run_on_loop(_ask_in_turns(server, jpeg, rounds))
    text_s, image_s = quantile(texts, 0.5), quantile(images, 0.5)
    row = {"text p50 ms": 1000 * text_s, "image p50 ms": 1000 * image_s, "ratio": text_s / image_s}
    report.add_table(f"one at a time, in turns, {rounds} of each", [row])
    report.find("texts.idle_p50_of_image", text_s / image_s)
    return text_s


async def _ask_in_turns(
    server: Server, jpeg: bytes, rounds: int
) -> tuple[list[float], list[float]]:
    connection = await Connection.open(server)
    texts: list[float] = []
    images: list[float] = []
    try:
        for text in itertools.islice(unseen_requests(seed=1), rounds):
            await asyncio.sleep(0.02)  # threads spin for a while after their work
            texts.append((await connection.ask(text)).require_ok())
            await asyncio.sleep(0.02)
            images.append((await connection.ask(jpeg)).require_ok())
    finally:
        connection.close()
    return texts, images


if __name__ == "__main__":
    main()
