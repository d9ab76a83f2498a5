"""A NaFlex model behind the engine: images keep their aspect, each has its own grid of patches."""

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from PIL import Image

from app.engine.batch_size import fit_batch_size, pick_max_batch_size
from app.engine.device import explain_device_errors
from app.engine.loading import LoadedNaflex, space_of
from app.engine.naflex_tower import CudaNaflexRunner, PlainNaflexRunner
from app.engine.protocol import ModelInfo, Pixels, StartError, UInt8Array, UnevenVectors
from app.engine.runner import Runner
from app.engine.selftest import check_against_reference, draw_test_image
from model import Siglip2ImageProcessor, Siglip2VisionModel
from model.modeling_siglip2_fused import FusedSiglip2Transformer


class NaflexEmbedder:
    """A loaded NaFlex tower; see `app.engine.protocol.Embedder`."""

    def __init__(
        self,
        loaded: LoadedNaflex,
        runner: Runner[UnevenVectors],
        space: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._processor = loaded.processor
        self._load_reference: Callable[[], Siglip2VisionModel] = loaded.load_model
        self._reference: Siglip2VisionModel | None = None
        self._runner = runner
        self.info = ModelInfo(
            model=loaded.name,
            revision=loaded.revision,
            space=space,
            dim=loaded.model.config.hidden_size,
            image_size=_square_side(loaded.processor),
            patch_size=loaded.processor.patch_size,
            max_patches=loaded.processor.max_num_patches,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            pretrained=loaded.pretrained,
            pooled=loaded.model.config.vision_use_head,
        )

    def resize(self, image: Image.Image) -> UInt8Array:
        """Resize upright RGB pixels to whole patches, about as wide to high: -> uint8 (h, w, 3)."""
        return self._processor.resize(image)

    @property
    def batches_in_flight(self) -> int:
        """How many batches to begin before waiting for the first."""
        return self._runner.batches_in_flight

    def begin(self, pixels: Pixels, patches: bool = False) -> Callable[[], UnevenVectors]:
        """Begin a batch: uint8 (height, width, 3) each, of any size; the result waits for it, once.

        Both raise `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        with explain_device_errors():
            return explain_device_errors()(self._runner.begin(pixels, patches))

    def embed(self, pixels: Pixels, patches: bool = False) -> UnevenVectors:
        """Compute the vectors of a batch: uint8 (height, width, 3) each, of any size.

        Raises `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        return self.begin(pixels, patches)()

    def embed_in_float32(self, pixels: Pixels, patches: bool = False) -> UnevenVectors:
        """Compute the same with the reference forward in float32, on the CPU.

        Reads the weights again: this is for the rare image that overflows a smaller type.
        """
        if self.info.dtype == "float32":
            return self.embed(pixels, patches)
        if self._reference is None:
            self._reference = self._load_reference().float()
        vectors = _embed_plainly(self._reference, self._processor, list(pixels))
        return vectors if patches else vectors._replace(patches=None)


def load_naflex_embedder(
    loaded: LoadedNaflex,
    device: torch.device,
    dtype: torch.dtype,
    max_batch_size: int | None,
    decode: str,
) -> NaflexEmbedder:
    """Make a loaded NaFlex model ready: packed for inference, warmed up, tested.

    Raises `StartError`.
    """
    if dtype == torch.int8:
        raise StartError(f"SIGLIP_DTYPE=int8 does not go with a NaFlex model, {loaded.name}")
    test_images = _draw_test_images(loaded.processor)
    with ThreadPoolExecutor(1) as pool:  # hashing takes one core only
        space = pool.submit(space_of, loaded, dtype, decode)
        expected = _reference_vectors(loaded, test_images)
    tower = FusedSiglip2Transformer(
        loaded.model.vision_model, loaded.processor, device, dtype, consume=True
    )
    pick_runner = CudaNaflexRunner if device.type == "cuda" else PlainNaflexRunner
    runner = pick_runner(tower, loaded.processor.pack, device)
    embedder = NaflexEmbedder(loaded, runner, space.result(), device, dtype)
    suitable = pick_max_batch_size(device, embedder.info.max_patches)
    size = fit_batch_size(runner, test_images[0], max_batch_size, suitable)
    cosine = check_against_reference(
        embedder.embed, test_images, expected, runner.test_sizes(size), embedder.info.dtype
    )
    embedder.info = replace(embedder.info, max_batch_size=size, selftest_cosine=cosine)
    return embedder


def _draw_test_images(processor: Siglip2ImageProcessor) -> list[UInt8Array]:
    """Draw a square image, and a wide one of fewer patches."""
    square = draw_test_image(_square_side(processor))
    rows = max(1, len(square) // processor.patch_size // 3)
    return [square, square[: rows * processor.patch_size]]


def _square_side(processor: Siglip2ImageProcessor) -> int:
    return math.isqrt(processor.max_num_patches) * processor.patch_size


def _reference_vectors(loaded: LoadedNaflex, pixels: Sequence[UInt8Array]) -> UnevenVectors:
    """Compute what the fast path is held against; leave the weights as they are in the file."""
    model = loaded.model
    if any(weight.dtype != torch.float32 for weight in model.parameters()):
        model = copy.deepcopy(model).float()
    return _embed_plainly(model, loaded.processor, pixels)


@torch.inference_mode()
def _embed_plainly(
    model: Siglip2VisionModel, processor: Siglip2ImageProcessor, pixels: Sequence[UInt8Array]
) -> UnevenVectors:
    """Compute with the plain modules on a padded batch, on the CPU, in the weights' own dtype."""
    inputs = processor.collate(pixels)
    outputs = model(*inputs)
    lengths = inputs.spatial_shapes.prod(1).tolist()
    patches = [
        rows[:length].numpy()
        for rows, length in zip(outputs.last_hidden_state, lengths, strict=True)
    ]
    pooled = outputs.pooler_output
    return UnevenVectors(None if pooled is None else pooled.numpy(), patches)
