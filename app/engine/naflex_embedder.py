"""A NaFlex model behind the engine: images keep their aspect, each has its own grid of patches."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from app.engine.loading import LoadedNaflex, describe_loaded, in_float32, space_of
from app.engine.naflex_tower import CudaNaflexRunner, PlainNaflexRunner
from app.engine.protocol import Pixels, StartError, UInt8Array, UnevenVectors
from app.engine.runner import Runner
from app.engine.selftest import draw_test_image
from app.engine.tower_embedder import TowerEmbedder
from model import Siglip2ImageProcessor, Siglip2VisionModel
from model.modeling_siglip2_fused import FusedSiglip2Transformer


def build_naflex_embedder(
    loaded: LoadedNaflex, device: torch.device, dtype: torch.dtype, decode: str
) -> Callable[[int | None], TowerEmbedder[UnevenVectors]]:
    """Rearrange a loaded NaFlex model for inference, which takes its layers.

    What is returned makes it ready for batches of a size, once `loaded` has been let go of. Raises
    `StartError`.
    """
    if dtype == torch.int8:
        raise StartError(f"SIGLIP_DTYPE=int8 does not go with a NaFlex model, {loaded.name}")
    processor = loaded.processor
    test_images = _draw_test_images(processor)
    with ThreadPoolExecutor(1) as pool:  # hashing takes one core only
        hashing = pool.submit(space_of, loaded, dtype, decode)
        expected = _embed_plainly(in_float32(loaded.model), processor, test_images)
    tower = FusedSiglip2Transformer(
        loaded.model.vision_model, processor, device, dtype, consume=True
    )
    side, patches = _square_side(processor), processor.max_num_patches
    embedder = TowerEmbedder(
        describe_loaded(loaded, hashing.result(), device, dtype, side, patches),
        processor,
        _pick_runner(tower, processor, device),
        partial(_load_reference, loaded.load_model, processor),
    )
    return partial(embedder.make_ready, test_images, expected, device)


def _pick_runner(
    tower: FusedSiglip2Transformer, processor: Siglip2ImageProcessor, device: torch.device
) -> Runner[UnevenVectors]:
    if device.type == "cuda":
        return CudaNaflexRunner(tower, processor.pack, device)
    return PlainNaflexRunner(tower, processor.pack, device, processor.max_num_patches)


def _draw_test_images(processor: Siglip2ImageProcessor) -> list[UInt8Array]:
    """Draw a square image, and a wide one of fewer patches."""
    square = draw_test_image(_square_side(processor))
    rows = max(1, len(square) // processor.patch_size // 3)
    return [square, square[: rows * processor.patch_size]]


def _square_side(processor: Siglip2ImageProcessor) -> int:
    return math.isqrt(processor.max_num_patches) * processor.patch_size


def _load_reference(
    load: Callable[[], Siglip2VisionModel], processor: Siglip2ImageProcessor
) -> Callable[[Pixels], UnevenVectors]:
    return partial(_embed_plainly, load().float(), processor)


@torch.inference_mode()
def _embed_plainly(
    model: Siglip2VisionModel, processor: Siglip2ImageProcessor, pixels: Pixels
) -> UnevenVectors:
    """Compute with the plain modules on a padded batch, on the CPU, in the weights' own dtype."""
    inputs = processor.collate(list(pixels))
    outputs = model(inputs)
    lengths = inputs.spatial_shapes.prod(1).tolist()
    patches = [
        rows[:length].numpy()
        for rows, length in zip(outputs.last_hidden_state, lengths, strict=True)
    ]
    pooled = outputs.pooler_output
    return UnevenVectors(None if pooled is None else pooled.numpy(), patches)
