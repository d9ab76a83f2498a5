"""NaFlex models: images keep their aspect, each has its own grid of patches."""

import math
from itertools import accumulate

import numpy as np

from app.engine.protocol import Pixels, UInt8Array
from app.engine.towers.batch import Batch
from app.engine.towers.family import Family
from app.engine.towers.selftest import draw_test_image
from model import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel
from model.modeling_siglip2_fused import FusedSiglip2Transformer


def _collate(processor: Siglip2ImageProcessor, pixels: Pixels) -> Batch:
    """Put the patches of all images one after the other; the tower takes their grids beside."""
    patches, grids = processor.pack(list(pixels))
    ends = list(accumulate(rows * columns for rows, columns in grids))
    return Batch(tuple(patches.shape), lambda out: np.copyto(out, patches.numpy()), (grids,), ends)


def _draw_test_images(image_size: int, patch_size: int) -> list[UInt8Array]:
    """Draw a square image, and a wide one of fewer patches."""
    square = draw_test_image(image_size)
    rows = max(1, image_size // patch_size // 3)
    return [square, square[: rows * patch_size]]


NAFLEX = Family(
    name="NaFlex",
    config=Siglip2VisionConfig,
    model=Siglip2VisionModel,
    processor=Siglip2ImageProcessor,
    fused_tower=FusedSiglip2Transformer,
    uneven=True,
    usual_processor=lambda config: Siglip2ImageProcessor(patch_size=config.patch_size),
    usual_processor_warning="assuming the usual number of patches",
    input_size=lambda processor: f"patch_size {processor.patch_size}",
    config_identity=("num_patches",),
    processor_identity=("patch_size", "max_num_patches"),
    image_size=lambda _, processor: math.isqrt(processor.max_num_patches) * processor.patch_size,
    max_patches=lambda _, processor: processor.max_num_patches,
    collate=_collate,
    draw_test_images=_draw_test_images,
)
