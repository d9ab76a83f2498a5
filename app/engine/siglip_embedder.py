"""A model of fixed resolution behind the engine: images are squashed to its square input."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from app.engine.compiled import CompiledRunner
from app.engine.cuda import CudaRunner
from app.engine.loading import LoadedSiglip, describe_loaded, in_float32, space_of
from app.engine.protocol import Pixels, Vectors
from app.engine.runner import Runner
from app.engine.selftest import draw_test_images
from app.engine.tower import PlainRunner, pick_wanted
from app.engine.tower_embedder import TowerEmbedder
from model import SiglipImageProcessor, SiglipVisionModel
from model.modeling_siglip_vision_fused import FusedVisionTransformer


def build_siglip_embedder(
    loaded: LoadedSiglip, device: torch.device, dtype: torch.dtype, decode: str, *, compiled: bool
) -> Callable[[int | None], TowerEmbedder[Vectors]]:
    """Rearrange a loaded model for inference, which takes its layers.

    What is returned makes it ready for batches of a size, once `loaded` has been let go of.
    """
    config, processor = loaded.model.config, loaded.processor
    test_images = draw_test_images(config.image_size)
    with ThreadPoolExecutor(1) as pool:  # hashing takes one core only
        hashing = pool.submit(space_of, loaded, dtype, decode)
        # Before the fast path takes memory.
        expected = _embed_plainly(in_float32(loaded.model), processor, test_images)
    tower = FusedVisionTransformer(
        loaded.model.vision_model, processor, device, dtype, packed=not compiled, consume=True
    )
    embedder = TowerEmbedder(
        describe_loaded(
            loaded, hashing.result(), device, dtype, config.image_size, config.num_patches
        ),
        processor,
        _pick_runner(tower, device, config.num_patches, compiled=compiled),
        partial(_load_reference, loaded.load_model, processor),
    )
    return partial(embedder.make_ready, test_images, expected, device)


def _pick_runner(
    tower: FusedVisionTransformer, device: torch.device, patches: int, *, compiled: bool
) -> Runner[Vectors]:
    if compiled:
        return CompiledRunner(tower, device)
    if device.type == "cuda":
        return CudaRunner(tower, device)
    return PlainRunner(tower, device, patches)


def _load_reference(
    load: Callable[[], SiglipVisionModel], processor: SiglipImageProcessor
) -> Callable[[Pixels], Vectors]:
    return partial(_embed_plainly, load().float(), processor)


@torch.inference_mode()
def _embed_plainly(
    model: SiglipVisionModel, processor: SiglipImageProcessor, pixels: Pixels
) -> Vectors:
    """Compute with the plain modules, on the CPU, in the weights' own dtype."""
    outputs = model(processor.normalize(torch.from_numpy(np.asarray(pixels))))
    return Vectors(**{name: part.numpy() for name, part in pick_wanted(outputs, True).items()})
