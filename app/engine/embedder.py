"""The SigLIP model behind the engine: device, dtype, warm-up. The only file that imports model/."""

import hashlib
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

from app.engine.protocol import (
    DeviceLostError,
    DeviceOutOfMemoryError,
    Float32Array,
    ModelInfo,
    Pixels,
    UInt8Array,
    Vectors,
)
from app.engine.space import fingerprint_space
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

_log = structlog.get_logger(__name__)

RANDOM_PREFIX = "random:"
_SHAPE_IN_NAME = re.compile(r"(tiny|base|large|so400m|giant-opt)-patch\d+-\d+")
_LEAST_SELF_TEST_COSINE = 0.999
# In a smaller model the threads' meeting after each step takes longer than the step.
_FEWEST_PARALLEL_WEIGHTS = 5_000_000
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class StartError(Exception):
    """The model cannot be served; the message is one line for whoever started the service."""


@dataclass(frozen=True)
class _Loaded:
    model: SiglipVisionModel
    processor: SiglipImageProcessor
    name: str
    revision: str | None
    pretrained: bool
    load_model: Callable[[], SiglipVisionModel]


class SiglipEmbedder:
    """A loaded, warmed-up SigLIP vision tower; see `app.engine.protocol.Embedder`."""

    def __init__(
        self, loaded: _Loaded, device: torch.device, dtype: torch.dtype, decode: str
    ) -> None:
        self._processor = loaded.processor
        self._device = device
        self._load_reference = loaded.load_model
        self._reference: SiglipVisionModel | None = None
        self._threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._shares = ThreadPoolExecutor(
            self._threads, "forward", partial(torch.set_num_threads, 1)
        )
        with ThreadPoolExecutor(1) as pool:  # hashing and packing each take one core
            space = pool.submit(_space, loaded, dtype, decode)
            self._tower = FusedVisionTransformer(
                loaded.model.vision_model, loaded.processor, device, dtype
            )
        config = loaded.model.config
        self.info = ModelInfo(
            model=loaded.name,
            revision=loaded.revision,
            space=space.result(),
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
        try:
            return self._embed(pixels, patches)
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
        with torch.inference_mode():
            outputs = self._reference(self._processor.normalize(torch.from_numpy(np.asarray(pixels))))
        return Vectors(
            outputs.pooler_output.numpy(), outputs.last_hidden_state.numpy() if patches else None
        )

    def _embed(self, pixels: UInt8Array, patches: bool) -> Vectors:
        batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        share, rest = divmod(len(batch), self._threads)
        if self._threads == 1 or rest:
            return self._forward(patches, batch)
        # Threads that each take whole images never wait for one another: docs/performance.md.
        shares = self._shares.map(partial(self._forward, patches), torch.split(batch, share))
        pooled, patched = zip(*shares, strict=True)
        return Vectors(np.concatenate(pooled), np.concatenate(patched) if patches else None)

    @torch.inference_mode()
    def _forward(self, patches: bool, pixels: torch.Tensor) -> Vectors:
        outputs = self._tower(self._upload(pixels))
        return Vectors(
            pooled=outputs.pooler_output.float().cpu().numpy(),
            patches=outputs.last_hidden_state.float().cpu().numpy() if patches else None,
        )

    def _upload(self, pixels: torch.Tensor) -> torch.Tensor:
        """Move uint8 pixels to the device; a pinned copy lets the transfer run beside the host."""
        if self._device.type == "cuda":
            pixels = pixels.pin_memory()
        return pixels.to(self._device, non_blocking=True)


def _is_out_of_memory(error: Exception) -> bool:
    """Tell it also on the CPU, where torch raises a plain RuntimeError."""
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "can't allocate memory" in str(error)


def load_embedder(  # noqa: PLR0913 # each of them decides the vectors or who may start
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    max_batch_size: int = 8,
    *,
    decode: str = "exact",
    revision: str | None = None,
    random_fallback: bool = False,
) -> SiglipEmbedder:
    """Load a model by hub id, local folder or `random:<shape>`, and warm it up.

    `decode` is how the caller decodes images, exact or fast: it counts towards the space. With
    `random_fallback` an unreachable hub leads to random weights instead of an error. Raises
    `StartError`.
    """
    torch_device = _pick_device(device)
    torch_dtype = _pick_dtype(dtype, torch_device)
    loaded = _load(model, revision, random_fallback)
    if loaded.model.vision_model.head is None:
        raise StartError(f"{model} has no pooling head (vision_use_head is false)")
    if sum(weight.numel() for weight in loaded.model.parameters()) < _FEWEST_PARALLEL_WEIGHTS:
        torch.set_num_threads(1)
    embedder = SiglipEmbedder(loaded, torch_device, torch_dtype, decode)
    _warm_up(embedder, max_batch_size)
    _check_against_reference(embedder, loaded)
    return embedder


def _warm_up(embedder: SiglipEmbedder, max_batch_size: int) -> None:
    """Run the largest batch once where first use is slow: on anything but the CPU."""
    if embedder.info.device != "cpu":
        embedder.embed(np.stack([_test_image(embedder.info.image_size)] * max_batch_size), True)


def _check_against_reference(embedder: SiglipEmbedder, loaded: _Loaded) -> None:
    """Compare the fast path with a plain float32 forward of the same weights.

    Raises `StartError` when any vector's cosine is below 0.999: better no service than wrong
    vectors.
    """
    pixels = np.stack([_test_image(embedder.info.image_size)])
    fast = embedder.embed(pixels, patches=True)
    reference = loaded.model.float()
    with torch.inference_mode():
        outputs = reference(loaded.processor.normalize(torch.from_numpy(pixels)))
    assert fast.patches is not None  # noqa: S101 # for the type checker: they were asked for
    cosine = min(
        _least_cosine(fast.pooled, outputs.pooler_output),
        _least_cosine(fast.patches, outputs.last_hidden_state),
    )
    _log.info("self-test", cosine=cosine)
    if not cosine >= _LEAST_SELF_TEST_COSINE:
        raise StartError(f"self-test failed: cosine {cosine:.5f} to the float32 reference")


def _least_cosine(vectors: Float32Array, reference: torch.Tensor) -> float:
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(vectors), reference, dim=-1)
    return float(cosines.min())


def _test_image(side: int) -> UInt8Array:
    """Draw a fixed image with edges, gradients and noise: -> uint8 (side, side, 3)."""
    y, x = np.mgrid[0:side, 0:side] / side
    noise = np.random.default_rng(0).random((side, side, 3))
    shapes = np.stack([x, y, np.hypot(x - 0.5, y - 0.5) < 0.3], axis=-1)
    return np.asarray(255 * (0.8 * shapes + 0.2 * noise), np.uint8)


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


def _pick_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StartError(f"SIGLIP_DEVICE={name} cannot be used on this machine") from error
    return device


def _pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve `auto`: bfloat16 where the device computes it natively, else float32."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def _space(loaded: _Loaded, dtype: torch.dtype, decode: str) -> str:
    name = loaded.name.rsplit("/", 1)[-1].replace(":", "-")
    resample = loaded.processor.resample.name
    processor = asdict(loaded.processor) | {"resample": resample, "decode": decode}
    architecture = asdict(loaded.model.config) | {"dtype": str(dtype)}
    return fingerprint_space(name, _weights_sha256(loaded.model), architecture, processor)


def _weights_sha256(model: SiglipVisionModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.vision_model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
