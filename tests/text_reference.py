"""Reference checkpoints with text towers: transformers models with seeded lively weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load, save_file
from transformers import (
    Siglip2Config,
    Siglip2Model,
    Siglip2TextConfig,
    Siglip2TextModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipTextModel,
)
from transformers.initialization import no_init_weights

from tests.naflex_reference import tiny_naflex_config
from tests.reference import draw_lively_weights, tiny_vision_config

Generation = Literal["siglip", "siglip2"]
"""`siglip2` is NaFlex; SigLIP 2 of fixed resolution is written as `siglip`."""

_TEXT_CLASSES: dict[Generation, tuple[Any, Any]] = {
    "siglip": (SiglipTextConfig, SiglipTextModel),
    "siglip2": (Siglip2TextConfig, Siglip2TextModel),
}
_FULL_CLASSES: dict[Generation, tuple[Any, Any, Any]] = {
    "siglip": (SiglipConfig, SiglipModel, tiny_vision_config),
    "siglip2": (Siglip2Config, Siglip2Model, tiny_naflex_config),
}


@dataclass(frozen=True)
class FullCheckpoint:
    """A checkpoint folder, and the transformers model of two towers whose weights it holds."""

    folder: Path
    model: Any


@dataclass(frozen=True)
class TextCheckpoint:
    """A checkpoint folder, and the transformers text model whose weights it holds."""

    folder: Path
    model: Any


def tiny_text_config(**changes: Any) -> dict[str, Any]:
    """Describe a text tower of 2 layers that runs in a millisecond: 16 positions, 4 heads of 6."""
    tiny = {
        "vocab_size": 99,
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
        "projection_size": 32,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    return tiny | changes


def draw_input_ids(config: Any, texts: int = 3, tokens: int | None = None) -> torch.Tensor:
    """Draw ids of texts of several lengths, padded: int64 (texts, tokens)."""
    length = tokens or config.max_position_embeddings
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, config.vocab_size, (texts, length), generator=generator)
    lengths = torch.linspace(2, length, texts).long()
    return ids.masked_fill(torch.arange(length) >= lengths[:, None], 1)


def build_text_model(generation: Generation, **config: Any) -> Any:
    """Build the reference text model with lively weights, ready for inference."""
    config_class, model_class = _TEXT_CLASSES[generation]
    return _build(model_class, config_class(**config))


def write_text_checkpoint(
    folder: Path,
    generation: Generation = "siglip",
    *,
    keys: Literal["prefixed", "flat"] = "flat",
    max_shard_size: str = "50GB",
    written: torch.dtype = torch.float32,
    **config: Any,
) -> TextCheckpoint:
    """Write a text tower alone, by default the tiny one, under either spelling of its keys."""
    model = build_text_model(generation, **tiny_text_config(**config)).to(written)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    if keys == "prefixed":
        _prefix_keys(folder)
    return TextCheckpoint(folder, model)


def write_full_checkpoint(
    folder: Path,
    generation: Generation = "siglip",
    *,
    max_shard_size: str = "50GB",
    sparse_config: bool = False,
    vision: dict[str, Any] | None = None,
    **text: Any,
) -> FullCheckpoint:
    """Write two lively towers, by default the tiny ones, as published checkpoints are."""
    config_class, model_class, vision_config = _FULL_CLASSES[generation]
    text_config = tiny_text_config(**text)
    config = config_class(
        text_config=text_config, vision_config=vision_config(**vision or {}).to_dict()
    )
    model = _build(model_class, config)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    if sparse_config:
        _thin_text_config(folder / "config.json", _TEXT_CLASSES[generation][0]().to_dict())
    return FullCheckpoint(folder, model)


def _build(model_class: Any, config: Any) -> Any:
    with no_init_weights():  # which takes seconds for wide towers, and is overwritten
        model = model_class(config)
    draw_lively_weights(model)
    return model.eval()


def _prefix_keys(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        tensors = load(path.read_bytes())
        save_file({f"text_model.{key}": tensor for key, tensor in tensors.items()}, path)


def _thin_text_config(path: Path, defaults: dict[str, Any]) -> None:
    """Leave out of config.json all of the text tower that equals the class defaults."""
    config = json.loads(path.read_bytes())
    text = config["text_config"]
    config["text_config"] = {
        key: value
        for key, value in text.items()
        if key == "model_type" or value != defaults.get(key)
    }
    path.write_text(json.dumps(config))
