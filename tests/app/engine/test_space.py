"""The fingerprint of an embedding space: what changes it and what does not."""

from typing import Any

import pytest
import torch

from app.engine.loading import LoadedSiglip, space_of
from app.engine.space import fingerprint_space
from model import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

CONTENT: dict[str, Any] = {
    "name": "model",
    "weights_sha256": "0" * 64,
    "architecture": {"hidden_size": 32, "dtype": "float32"},
    "processor": {"height": 32, "image_mean": (0.5, 0.5, 0.5)},
}


def test_the_fingerprint_is_the_name_and_twelve_hex_digits() -> None:
    name, _, digest = fingerprint_space(**CONTENT).partition(":")

    assert name == "model"
    assert len(digest) == 12
    assert int(digest, 16) >= 0


def test_the_fingerprint_of_a_released_version_never_changes() -> None:
    """Stored vectors carry it; a change to it must be meant, and raise the pixel rules."""
    assert fingerprint_space(**CONTENT) == "model:e9d6e256b056"


def test_the_order_of_the_keys_does_not_matter() -> None:
    turned: dict[str, Any] = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in CONTENT.items()
    }

    assert fingerprint_space(**turned) == fingerprint_space(**CONTENT)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"weights_sha256": "1" * 64},
        {"architecture": {"hidden_size": 64, "dtype": "float32"}},
        {"architecture": {"hidden_size": 32, "dtype": "bfloat16"}},
        {"processor": {"height": 32, "image_mean": (0.5, 0.5, 0.4)}},
        {"processor": {"height": 32, "image_mean": (0.5, 0.5, 0.5), "resample": "BILINEAR"}},
    ],
)
def test_whatever_changes_the_meaning_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint_space(**CONTENT | change) != fingerprint_space(**CONTENT)


def test_the_space_of_a_checkpoint_never_changes() -> None:
    """Vectors are kept for years: who adds a field to a config must not change what it was."""
    model = SiglipVisionModel(SiglipVisionConfig.from_shape("tiny-patch16-32"))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.arange(weight.numel()).remainder(7).view_as(weight) / 8)
    processor = SiglipImageProcessor(height=32, width=32)
    loaded = LoadedSiglip(model, processor, "google/tiny", None, True, lambda: model)

    assert space_of(loaded, torch.float32, "exact") == "tiny:3de6bec6ed7a"
    assert space_of(loaded, torch.bfloat16, "exact") != space_of(loaded, torch.float32, "exact")
