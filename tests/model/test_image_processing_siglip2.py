"""The NaFlex processor: sizes, patches, padding, and how its file is read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.siglip2 import image_processing_pil_siglip2 as reference

from model import ConfigError, Siglip2ImageProcessor
from model.image_processing_siglip2 import (
    convert_image_to_patches,
    get_image_size_for_max_num_patches,
)

SIZES = [
    (427, 640),
    (480, 640),
    (1080, 1920),
    (224, 1024),
    (256, 256),
    (1, 1),
    (1, 4000),
    (4000, 1),
    (16384, 3),
]


@pytest.mark.parametrize("max_num_patches", [1, 16, 256, 729, 1024])
@pytest.mark.parametrize("patch_size", [14, 16, 32])
def test_sizes_are_the_references(patch_size: int, max_num_patches: int) -> None:
    drawn = np.random.default_rng(0).integers(1, 3000, (200, 2)).tolist()
    for height, width in [*SIZES, *drawn]:
        size = (height, width, patch_size, max_num_patches)
        expected = reference.get_image_size_for_max_num_patches(*size)
        assert get_image_size_for_max_num_patches(*size) == expected


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((427, 640), (208, 304)),
        ((1080, 1920), (192, 336)),
        ((1, 1), (112, 112)),
        ((1, 4000), (16, 4096)),
    ],
)
def test_the_aspect_is_kept_in_whole_patches(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert get_image_size_for_max_num_patches(*size, 16, 256) == resized


def test_patches_are_cut_as_the_reference_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    expected = reference.convert_image_to_patches(pixels.transpose(2, 0, 1), 8)
    assert np.array_equal(convert_image_to_patches(pixels, 8), expected)


def test_images_of_several_shapes_equal_the_references(photographs: list[Image.Image]) -> None:
    images = [*photographs, photographs[0].crop((0, 0, 500, 40)), photographs[1].resize((9, 30))]
    ours = Siglip2ImageProcessor()(images)
    theirs = reference.Siglip2ImageProcessorPil()(images, return_tensors="pt")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        expected = theirs[name]
        assert tensor.dtype == expected.dtype
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)


def test_other_values_equal_the_references(photographs: list[Image.Image]) -> None:
    values: dict[str, Any] = {
        "patch_size": 14,
        "max_num_patches": 100,
        "resample": 3,
        "rescale_factor": 1 / 128,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
    }
    ours = Siglip2ImageProcessor.from_dict(values)(photographs)
    theirs = reference.Siglip2ImageProcessorPil(**values)(photographs, return_tensors="pt")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5)


def test_one_image_is_a_batch_of_one(photographs: list[Image.Image]) -> None:
    processor = Siglip2ImageProcessor()
    listed = processor(photographs[:1])
    for name, alone in processor(photographs[0]).items():
        torch.testing.assert_close(alone, listed[name])


def test_transparency_becomes_white() -> None:
    clear = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    assert Siglip2ImageProcessor().resize(clear).min() == 255


def test_defaults_are_the_references() -> None:
    written = json.loads(reference.Siglip2ImageProcessorPil().to_json_string())
    assert Siglip2ImageProcessor.from_dict(written) == Siglip2ImageProcessor()
    assert Siglip2ImageProcessor.from_dict({"do_convert_rgb": None}) == Siglip2ImageProcessor()


def test_is_read_from_a_folder(tmp_path: Path) -> None:
    reference.Siglip2ImageProcessorPil(max_num_patches=64).save_pretrained(tmp_path)
    processor = Siglip2ImageProcessor.from_pretrained(tmp_path)
    assert processor == Siglip2ImageProcessor(max_num_patches=64)


@pytest.mark.parametrize(
    "values",
    [
        {"patch_size": 0},
        {"patch_size": 16.5},
        {"patch_size": "16"},
        {"max_num_patches": -1},
        {"max_num_patches": 2**40},
        {"max_num_patches": True},
        {"do_resize": False},
        {"image_std": 0},
    ],
)
def test_what_cannot_be_done_is_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Siglip2ImageProcessor.from_dict(values)


def test_patches_are_normalised_on_their_own_device() -> None:
    patches = torch.zeros(2, 16 * 16 * 3, dtype=torch.uint8, device="meta")
    assert Siglip2ImageProcessor().normalize(patches).device == patches.device
