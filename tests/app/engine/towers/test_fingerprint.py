"""The fingerprint of an embedding space: what changes it and what does not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from app.engine.towers.fingerprint import fingerprint_space, space_of, text_space_of
from app.engine.towers.loading import load_plain_model
from model import (
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipImageProcessor,
    SiglipTextConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
    load_tokenizer,
)
from tests.tokenizer_files import write_siglip2_tokenizer, write_siglip_tokenizer

CONTENT: dict[str, Any] = {
    "name": "model",
    "weights_sha256": "0" * 64,
    "architecture": {"hidden_size": 32, "dtype": "float32"},
    "processor": {"height": 32, "image_mean": (0.5, 0.5, 0.5)},
}


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
SPACES = [
    ("fixed", "exact", ("3de6bec6ed7a", "e0b6d615a22c", "70e9b31ac47f", "e45b66cd9df5")),
    ("fixed", "fast", ("9103d765e3b5", "70a82f2222c5", "7794cbc75ad9", "8cdb1f254333")),
    ("bilinear", "exact", ("0f7b3fa78f60", "967671ad0005", "8de3b13a3f92", "a3da944f02dd")),
    ("bilinear", "fast", ("45e2366bc8e8", "e40b20e3f223", "700ba6154471", "77de05b4d948")),
    ("headless", "exact", ("73cbb5832ba6", "92615cc9250f", "975391fb6bd3", "58832c5d47cc")),
    ("headless", "fast", ("fc623865c6d0", "f25b79af76be", "2cb0d542218c", "4cddb5ad8fd1")),
    ("naflex", "exact", ("79aea86c26d3", "bfa2356da377", "623cbaa05fcc", "f5cb64db9122")),
    ("naflex", "fast", ("5d8b815c55a7", "f95745332826", "dbfbaad94a52", "3509bbc0a5e1")),
]
"""A kind of checkpoint, how images are decoded, and the digest for each of `DTYPES`."""


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


def write_checkpoint(folder: Path, kind: str) -> None:
    """Write a tiny checkpoint whose weights are the same on every processor."""
    model: SiglipVisionModel | Siglip2VisionModel
    processor: SiglipImageProcessor | Siglip2ImageProcessor
    if kind == "naflex":
        model = Siglip2VisionModel(Siglip2VisionConfig.from_shape("tiny-patch16-naflex"))
        processor = Siglip2ImageProcessor(max_num_patches=100)
    else:
        config = SiglipVisionConfig.from_shape("tiny-patch16-32")
        model = SiglipVisionModel(replace(config, vision_use_head=kind != "headless"))
        resample = Image.Resampling.BILINEAR if kind == "bilinear" else Image.Resampling.BICUBIC
        processor = SiglipImageProcessor(height=32, width=32, resample=resample)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.arange(weight.numel()).remainder(7).view_as(weight) / 8)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.parametrize(("kind", "decode", "digests"), SPACES)
def test_the_space_of_a_checkpoint_never_changes(
    tmp_path: Path, kind: str, decode: str, digests: tuple[str, ...]
) -> None:
    """Vectors are kept for years: who adds a field to a config must not change what it was."""
    folder = tmp_path / kind
    write_checkpoint(folder, kind)
    loaded = load_plain_model(str(folder), None, ())
    if decode == "fast":
        loaded = loaded.resizing_with_torch()

    assert [space_of(loaded, dtype) for dtype in DTYPES] == [f"{kind}:{own}" for own in digests]


@pytest.mark.parametrize(
    ("write_tokenizer", "digests"),
    [
        (write_siglip_tokenizer, ("e8d6da963967", "68df97f70810")),
        (write_siglip2_tokenizer, ("30d396140906", "057492e1e2c2")),
    ],
)
def test_the_space_of_texts_never_changes(
    tmp_path: Path, write_tokenizer: Callable[[Path], None], digests: tuple[str, ...]
) -> None:
    """Nor when a class gets another name."""
    write_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.sha256 = "0" * 64  # another version of the trainer may write another file
    tokenizer.__class__ = type("Renamed", (type(tokenizer),), {})

    spaces = [
        text_space_of("model:0123456789ab", "1" * 64, SiglipTextConfig(), tokenizer, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    ]

    assert spaces == [f"model:text:{own}" for own in digests]
