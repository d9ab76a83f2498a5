"""Parity with transformers at the published shapes, on photographs, from file to vector.

Two layers each: a deeper tower only repeats them. The bounds are those that the project promises
in float32.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil, SiglipVisionConfig

from model import BaseModelOutputWithPooling, SiglipImageProcessor, SiglipVisionModel
from tests.reference import build_vision_model, relative_difference, save_checkpoint

MAX_RELATIVE_DIFFERENCE = 2e-5
MAX_PIXEL_DIFFERENCE = 1e-6

BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
SO400M = {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 4304}
GIANT_OPT = {"hidden_size": 1536, "num_attention_heads": 16, "intermediate_size": 6144}

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR

Layout = Literal["published", "flat"]
"""`published`: tower and text tower under `vision_model.X`, beside a sparse config.json, and in
several shards where the shape is published so; `flat`: the tower alone, as a training saves it."""


@dataclass(frozen=True)
class Shape:
    """A published shape, and how many patches it makes of an image."""

    size: dict[str, int]
    patch_size: int
    image_size: int
    patches: int
    resample: Image.Resampling = BILINEAR
    vision_use_head: bool = True
    max_shard_size: str = "50GB"

    def to_config(self) -> SiglipVisionConfig:
        """Return the reference configuration, of two layers."""
        return SiglipVisionConfig(
            **self.size,
            num_hidden_layers=2,
            patch_size=self.patch_size,
            image_size=self.image_size,
            vision_use_head=self.vision_use_head,
        )


SHAPES = {
    "base-patch16-224": Shape(BASE, 16, 224, 196, BICUBIC),
    "base-patch16-224-without-head": Shape(BASE, 16, 224, 196, BICUBIC, vision_use_head=False),
    "base-patch32-256": Shape(BASE, 32, 256, 64),
    "base-patch16-512": Shape(BASE, 16, 512, 1024),
    "large-patch16-384": Shape(LARGE, 16, 384, 576, BICUBIC),
    "so400m-patch14-224": Shape(SO400M, 14, 224, 256),
    "so400m-patch14-384": Shape(SO400M, 14, 384, 729, BICUBIC),
    "giant-opt-patch16-256": Shape(GIANT_OPT, 16, 256, 256, max_shard_size="150MB"),
}


@dataclass(frozen=True)
class Expected:
    """A shape's checkpoints by layout, and what the reference makes of the photographs."""

    shape: Shape
    folders: dict[Layout, Path]
    pixel_values: torch.Tensor
    outputs: Any


@pytest.fixture(scope="module", params=list(SHAPES.values()), ids=list(SHAPES))
def expected(
    request: pytest.FixtureRequest,
    photographs: list[Image.Image],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Expected]:
    """Two photographs through the reference, and its checkpoint in both layouts."""
    shape: Shape = request.param
    reference = build_vision_model(shape.to_config())
    folder = tmp_path_factory.mktemp("parity")
    folders: dict[Layout, Path] = {"published": folder / "published", "flat": folder / "flat"}
    save_checkpoint(
        reference,
        folders["published"],
        sparse_config=True,
        max_shard_size=shape.max_shard_size,
        resample=shape.resample,
    )
    save_checkpoint(reference, folders["flat"], keys="flat", resample=shape.resample)
    processor = SiglipImageProcessorPil.from_pretrained(folders["flat"])
    pixel_values = processor(photographs[:2], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        outputs = reference(pixel_values)
    yield Expected(shape, folders, pixel_values, outputs)
    shutil.rmtree(folder)  # the weights of all shapes are gigabytes


def test_pixel_values_equal_the_references(
    expected: Expected, photographs: list[Image.Image]
) -> None:
    processor = SiglipImageProcessor.from_pretrained(expected.folders["published"])
    inputs = processor(photographs[:2])
    torch.testing.assert_close(
        inputs.pixel_values, expected.pixel_values, rtol=0, atol=MAX_PIXEL_DIFFERENCE
    )


@pytest.mark.parametrize("layout", ["published", "flat"])
@torch.inference_mode()
def test_outputs_equal_the_references(expected: Expected, layout: Layout) -> None:
    model = SiglipVisionModel.from_pretrained(expected.folders[layout])
    outputs = model(expected.pixel_values)
    hidden_size = expected.shape.size["hidden_size"]
    assert outputs.last_hidden_state.shape == (2, expected.shape.patches, hidden_size)
    for name in BaseModelOutputWithPooling._fields:
        ours, theirs = getattr(outputs, name), getattr(expected.outputs, name)
        if name == "pooler_output" and not expected.shape.vision_use_head:
            assert ours is None
            assert theirs is None
        else:
            assert relative_difference(ours, theirs) <= MAX_RELATIVE_DIFFERENCE


def test_the_largest_shape_is_read_from_several_shards(expected: Expected) -> None:
    shards = list(expected.folders["published"].glob("model-*-of-*.safetensors"))
    assert (len(shards) > 1) == (expected.shape.size is GIANT_OPT)
