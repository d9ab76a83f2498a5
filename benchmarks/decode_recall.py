"""What `decode=fast` costs in answers, not cosines: the bundled model on photographs of its world.

`python -m benchmarks.decode_recall [--images 200]`

Scenes of examples/shapes are drawn, enlarged to what phones and screens take, given a sensor's
noise and encoded as JPEGs of quality 85 to 95. Each is embedded in both modes; questions that have
right answers are asked of an index of either, and of an index of exact vectors with fast queries.
"""

import argparse
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops

from app.engine.embedder import load_embedder
from app.engine.protocol import Embedder, Float32Array
from app.intake.decode import DecodeLimits, decode_image
from app.observe.logs import configure_logs
from benchmarks.material import encode
from benchmarks.report import Report, Row, show_machine
from examples.shapes import evaluate
from examples.shapes.checkpoint import FOLDER
from examples.shapes.drawing import draw_image
from examples.shapes.world import COLOURS, SHAPES, SIZES, Scene, Thing, draw_scene

_SIZES = {"1.9 Mpx": (1600, 1200), "12 Mpx": (4000, 3000)}
_SEED = 2_000_000  # neither training nor evaluating draws from it
_DRAWN_PX = 866
_NOISE_LEVELS = 4.0
_NEAREST = 10
_LIMITS = DecodeLimits(2**28, 10**8, 65_535, frozenset({"jpeg"}))


@dataclass(frozen=True)
class _Photographs:
    """Scenes, and their vectors in both modes, of length 1: (images, dim)."""

    scenes: list[Scene]
    exact: Float32Array
    fast: Float32Array


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_recall")
    parser.add_argument("--images", type=int, default=200)
    count = parser.parse_args().images
    configure_logs("error", "console")
    torch.set_num_threads(1)  # on small models and images, threads wait for each other
    show_machine()
    report = Report("decode_recall")
    texts = evaluate.Checkpoint(FOLDER)
    for name, size in _SIZES.items():
        photographs = _photograph(size, count)
        report.add_table(
            f"{count} JPEGs of {name}: share of right answers", _ask(texts, photographs)
        )
        cosines = (photographs.exact * photographs.fast).sum(1)
        report.find(f"decode_recall.{name}.cosine, mean", float(cosines.mean()))
        report.find(f"decode_recall.{name}.cosine, least", float(cosines.min()))
    report.save()


def _photograph(size: tuple[int, int], count: int) -> _Photographs:
    random = np.random.default_rng(_SEED)
    noise = Image.effect_noise(size, _NOISE_LEVELS).convert("RGB")
    scenes = [draw_scene(random, 1 + index % 2) for index in range(count)]
    modes = {
        mode: load_embedder(str(FOLDER), "cpu", "float32", decode=mode)
        for mode in ("exact", "fast")
    }
    vectors: dict[str, list[Float32Array]] = {mode: [] for mode in modes}
    for scene in scenes:
        data = _take(scene, size, noise, random)
        for mode, embedder in modes.items():
            vectors[mode].append(_embed(embedder, data, fast=mode == "fast"))
    return _Photographs(scenes, np.stack(vectors["exact"]), np.stack(vectors["fast"]))


def _take(
    scene: Scene, size: tuple[int, int], noise: Image.Image, random: np.random.Generator
) -> bytes:
    large = draw_image(scene, random, _DRAWN_PX).resize(size, Image.Resampling.BICUBIC)
    shifted = ImageChops.offset(noise, *random.integers(0, size).tolist())
    noisy = ImageChops.add(large, shifted, offset=-128)  # the noise is around 128
    return encode(noisy, "JPEG", quality=int(random.integers(85, 96)))


def _embed(embedder: Embedder, data: bytes, *, fast: bool) -> Float32Array:
    least_side = 3 * embedder.info.image_size // 2 if fast else None
    pixels = embedder.resize(decode_image(data, _LIMITS, least_side=least_side).pixels)
    vector: Float32Array = embedder.embed(pixels[None]).pooled[0]
    return vector / np.linalg.norm(vector)


def _ask(texts: evaluate.Encoder, photographs: _Photographs) -> list[Row]:
    modes = {"exact": photographs.exact, "fast": photographs.fast}
    all_of = {mode: _drawings(photographs.scenes, vectors) for mode, vectors in modes.items()}
    single = {
        mode: _drawings(photographs.scenes[::2], vectors[::2]) for mode, vectors in modes.items()
    }
    things = [Scene(Thing(*words)) for words in product(SIZES, COLOURS, SHAPES)]
    nearest = {mode: _nearest_others(vectors, vectors) for mode, vectors in modes.items()}
    crossed = photographs.fast @ photographs.exact.T
    return [
        {"question": "text to image, recall@1"}
        | {
            mode: evaluate.retrieve(texts, all_, images_for_text=True)
            for mode, all_ in all_of.items()
        },
        {"question": "image to text, recall@1"}
        | {
            mode: evaluate.retrieve(texts, all_, images_for_text=False)
            for mode, all_ in all_of.items()
        },
        {"question": f"which thing, of {len(things)}"}
        | {mode: evaluate.choose(texts, one, things) for mode, one in single.items()},
        {
            "question": "an image finds itself, fast asking exact",
            "fast": float((crossed.argmax(1) == np.arange(len(crossed))).mean()),
        },
        {
            "question": f"the {_NEAREST} nearest of exact, fast asking fast",
            "fast": _shared(nearest["exact"], nearest["fast"]),
        },
        {
            "question": f"the {_NEAREST} nearest of exact, fast asking exact",
            "fast": _shared(nearest["exact"], _nearest_others(photographs.fast, photographs.exact)),
        },
    ]


def _drawings(scenes: list[Scene], vectors: Float32Array) -> evaluate.Drawings:
    rows = np.array([scene.encode() for scene in scenes], np.int8)
    return evaluate.Drawings(scenes, rows, vectors)


def _nearest_others(queries: Float32Array, index: Float32Array) -> NDArray[np.int64]:
    """Return which images are nearest to each but for itself: (images, 10)."""
    cosines = queries @ index.T
    np.fill_diagonal(cosines, -2)
    nearest: NDArray[np.int64] = np.argsort(-cosines, axis=1)[:, :_NEAREST]
    return nearest


def _shared(wanted: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Return the share of those wanted that were found, in any order."""
    pairs = zip(wanted.tolist(), found.tolist(), strict=True)
    return float(np.mean([len(set(one) & set(other)) / _NEAREST for one, other in pairs]))


if __name__ == "__main__":
    main()
