"""Fingerprint of everything that decides what a vector means.

Two vectors may be compared when their space is equal. Every field that counts is named, so that a
new field of a configuration changes no id. See docs/decisions/0002-space.md.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from app.engine.towers.loading import LoadedModel
from model import SiglipTextConfig
from model.tokenization_base import BaseTokenizer

# Raise it when a change to intake/ or to the resize changes the pixels of some image.
_PIXEL_RULES = 1
# Raise it when texts are cleaned otherwise, and so become other tokens.
_TEXT_RULES = 1
# What resizes also tells how images are decoded: by another name once that gives other pixels.
_DECODE = MappingProxyType({"pil": "exact", "torch": "fast-2"})
_CONFIG = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "vision_use_head",
)
_TEXT_CONFIG = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "vocab_size",
    "max_position_embeddings",
    "projection_size",
)
_PROCESSOR = ("rescale_factor", "image_mean", "image_std")


def space_of(loaded: LoadedModel, dtype: torch.dtype) -> str:
    """Return the space of a model's vectors, computed in `dtype`."""
    family, config, processor = loaded.family, loaded.model.config, loaded.processor
    # It travels in a header, and is there for people only.
    name = re.sub(r"[^A-Za-z0-9._-]", "-", loaded.name.rsplit("/", 1)[-1])
    return fingerprint_space(
        name,
        hash_weights(loaded.model.vision_model.state_dict()),
        _read_fields(config, *_CONFIG, *family.config_identity) | {"dtype": str(dtype)},
        _read_fields(processor, *_PROCESSOR, *family.processor_identity)
        | {"resample": processor.resample.name, "decode": _DECODE[processor.backend]},
    )


def text_space_of(
    image_space: str,
    weights_sha256: str,
    config: SiglipTextConfig,
    tokenizer: BaseTokenizer,
    dtype: torch.dtype,
) -> str:
    """Return what a text's vector depends on beside the text, computed in `dtype`."""
    content = {
        "weights": weights_sha256,
        "architecture": _read_fields(config, *_TEXT_CONFIG) | {"dtype": str(dtype)},
        "tokenizer": {
            "class": tokenizer.tokenizer_class,
            "sha256": tokenizer.sha256,
            "options": tokenizer.options,
        },
        "tokens": tokenizer.max_length,
        "text_rules": _TEXT_RULES,
    }
    return f"{image_space.rpartition(':')[0]}:text:{_digest(content)}"


def fingerprint_space(
    name: str, weights_sha256: str, architecture: Mapping[str, Any], processor: Mapping[str, Any]
) -> str:
    """Return the space id, `<name>:<12 hex digits>`.

    `architecture` and `processor` are plain values that JSON can hold.
    """
    content = {
        "weights": weights_sha256,
        "architecture": architecture,
        "processor": processor,
        "pixel_rules": _PIXEL_RULES,
        "pooling": "attention",
    }
    return f"{name}:{_digest(content)}"


def hash_weights(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of named tensors, whatever the order they come in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _read_fields(record: object, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}
