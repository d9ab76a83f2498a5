"""Stage 10: vectors in every dtype against float32 on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.engine.embedder import load_embedder, load_text_embedder
from app.engine.protocol import Embedder, NoTexts, UInt8Array, Vectors
from app.engine.towers.selftest import least_cosine
from benchmarks.gpu.material import draw_pixels
from benchmarks.gpu.stage import Plan, Results

_DTYPES = ("float32", "bfloat16", "float16")
_IMAGES = 5  # of no bucket's size
# Trained, with a text side, and in the repository: random weights have all images alike.
_TRAINED = Path(__file__).parents[2] / "examples" / "shapes"
_TEXTS = ("a red circle", "two blue squares", "a green triangle on a white ground", "", "x " * 80)


def measure(plan: Plan, results: Results) -> None:
    """Compare images of fixed and of their own resolution, then texts."""
    shapes = (plan.shape, plan.naflex_shape, plan.large_shape)
    with results.table("images: least cosine to float32 on the CPU") as add:
        for name in dict.fromkeys([str(_TRAINED), *(f"random:{shape}" for shape in shapes)]):
            with results.attempt(Path(name).name):
                expected = _embed(load_embedder(name, "cpu", "float32", _IMAGES))
                for dtype in _DTYPES:
                    with results.attempt(f"{Path(name).name}, {dtype}"):
                        vectors = _embed(load_embedder(name, plan.device, dtype, _IMAGES))
                        cosines = _cosines(vectors, expected)
                        add({"": Path(name).name, "dtype": dtype, **cosines})
    with results.table("texts: least cosine to float32 on the CPU") as add:
        for dtype in _DTYPES:
            with results.attempt(f"texts, {dtype}"):
                add({"dtype": dtype, "texts": _cosine_of_texts(plan, dtype)})


def _embed(embedder: Embedder) -> Vectors:
    return embedder.embed(_images(embedder), patches=True)


def _images(embedder: Embedder) -> Sequence[UInt8Array]:
    pixels = list(draw_pixels(_IMAGES, embedder.info.image_size))
    if embedder.info.naflex:  # grids of their own
        patch = embedder.info.patch_size
        pixels = [own[: patch * (1 + place)] for place, own in enumerate(pixels)]
    return pixels


def _cosines(vectors: Vectors, expected: Vectors) -> dict[str, float]:
    assert vectors.patches is not None  # noqa: S101 # for the type checker: they were asked for
    assert expected.patches is not None  # noqa: S101
    pairs = zip(vectors.patches, expected.patches, strict=True)
    return {
        "pooled": _least_cosine(vectors.pooled, expected.pooled),
        "patches": min(_least_cosine(ours, theirs) for ours, theirs in pairs),
    }


def _cosine_of_texts(plan: Plan, dtype: str) -> float:
    return _least_cosine(_embed_texts(plan.device, dtype), _embed_texts("cpu", "float32"))


def _embed_texts(device: str, dtype: str) -> Any:
    images = load_embedder(str(_TRAINED), device, dtype, 1).info
    texts = load_text_embedder(images, device, dtype)
    if isinstance(texts, NoTexts):
        raise TypeError(texts.reason)
    return texts.begin([one.input_ids for one in texts.tokenize(_TEXTS)])().pooled


def _least_cosine(ours: Any, theirs: Any) -> float:
    """Compute it in float64, which shows what float32 differs by."""
    return least_cosine(np.asarray(ours, np.float64), np.asarray(theirs, np.float64))
