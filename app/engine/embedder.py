"""The SigLIP model behind the engine, loaded and tested. The only file that imports model/."""

import copy
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import structlog
import torch
from PIL import Image

from app.engine.compiled import CompiledRunner
from app.engine.device import pick_device, pick_dtype
from app.engine.protocol import (
    DeviceLostError,
    DeviceOutOfMemoryError,
    ModelInfo,
    Pixels,
    StartError,
    UInt8Array,
    Vectors,
)
from app.engine.selftest import check_against_reference, draw_test_image
from app.engine.space import fingerprint_space, hash_weights
from app.engine.tower import PlainRunner, TowerRunner
from model import (
    CheckpointError,
    ConfigError,
    HubUnreachableError,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from model.checkpoint import find_checkpoint_folder
from model.modeling_siglip_vision_fused import FusedVisionTransformer

__all__ = ["SiglipEmbedder", "StartError", "load_embedder"]

_log = structlog.get_logger(__name__)

RANDOM_PREFIX = "random:"
_SHAPE_IN_NAME = re.compile(r"(tiny|base|large|so400m|giant-opt)-patch\d+-\d+")
# In a smaller model the threads' meeting after each step takes longer than the step.
_FEWEST_PARALLEL_WEIGHTS = 5_000_000


@dataclass(frozen=True)
class _Loaded:
    model: SiglipVisionModel
    processor: SiglipImageProcessor
    name: str
    revision: str | None
    pretrained: bool
    load_model: Callable[[], SiglipVisionModel]


class SiglipEmbedder:
    """A loaded SigLIP vision tower; see `app.engine.protocol.Embedder`."""

    def __init__(
        self,
        loaded: _Loaded,
        runner: TowerRunner,
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
        )

    def resize(self, image: Image.Image) -> UInt8Array:
        """Squash upright RGB pixels to the model's input: -> uint8 (height, width, 3)."""
        return self._processor.resize(image)

    def embed(self, pixels: Pixels, patches: bool = False) -> Vectors:
        """Compute the vectors of a batch: uint8 (batch, height, width, 3) -> `Vectors`.

        Raises `DeviceOutOfMemoryError` and `DeviceLostError`.
        """
        batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        try:
            return self._runner.run(batch, patches)
        except torch.AcceleratorError as error:
            raise DeviceLostError(str(error)) from error
        except (MemoryError, RuntimeError) as error:
            if _is_out_of_memory(error):
                raise DeviceOutOfMemoryError from error
            raise

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


def _is_out_of_memory(error: Exception) -> bool:
    """Tell it also on the CPU, where torch raises a plain RuntimeError."""
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "can't allocate memory" in str(error)


@torch.inference_mode()
def _embed_plainly(
    model: SiglipVisionModel, processor: SiglipImageProcessor, pixels: UInt8Array
) -> Vectors:
    """Compute with the plain modules, on the CPU, in the weights' own dtype."""
    outputs = model(processor.normalize(torch.from_numpy(pixels)))
    return Vectors(outputs.pooler_output.numpy(), outputs.last_hidden_state.numpy())


def load_embedder(  # noqa: PLR0913 # each of them decides the vectors or who may start
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    max_batch_size: int = 8,
    *,
    compiled: bool = False,
    decode: str = "exact",
    revision: str | None = None,
    random_fallback: bool = False,
) -> SiglipEmbedder:
    """Load a model by hub id, local folder or `random:<shape>`, warm it up and test it.

    `decode` is how the caller decodes images, exact or fast: it counts towards the space. With
    `random_fallback` an unreachable hub leads to random weights instead of an error. Raises
    `StartError`.
    """
    torch_device = pick_device(device)
    torch_dtype = pick_dtype(dtype, torch_device)
    if compiled and torch_dtype == torch.int8:
        raise StartError("SIGLIP_COMPILE=on does not go with SIGLIP_DTYPE=int8")
    loaded = _load(model, revision, random_fallback)
    if loaded.model.vision_model.head is None:
        raise StartError(f"{model} has no pooling head (vision_use_head is false)")
    if sum(weight.numel() for weight in loaded.model.parameters()) < _FEWEST_PARALLEL_WEIGHTS:
        torch.set_num_threads(1)
    test_pixels = np.stack([draw_test_image(loaded.model.config.image_size)])
    expected = _reference_vectors(loaded, test_pixels)
    tower, space = _pack(loaded, torch_device, torch_dtype, decode, packed=not compiled)
    runner = (CompiledRunner if compiled else PlainRunner)(tower, torch_device, max_batch_size)
    embedder = SiglipEmbedder(loaded, runner, space, torch_device, torch_dtype)
    # No page of the checkpoint's file is needed any more, and batches are about to need memory.
    del loaded
    runner.warm_up(embedder.info.image_size)
    check_against_reference(
        embedder.embed(test_pixels, patches=True), expected, embedder.info.dtype
    )
    return embedder


def _reference_vectors(loaded: _Loaded, pixels: UInt8Array) -> Vectors:
    """Compute what the fast path is held against.

    This comes before the fast path takes memory, and leaves the weights as they are in the file.
    """
    model = loaded.model
    if any(weight.dtype != torch.float32 for weight in model.parameters()):
        model = copy.deepcopy(model).float()
    return _embed_plainly(model, loaded.processor, pixels)


def _pack(
    loaded: _Loaded, device: torch.device, dtype: torch.dtype, decode: str, *, packed: bool
) -> tuple[FusedVisionTransformer, str]:
    """Arrange the weights for inference, and name their space: hashing takes one core, too."""
    with ThreadPoolExecutor(1) as pool:
        space = pool.submit(_space, loaded, dtype, decode)
        tower = FusedVisionTransformer(
            loaded.model.vision_model, loaded.processor, device, dtype, packed=packed
        )
    return tower, space.result()


def _load(model: str, revision: str | None, random_fallback: bool) -> _Loaded:
    try:
        if model.startswith(RANDOM_PREFIX):
            return _load_random(model.removeprefix(RANDOM_PREFIX))
        return _load_pretrained(model, revision)
    except HubUnreachableError as error:
        if not random_fallback:
            raise StartError(f"{model} cannot be loaded: {error}") from error
        shape = _SHAPE_IN_NAME.search(model)
        if shape is None:
            raise StartError(f"{model} names no shape for random weights: {error}") from error
        _log.warning("hub unreachable, falling back to random weights", wanted=model)
        return _load(RANDOM_PREFIX + shape[0], None, random_fallback=False)
    except (CheckpointError, ConfigError) as error:
        raise StartError(f"{model} cannot be loaded: {error}") from error


def _load_random(shape: str) -> _Loaded:
    config = SiglipVisionConfig.from_shape(shape)
    _log.warning("RANDOM WEIGHTS: these vectors carry no meaning", shape=shape)
    side = config.image_size
    load_model = partial(SiglipVisionModel.from_random, config)
    return _Loaded(
        model=load_model(),
        processor=SiglipImageProcessor(height=side, width=side),
        name=RANDOM_PREFIX + shape,
        revision=None,
        pretrained=False,
        load_model=load_model,
    )


def _load_pretrained(model: str, revision: str | None) -> _Loaded:
    folder, commit = find_checkpoint_folder(model, revision)
    load_model = partial(SiglipVisionModel.from_pretrained, folder)
    siglip = load_model()
    processor = _read_processor(folder, siglip.config.image_size)
    name = model if commit else folder.resolve().name
    return _Loaded(siglip, processor, name, commit, pretrained=True, load_model=load_model)


def _read_processor(folder: Path, image_size: int) -> SiglipImageProcessor:
    if not any(
        (folder / f"{kind}_config.json").is_file() for kind in ("preprocessor", "processor")
    ):
        _log.warning(
            "no preprocessor_config.json: assuming SigLIP's bicubic resize; SigLIP 2 needs bilinear"
        )
        return SiglipImageProcessor(height=image_size, width=image_size)
    processor = SiglipImageProcessor.from_folder(folder)
    if (processor.height, processor.width) != (image_size, image_size):
        raise ConfigError(
            f"preprocessor_config.json resizes to {processor.height}x{processor.width} pixels, "
            f"config.json has image_size {image_size}"
        )
    return processor


def _space(loaded: _Loaded, dtype: torch.dtype, decode: str) -> str:
    name = loaded.name.rsplit("/", 1)[-1].replace(":", "-")
    resample = loaded.processor.resample.name
    processor = asdict(loaded.processor) | {"resample": resample, "decode": decode}
    weights = hash_weights(loaded.model.vision_model.state_dict())
    architecture = asdict(loaded.model.config) | {"dtype": str(dtype)}
    return fingerprint_space(name, weights, architecture, processor)
