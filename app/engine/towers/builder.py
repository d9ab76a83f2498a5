"""How a model becomes an embedder: load, reference, fuse, warm up, test."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
import torch

from app.engine.protocol import (
    DeviceOutOfMemoryError,
    Embedder,
    ModelInfo,
    StartError,
    UInt8Array,
    Vectors,
)
from app.engine.towers.batch import Collate, FusedTower
from app.engine.towers.batch_size import fit_batch_size, pick_max_batch_size
from app.engine.towers.compiled import pick_compiled_runner
from app.engine.towers.device import configure_device, limit_threads, pick_device
from app.engine.towers.dtypes import load_soundly, pick_dtypes
from app.engine.towers.fingerprint import space_of
from app.engine.towers.loading import LoadedModel, load_plain_model
from app.engine.towers.reference import embed_plainly, in_float32, load_float32_tower
from app.engine.towers.runners import pick_runner
from app.engine.towers.selftest import check_against_reference
from app.engine.towers.tower_embedder import Embed, ImageTowerEmbedder
from model.image_processing_base import BaseImageProcessor

_log = structlog.get_logger(__name__)


def load_embedder(  # noqa: PLR0913 # each of them decides the vectors or who may start
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    max_batch_size: int | None = None,
    *,
    compiled: bool = False,
    graphs: bool = True,
    decode: str = "exact",
    revision: str | None = None,
    sha256: Sequence[str] = (),
    fallback: str | None = None,
) -> Embedder:
    """Load a model by hub id, local folder or `random:<shape>`, warm it up and test it.

    Without a `max_batch_size` there is one that suits the device and fits into it. `decode` is how
    images become pixels, exact or fast: it decides what resizes them, and counts towards the space.
    `graphs` is whether to record CUDA graphs where that can be done.
    `fallback` is loaded instead where only the network keeps the model away, see
    `load_plain_model`. `sha256` is what the weight files must have, if given. Raises `StartError`.
    """
    torch_device = pick_device(device)
    dtypes = pick_dtypes(dtype, torch_device)
    configure_device(torch_device)
    if compiled and torch.int8 in dtypes:
        raise StartError("SIGLIP_COMPILE=on does not go with SIGLIP_DTYPE=int8")

    def load() -> LoadedModel:
        loaded = load_plain_model(model, revision, sha256, fallback)
        return loaded.resizing_with_torch() if decode == "fast" else loaded

    build = partial(_build, load, torch_device, max_batch_size, compiled=compiled, graphs=graphs)
    return load_soundly(dtypes, build)


def _build(
    load: Callable[[], LoadedModel],
    device: torch.device,
    max_batch_size: int | None,
    dtype: torch.dtype,
    *,
    compiled: bool,
    graphs: bool,
) -> Embedder:
    loaded = load()
    _refuse_unsupported(loaded, dtype, compiled=compiled)
    limit_threads(sum(weight.numel() for weight in loaded.model.parameters()))

    test_images = _draw_test_images(loaded)
    # Before the fast path takes memory.
    space, expected = _fingerprint_and_embed(loaded, dtype, test_images)
    tower = _fuse(loaded, device, dtype, compiled=compiled)
    info = _describe(loaded, space, device, dtype, tower.attention)
    collate: Collate = partial(loaded.family.collate, loaded.processor)
    if compiled:
        runner = pick_compiled_runner(tower, collate, device)
    else:
        runner = pick_runner(tower, collate, device, info.max_patches, graphs=graphs)
    processor = loaded.processor
    load_reference = partial(_load_reference, loaded.load_again, processor)
    if device.type == "cuda":
        load_reference = partial(
            load_float32_tower, loaded.load_again, loaded.family, processor, device
        )
    # Nothing of the checkpoint's file is needed any more, and batches are about to need memory.
    del loaded
    suitable = pick_max_batch_size(device, info.max_patches)
    size = fit_batch_size(runner, test_images[0], max_batch_size, suitable)
    embedder = ImageTowerEmbedder(
        replace(info, max_batch_size=size), processor, runner, load_reference
    )
    cosine = check_against_reference(
        embedder.embed, test_images, expected, runner.test_sizes(size), info.dtype
    )
    embedder.info = replace(embedder.info, selftest_cosine=cosine)
    if device.type == "cuda" and dtype == torch.float16:
        _load_reference_ahead(embedder, test_images)
    return embedder


def _refuse_unsupported(loaded: LoadedModel, dtype: torch.dtype, *, compiled: bool) -> None:
    for setting, is_on in (("COMPILE=on", compiled), ("DTYPE=int8", dtype == torch.int8)):
        if is_on and loaded.family.uneven:
            raise StartError(
                f"SIGLIP_{setting} does not go with a {loaded.family.name} model, {loaded.name}"
            )


def _draw_test_images(loaded: LoadedModel) -> list[UInt8Array]:
    family, config = loaded.family, loaded.model.config
    image_size = family.image_size(config, loaded.processor)
    return family.draw_test_images(image_size, config.patch_size)


def _describe(
    loaded: LoadedModel, space: str, device: torch.device, dtype: torch.dtype, attention: str
) -> ModelInfo:
    """Say what a caller may know of a model, as far as it is known before the first batch."""
    family, config, processor = loaded.family, loaded.model.config, loaded.processor
    return ModelInfo(
        model=loaded.name,
        revision=loaded.revision,
        space=space,
        dim=config.hidden_size,
        image_size=family.image_size(config, processor),
        patch_size=config.patch_size,
        max_patches=family.max_patches(config, processor),
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        pretrained=loaded.pretrained,
        pooled=config.vision_use_head,
        naflex=family.uneven,
        source=loaded.source,
        attention=attention,
    )


def _fingerprint_and_embed(
    loaded: LoadedModel, dtype: torch.dtype, images: Sequence[UInt8Array]
) -> tuple[str, Vectors]:
    """Return the space, and the vectors that the plain model has for images."""
    with ThreadPoolExecutor(1) as pool:  # hashing takes one core only
        space = pool.submit(space_of, loaded, dtype)
        vectors = embed_plainly(in_float32(loaded.model), loaded.processor, images)
    return space.result(), vectors


def _fuse(
    loaded: LoadedModel, device: torch.device, dtype: torch.dtype, *, compiled: bool
) -> FusedTower:
    """Rearrange a model for inference, which takes its layers."""
    fuse = loaded.family.fused_tower
    if compiled:
        fuse = partial(fuse, compilable=True)
    return fuse(loaded.model.vision_model, loaded.processor, device, dtype, consume=True)


def _load_reference(load_again: Callable[[], Any], processor: BaseImageProcessor) -> Embed:
    return partial(embed_plainly, load_again().float(), processor)


def _load_reference_ahead(embedder: ImageTowerEmbedder, images: Sequence[UInt8Array]) -> None:
    """Load what computes overflows once more: float16 has some, and nobody is to wait for it."""
    try:
        embedder.embed_in_float32(images)
    except DeviceOutOfMemoryError:
        embedder.give_up_reference()
        _log.warning("no room for the weights in float32: vectors that overflow float16 will fail")
