"""Models with their image processors: from the hub, from a folder, or with random weights."""

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Self, TypeVar

import structlog
import torch

from app.engine.protocol import ModelInfo, StartError
from app.engine.space import fingerprint_space, hash_weights
from model import (
    CheckpointError,
    ConfigError,
    HubUnreachableError,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from model.checkpoint import check_digests, find_checkpoint_folder, read_json
from model.image_processing_base import read_processor_config

_log = structlog.get_logger(__name__)

RANDOM_PREFIX = "random:"
_NAFLEX_SUFFIX = "-naflex"
# Each way to decode, as the space knows it: by another name once it gives other pixels.
_PIXELS_OF = MappingProxyType({"exact": "exact", "fast": "fast-2"})
_SHAPE_IN_NAME = re.compile(r"(tiny|base|large|so400m|giant-opt)-patch\d+-(\d+|naflex)")

Model = TypeVar("Model", SiglipVisionModel, Siglip2VisionModel)
Processor = TypeVar("Processor", SiglipImageProcessor, Siglip2ImageProcessor)


@dataclass(frozen=True)
class Loaded(Generic[Model, Processor]):
    """A model, and how to load it again; `revision` is its hub commit."""

    model: Model
    processor: Processor
    name: str
    revision: str | None
    pretrained: bool
    load_model: Callable[[], Model]

    def resizing_with_torch(self) -> Self:
        """Return the same with a processor that resizes faster, and slightly otherwise."""
        return replace(self, processor=replace(self.processor, backend="torch"))


class LoadedSiglip(Loaded[SiglipVisionModel, SiglipImageProcessor]):
    """A model of fixed resolution."""


class LoadedNaflex(Loaded[Siglip2VisionModel, Siglip2ImageProcessor]):
    """A NaFlex model."""


def load_model(
    model: str, revision: str | None, sha256: Sequence[str], *, random_fallback: bool
) -> LoadedSiglip | LoadedNaflex:
    """Load a model by hub id, local folder or `random:<shape>`.

    With `random_fallback` an unreachable hub leads to random weights instead of an error. `sha256`
    is what the weight files must have, if given. Raises `StartError`.
    """
    try:
        return _load(model, revision, sha256)
    except HubUnreachableError as error:
        if not random_fallback:
            raise StartError(f"{model} cannot be loaded: {error}") from error
        shape = _SHAPE_IN_NAME.search(model)
        if shape is None:
            raise StartError(f"{model} names no shape for random weights: {error}") from error
        _log.warning("hub unreachable, falling back to random weights", wanted=model)
        return load_model(RANDOM_PREFIX + shape[0], None, sha256, random_fallback=False)
    except (CheckpointError, ConfigError) as error:
        raise StartError(f"{model} cannot be loaded: {error}") from error


def space_of(loaded: LoadedSiglip | LoadedNaflex, dtype: torch.dtype, decode: str) -> str:
    """Return the space of a model's vectors, computed in `dtype` from images decoded so."""
    # It travels in a header, and is there for people only.
    name = re.sub(r"[^A-Za-z0-9._-]", "-", loaded.name.rsplit("/", 1)[-1])
    resample = loaded.processor.resample.name
    processor = asdict(loaded.processor) | {"resample": resample, "decode": _PIXELS_OF[decode]}
    del processor["backend"]  # follows from how images are decoded
    weights = hash_weights(loaded.model.vision_model.state_dict())
    architecture = asdict(loaded.model.config) | {"dtype": str(dtype)}
    del architecture["attention_dropout"]  # of training
    return fingerprint_space(name, weights, architecture, processor)


def describe_loaded(  # what the model alone does not tell
    loaded: LoadedSiglip | LoadedNaflex,
    space: str,
    device: torch.device,
    dtype: torch.dtype,
    image_size: int,
    max_patches: int,
) -> ModelInfo:
    """Say what a caller may know of a model, as far as it is known before the first batch."""
    config = loaded.model.config
    return ModelInfo(
        model=loaded.name,
        revision=loaded.revision,
        space=space,
        dim=config.hidden_size,
        image_size=image_size,
        patch_size=config.patch_size,
        max_patches=max_patches,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        pretrained=loaded.pretrained,
        pooled=config.vision_use_head,
        naflex=isinstance(loaded, LoadedNaflex),
    )


def in_float32(model: Model) -> Model:
    """Return the model, or a copy that computes in float32; its weights stay as in their file."""
    if all(weight.dtype == torch.float32 for weight in model.parameters()):
        return model
    return copy.deepcopy(model).float()


def _load(model: str, revision: str | None, sha256: Sequence[str]) -> LoadedSiglip | LoadedNaflex:
    if model.startswith(RANDOM_PREFIX):
        if sha256:
            raise StartError(f"{model} has no weight file that SIGLIP_SHA256 could be of")
        if revision:
            raise StartError(f"{model} is drawn at random; a revision is for hub models")
        shape = model.removeprefix(RANDOM_PREFIX)
        _log.warning("RANDOM WEIGHTS: these vectors carry no meaning", shape=shape)
        naflex = shape.endswith(_NAFLEX_SUFFIX)
        return _load_random_naflex(model, shape) if naflex else _load_random(model, shape)
    folder, commit = find_checkpoint_folder(model, revision)
    if sha256:
        check_digests(folder, sha256)
    name = model if commit else folder.resolve().name
    if Siglip2VisionConfig.describes(read_json(folder / "config.json")):
        return _load_naflex(folder, name, commit)
    return _load_siglip(folder, name, commit)


def _load_random(name: str, shape: str) -> LoadedSiglip:
    config = SiglipVisionConfig.from_shape(shape)
    draw = partial(SiglipVisionModel.from_random, config)
    side = config.image_size
    processor = SiglipImageProcessor(height=side, width=side)
    return LoadedSiglip(draw(), processor, name, None, False, draw)


def _load_random_naflex(name: str, shape: str) -> LoadedNaflex:
    config = Siglip2VisionConfig.from_shape(shape)
    draw = partial(Siglip2VisionModel.from_random, config)
    processor = Siglip2ImageProcessor(patch_size=config.patch_size)
    return LoadedNaflex(draw(), processor, name, None, False, draw)


def _load_siglip(folder: Path, name: str, commit: str | None) -> LoadedSiglip:
    load = partial(SiglipVisionModel.from_pretrained, folder)
    model = load()
    processor = _read_processor(folder, model.config.image_size)
    return LoadedSiglip(model, processor, name, commit, True, load)


def _load_naflex(folder: Path, name: str, commit: str | None) -> LoadedNaflex:
    load = partial(Siglip2VisionModel.from_pretrained, folder)
    model = load()
    processor = _read_naflex_processor(folder, model.config.patch_size)
    return LoadedNaflex(model, processor, name, commit, True, load)


def _read_processor(folder: Path, image_size: int) -> SiglipImageProcessor:
    if read_processor_config(folder) is None:
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


def _read_naflex_processor(folder: Path, patch_size: int) -> Siglip2ImageProcessor:
    if read_processor_config(folder) is None:
        processor = Siglip2ImageProcessor(patch_size=patch_size)
        _log.warning(
            "no preprocessor_config.json: assuming the usual number of patches",
            max_num_patches=processor.max_num_patches,
        )
        return processor
    processor = Siglip2ImageProcessor.from_folder(folder)
    if processor.patch_size != patch_size:
        raise ConfigError(
            f"preprocessor_config.json has patch_size {processor.patch_size}, "
            f"config.json has patch_size {patch_size}"
        )
    return processor
