"""Vectors to response bytes: our answers against the standard library's JSON.

`python -m benchmarks.encode [--shape base-patch16-224] [--quick]`
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from app.api.accept import AnswerForm
from app.api.embed import render_images
from app.api.schemas import EmbedOptions, Output
from app.engine.forward import OwnVectors
from app.engine.preparing import SeenImage
from app.engine.protocol import ModelInfo
from app.engine.service import EmbeddedImage
from benchmarks.material import BASE
from benchmarks.report import Report, Row, show_machine
from benchmarks.timing import time_interleaved
from model import SiglipVisionConfig


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__)
    parser.add_argument("--shape", default=BASE)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    options = parser.parse_args()
    show_machine()
    report = Report("encode")
    config = SiglipVisionConfig.from_shape(options.shape)
    outputs: tuple[Output, ...] = ("patches", "pooled")
    for output in outputs:
        _measure(report, config, output, 5 if options.quick else options.rounds)
    report.save()


def _measure(report: Report, config: SiglipVisionConfig, output: Output, rounds: int) -> None:
    image = _random_image(config)
    ways = _ways(image, _info_of(config), output)
    timings = time_interleaved(ways, rounds, clock=time.process_time)
    slowest = timings["json.dumps(tolist())"].low_s
    rows: list[Row] = [
        {
            "": name,
            "ms": timing.low_s * 1000,
            "kB": len(ways[name]()) / 1000,
            "x json.dumps": slowest / timing.low_s,
        }
        for name, timing in timings.items()
    ]
    report.add_table(f"one image, output={output}: CPU time, lower quartiles", rows)
    ours, base64 = timings["ours, JSON numbers"].low_s, timings["ours, JSON base64"].low_s
    report.find(f"encode.{output}.json", slowest / ours)
    report.find(f"encode.{output}.base64", ours / base64)


def _ways(image: EmbeddedImage, info: ModelInfo, output: Output) -> dict[str, Callable[[], bytes]]:
    """Our answers are whole ones, envelope included; json.dumps writes the vectors alone."""
    array = image.vectors.patches if output == "patches" else image.vectors.pooled
    assert array is not None  # noqa: S101 # for the type checker: just made

    def answer(options: EmbedOptions, form: AnswerForm = "json") -> bytes:
        return render_images([image], [None], options, form, info).body

    numbers = EmbedOptions(output=output, normalize=False)
    base64 = EmbedOptions(output=output, normalize=False, encoding="base64")
    return {
        "json.dumps(tolist())": lambda: json.dumps(array.tolist()).encode(),
        "ours, JSON numbers": lambda: answer(numbers),
        "ours, JSON base64": lambda: answer(base64),
        "ours, npy": lambda: answer(numbers, "npy"),
        "ours, octet-stream": lambda: answer(numbers, "octet-stream"),
    }


def _random_image(config: SiglipVisionConfig) -> EmbeddedImage:
    random = np.random.default_rng(0)
    pooled = random.standard_normal(config.hidden_size, np.float32)
    patches = random.standard_normal((config.num_patches, config.hidden_size), np.float32)
    seen = SeenImage(640, 480, "JPEG", (), input_size=(config.image_size, config.image_size))
    return EmbeddedImage(OwnVectors(pooled, patches), seen)


def _info_of(config: SiglipVisionConfig) -> ModelInfo:
    return ModelInfo(
        model="benchmark",
        revision=None,
        space="benchmark:0123456789ab",
        dim=config.hidden_size,
        image_size=config.image_size,
        patch_size=config.patch_size,
        max_patches=config.num_patches,
        device="cpu",
        dtype="float32",
        pretrained=False,
    )


if __name__ == "__main__":
    main()
