"""How fast NaFlex is: ours on packed images, transformers on padded ones, and a square of 256 px.

`python -m benchmarks.naflex [--shape base-patch16-naflex] [--rounds 15] [--cpu-time] [--quick]`
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from app.engine.embedder import load_embedder
from app.observe.logs import configure_logs
from benchmarks.material import photographs
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import Timing, time_interleaved
from model import Siglip2VisionConfig
from tests.naflex_reference import NaflexCheckpoint, write_naflex_checkpoint

_SHAPE = "base-patch16-naflex"
_PAUSE_S = 0.02  # OpenMP's threads spin for a few milliseconds after their work
_DTYPES = ("bfloat16", "float32")

Call = Callable[[], object]


def main() -> None:
    """Measure and report."""
    options = _parse_options()
    configure_logs("error", "console")
    if options.cpu_time:
        torch.set_num_threads(1)
    show_machine()
    report, images = Report("naflex"), _mixed_images()
    config = transformers.Siglip2VisionConfig(
        **asdict(Siglip2VisionConfig.from_shape(options.shape))
    )
    with tempfile.TemporaryDirectory(prefix="siglip-bench-") as folder:
        checkpoint = write_naflex_checkpoint(Path(folder), config, max_num_patches=256)
        calls = {
            name: call
            for dtype in _DTYPES
            for name, call in _contenders(checkpoint, options.shape, images, dtype).items()
        }
        clock = time.process_time if options.cpu_time else time.perf_counter
        timings = time_interleaved(calls, options.rounds, _PAUSE_S, clock)
    unit = "CPU time of one thread" if options.cpu_time else "wall time"
    title = f"{options.shape}, {len(images)} images of six shapes: {unit}, lower quartile"
    report.add_table(title, [_row(name, timings, len(images)) for name in timings])
    report.save()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.naflex", description=__doc__)
    parser.add_argument("--shape", default=_SHAPE)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    options.rounds = 3 if options.quick else options.rounds
    return options


def _mixed_images() -> list[Image.Image]:
    """Photographs as they are, on end, and cut to other shapes."""
    astronaut, coffee, chelsea, rocket = photographs()
    on_end = rocket.transpose(Image.Transpose.ROTATE_90)
    cut = [
        astronaut.crop((0, 0, 300, 500)),
        coffee.crop((0, 0, 350, 400)),
        coffee.crop((0, 0, 600, 150)),
    ]
    return [astronaut, coffee, chelsea, rocket, on_end, *cut]


def _contenders(
    checkpoint: NaflexCheckpoint, shape: str, images: list[Image.Image], dtype: str
) -> Mapping[str, Call]:
    naflex = load_embedder(str(checkpoint.folder), "cpu", dtype)
    square = load_embedder(f"random:{shape.replace('naflex', '256')}", "cpu", dtype)
    resized = [naflex.resize(image) for image in images]
    squashed = np.stack([square.resize(image) for image in images])
    return {
        f"ours {dtype}": partial(naflex.embed, resized),
        f"transformers {dtype}": _reference_call(checkpoint, images, dtype),
        f"ours, 256 px squares {dtype}": partial(square.embed, squashed),
    }


def _reference_call(checkpoint: NaflexCheckpoint, images: list[Image.Image], dtype: str) -> Call:
    model = transformers.Siglip2VisionModel.from_pretrained(
        checkpoint.folder, dtype=getattr(torch, dtype)
    )
    inputs = checkpoint.processor(images, return_tensors="pt")

    @torch.inference_mode()
    def call() -> object:
        return model(**inputs).pooler_output

    return call


def _row(name: str, timings: Mapping[str, Timing], images: int) -> Row:
    reference = f"transformers {name.rpartition(' ')[2]}"
    return {
        "": name,
        "ms": timings[name].low_s * 1000,
        "images/s": images / timings[name].low_s,
        "x transformers": timings[reference].low_s / timings[name].low_s,
    }


if __name__ == "__main__":
    main()
