"""Models as their checkpoints have them: from the hub, from a folder, or with random weights."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import structlog

from app.engine.protocol import StartError
from app.engine.towers.family import AnyFamily
from app.engine.towers.fixed_family import FIXED
from app.engine.towers.naflex_family import NAFLEX
from model import CheckpointError, ConfigError, HubUnreachableError
from model.checkpoint_folder import check_digests, find_checkpoint_folder, read_json
from model.image_processing_base import BaseImageProcessor, read_processor_config
from model.pretrained import PreTrainedVisionModel

_log = structlog.get_logger(__name__)

RANDOM_PREFIX = "random:"
_NAFLEX_SUFFIX = "-naflex"
_SHAPE_IN_NAME = re.compile(r"(tiny|base|large|so400m|giant-opt)-patch\d+-(\d+|naflex)")


@dataclass(frozen=True)
class LoadedModel:
    """A model, its processor, and how to load it again; `revision` is its hub commit."""

    family: AnyFamily
    model: PreTrainedVisionModel[Any]
    processor: BaseImageProcessor
    source: str
    name: str
    revision: str | None
    pretrained: bool
    load_again: Callable[[], PreTrainedVisionModel[Any]]

    def resizing_with_torch(self) -> Self:
        """Return the same with a processor that resizes faster, and slightly otherwise."""
        return replace(self, processor=replace(self.processor, backend="torch"))


def load_plain_model(
    model: str, revision: str | None, sha256: Sequence[str], fallback: str | None = None
) -> LoadedModel:
    """Load a model by hub id, local folder or `random:<shape>`.

    `fallback` is such a name too, loaded where only the network keeps the model away; a mere
    `random` is random weights of the model's shape. `sha256` is what the weight files must have, if
    given. Raises `StartError`.
    """
    try:
        if model.startswith(RANDOM_PREFIX):
            return _draw_model(model, revision, sha256)
        return _load_checkpoint(model, revision, sha256)
    except HubUnreachableError as error:
        if fallback is None:
            raise StartError(f"{model} cannot be loaded: {error}") from error
        if fallback == "random":
            fallback = _random_of_shape(model, error)
        _log.warning("HUB UNREACHABLE: this is another model", wanted=model, served=fallback)
        try:
            return load_plain_model(fallback, None, sha256)
        except StartError as instead:
            raise StartError(f"{model}: {error}; and in its place {instead}") from error
    except (CheckpointError, ConfigError) as error:
        raise StartError(f"{model} cannot be loaded: {error}") from error


def _random_of_shape(model: str, error: HubUnreachableError) -> str:
    shape = _SHAPE_IN_NAME.search(model)
    if shape is None:
        raise StartError(f"{model} names no shape for random weights: {error}") from error
    return RANDOM_PREFIX + shape[0]


def _draw_model(name: str, revision: str | None, sha256: Sequence[str]) -> LoadedModel:
    if sha256:
        raise StartError(f"{name} has no weight file that SIGLIP_SHA256 could be of")
    if revision:
        raise StartError(f"{name} is drawn at random; a revision is for hub models")
    shape = name.removeprefix(RANDOM_PREFIX)
    _log.warning("RANDOM WEIGHTS: these vectors carry no meaning", shape=shape)
    family: AnyFamily = NAFLEX if shape.endswith(_NAFLEX_SUFFIX) else FIXED
    config = family.config.from_shape(shape)
    draw = partial(family.model.from_random, config)
    processor = family.usual_processor(config)
    return LoadedModel(family, draw(), processor, name, name, None, False, draw)


def _load_checkpoint(model: str, revision: str | None, sha256: Sequence[str]) -> LoadedModel:
    folder, commit = find_checkpoint_folder(model, revision)
    if sha256:
        check_digests(folder, sha256)
    is_naflex = NAFLEX.config.describes(read_json(folder / "config.json"))
    family: AnyFamily = NAFLEX if is_naflex else FIXED
    load = partial(family.model.from_pretrained, folder)
    loaded = load()
    processor = _read_processor(family, folder, loaded.config)
    name = model if commit else folder.resolve().name
    return LoadedModel(family, loaded, processor, model, name, commit, True, load)


def _read_processor(family: AnyFamily, folder: Path, config: Any) -> BaseImageProcessor:
    usual: BaseImageProcessor = family.usual_processor(config)
    if read_processor_config(folder) is None:
        _log.warning(f"no preprocessor_config.json: {family.usual_processor_warning}")
        return usual
    processor: BaseImageProcessor = family.processor.from_folder(folder)
    given, wanted = family.input_size(processor), family.input_size(usual)
    if given != wanted:
        raise ConfigError(f"preprocessor_config.json has {given}, config.json has {wanted}")
    return processor
