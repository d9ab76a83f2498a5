"""What the benchmarks run on: checkpoints with seeded weights, and photographs."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
import transformers
from PIL import Image, ImageOps

from app.engine.protocol import Float32Array, UInt8Array
from model import SiglipVisionConfig
from tests.reference import ReferenceCheckpoint, write_checkpoint

TINY = "tiny-patch16-224"  # hidden 64, 2 layers: what is left is the service itself
BASE = "base-patch16-224"

transformers.utils.logging.disable_progress_bar()  # of writing a file that is there at once
transformers.utils.logging.set_verbosity_error()

# Public domain or CC0, shipped with scikit-image.
_PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


@contextmanager
def written_checkpoint(shape: str, layers: int | None = None) -> Iterator[ReferenceCheckpoint]:
    """Write the checkpoint of a named shape, as published ones are spelled, for as long as asked.

    With `layers` it has so many instead of its own. The weights are drawn by seed, not trained: the
    work is the same, what vectors mean is not.
    """
    config = transformers.SiglipVisionConfig(**asdict(SiglipVisionConfig.from_shape(shape)))
    config.num_hidden_layers = layers or config.num_hidden_layers
    with tempfile.TemporaryDirectory(prefix="siglip-bench-") as folder:
        yield write_checkpoint(Path(folder) / shape, config)


@cache
def photographs() -> tuple[Image.Image, ...]:
    """Return four RGB photographs of different size and shape."""
    return tuple(Image.fromarray(getattr(skimage.data, name)()) for name in _PHOTOGRAPHS)


def photograph_of_size(width: int, height: int, tile_px: int = 640) -> Image.Image:
    """Fill a frame with photographs and their mirror images, each about `tile_px` wide.

    One photograph blown up to 12 Mpx would be smooth and so easy to decode; tiles keep detail.
    """
    frame = Image.new("RGB", (width, height))
    tile_height = tile_px * 3 // 4
    places = [(x, y) for y in range(0, height, tile_height) for x in range(0, width, tile_px)]
    for index, place in enumerate(places):
        tile = photographs()[index % len(photographs())].resize((tile_px, tile_height))
        frame.paste(ImageOps.mirror(tile) if index // len(photographs()) % 2 else tile, place)
    return frame


def encode(image: Image.Image, image_format: str, **options: int) -> bytes:
    """Encode an image with Pillow."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def photograph_pixels(batch: int, side: int) -> UInt8Array:
    """Return photographs at the model's input size: uint8 (batch, side, side, 3), all different."""
    turned = [image.rotate(90 * turn) for turn in range(4) for image in photographs()]
    squares = [np.asarray(image.resize((side, side))) for image in turned]
    return np.stack([squares[i % len(squares)] for i in range(batch)])


def least_cosine(vectors: Float32Array, reference: Float32Array) -> float:
    """Return the smallest cosine between rows of the same index."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    return float(np.min(np.sum(vectors * reference, axis=1) / lengths))
