"""A SigLIP model of fixed resolution behind the engine, and the one way to load any model."""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from app.engine.batch_size import fit_batch_size, pick_max_batch_size
from app.engine.compiled import CompiledRunner
from app.engine.cuda import CudaRunner
from app.engine.device import (
    configure_device,
    explain_device_errors,
    pick_device,
    pick_dtype,
)
from app.engine.loading import LoadedNaflex, LoadedSiglip, load_model, space_of
from app.engine.naflex_embedder import load_naflex_embedder
from app.engine.protocol import Embedder, ModelInfo, Pixels, StartError, UInt8Array, Vectors
from app.engine.runner import Runner
from app.engine.selftest import check_against_reference, draw_test_images
from app.engine.tower import PlainRunner, pick_wanted
from model import SiglipImageProcessor, SiglipVisionModel
from model.modeling_siglip_vision_fused import FusedVisionTransformer

__all__ = ["SiglipEmbedder", "StartError", "load_embedder"]

# In a smaller model the threads' meeting after each step takes longer than the step.
_FEWEST_PARALLEL_WEIGHTS = 5_000_000


class SiglipEmbedder:
    """A loaded SigLIP vision tower; see `app.engine.protocol.Embedder`."""

    def __init__(
        self,
        loaded: LoadedSiglip,
        runner: Runner[Vectors],
        space: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._processor = loaded.processor
        self._load_reference = loaded.load_model
        self._reference: SiglipVisionModel | None = None
        self._runner = runner
        config = loaded.model.config
        self.info = ModelInfo(
            model=loaded.name,
            revision=loaded.revision,
            space=space,
            dim=config.hidden_size,
            image_size=config.image_size,
            patch_size=config.patch_size,
            max_patches=config.num_patches,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            pretrained=loaded.pretrained,
            pooled=config.vision_use_head,
        )

    def resize(self, image: Image.Image) -> UInt8Array:
        """Squash upright RGB pixels to the model's input: -> uint8 (height, width, 3)."""
        return self._processor.resize(image)

    @property
    def batches_in_flight(self) -> int:
        """How many batches to begin before waiting for the first."""
        return self._runner.batches_in_flight

    def begin(self, pixels: Pixels, patches: bool = False) -> Callable[[], Vectors]:
        """Begin a batch: uint8 (batch, height, width, 3); call the result, once, for its vectors.

        Both raise `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        with explain_device_errors():
            return explain_device_errors()(self._runner.begin(pixels, patches))

    def embed(self, pixels: Pixels, patches: bool = False) -> Vectors:
        """Compute the vectors of a batch: uint8 (batch, height, width, 3) -> `Vectors`.

        Raises `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        return self.begin(pixels, patches)()

    def embed_in_float32(self, pixels: Pixels, patches: bool = False) -> Vectors:
        """Compute the same with the reference forward in float32, on the CPU.

        Reads the weights again: this is for the rare image that overflows a smaller type.
        """
        if self.info.dtype == "float32":
            return self.embed(pixels, patches)
        if self._reference is None:
            self._reference = self._load_reference().float()
        vectors = _embed_plainly(self._reference, self._processor, np.asarray(pixels))
        return vectors if patches else vectors._replace(patches=None)


@torch.inference_mode()
def _embed_plainly(
    model: SiglipVisionModel, processor: SiglipImageProcessor, pixels: UInt8Array
) -> Vectors:
    """Compute with the plain modules, on the CPU, in the weights' own dtype."""
    outputs = model(processor.normalize(torch.from_numpy(pixels)))
    return Vectors(**{name: part.numpy() for name, part in pick_wanted(outputs, True).items()})


def load_embedder(  # noqa: PLR0913 # each of them decides the vectors or who may start
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    max_batch_size: int | None = None,
    *,
    compiled: bool = False,
    decode: str = "exact",
    revision: str | None = None,
    sha256: Sequence[str] = (),
    random_fallback: bool = False,
) -> Embedder:
    """Load a model by hub id, local folder or `random:<shape>`, warm it up and test it.

    Without a `max_batch_size` there is one that suits the device and fits into it. `decode` is how
    images become pixels, exact or fast: it decides what resizes them, and counts towards the space.
    With `random_fallback` an unreachable hub leads to random weights instead of an error. `sha256`
    is what the weight files must have, if given. Raises `StartError`.
    """
    torch_device = pick_device(device)
    torch_dtype = pick_dtype(dtype, torch_device)
    configure_device(torch_device)
    if compiled and torch_dtype == torch.int8:
        raise StartError("SIGLIP_COMPILE=on does not go with SIGLIP_DTYPE=int8")
    loaded = load_model(model, revision, sha256, random_fallback=random_fallback)
    if decode == "fast":
        loaded = loaded.resizing_with_torch()
    if sum(weight.numel() for weight in loaded.model.parameters()) < _FEWEST_PARALLEL_WEIGHTS:
        torch.set_num_threads(1)
    if isinstance(loaded, LoadedNaflex):
        if compiled:
            raise StartError(f"SIGLIP_COMPILE=on does not go with a NaFlex model, {model}")
        return load_naflex_embedder(loaded, torch_device, torch_dtype, max_batch_size, decode)
    test_images = draw_test_images(loaded.model.config.image_size)
    with ThreadPoolExecutor(1) as pool:  # hashing takes one core only
        hashing = pool.submit(space_of, loaded, torch_dtype, decode)
        expected = _reference_vectors(loaded, np.stack(test_images))
    tower = FusedVisionTransformer(
        loaded.model.vision_model,
        loaded.processor,
        torch_device,
        torch_dtype,
        packed=not compiled,
        consume=True,
    )
    runner = _pick_runner(torch_device, compiled=compiled)(tower, torch_device)
    embedder = SiglipEmbedder(loaded, runner, hashing.result(), torch_device, torch_dtype)
    # Nothing of the checkpoint's file is needed any more, and batches are about to need memory.
    del loaded
    suitable = pick_max_batch_size(torch_device, embedder.info.max_patches)
    size = fit_batch_size(runner, test_images[0], max_batch_size, suitable)
    cosine = check_against_reference(
        embedder.embed, test_images, expected, runner.test_sizes(size), embedder.info.dtype
    )
    embedder.info = replace(embedder.info, max_batch_size=size, selftest_cosine=cosine)
    return embedder


def _pick_runner(
    device: torch.device, *, compiled: bool
) -> type[CompiledRunner | CudaRunner | PlainRunner]:
    if compiled:
        return CompiledRunner
    return CudaRunner if device.type == "cuda" else PlainRunner


def _reference_vectors(loaded: LoadedSiglip, pixels: UInt8Array) -> Vectors:
    """Compute what the fast path is held against.

    This comes before the fast path takes memory, and leaves the weights as they are in the file.
    """
    model = loaded.model
    if any(weight.dtype != torch.float32 for weight in model.parameters()):
        model = copy.deepcopy(model).float()
    return _embed_plainly(model, loaded.processor, pixels)
