"""Fingerprint of everything that decides what a vector means.

Two vectors may be compared when their space is equal. See docs/decisions/0002-space.md.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

# Raise it when a change to intake/ or to the resize changes the pixels of some image.
_PIXEL_RULES = 1


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
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{name}:{digest[:12]}"


def hash_weights(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of named tensors, whatever the order they come in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def same_space(space: str, other: str) -> bool:
    """Tell whether two space ids mean the same; the name before the digits is for people."""
    return space.rpartition(":")[2] == other.rpartition(":")[2]
