"""Resizing by PyTorch: within two levels of Pillow, whatever the filter, the size and the shape."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model import Siglip2ImageProcessor, SiglipImageProcessor
from model.torch_resize import TORCH_MODES, resize_with_torch

SIZES = [(1, 1), (1, 700), (700, 1), (64, 48), (640, 480), (1500, 1100)]
FILTERS = list(TORCH_MODES)


def levels_off(pixels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return by how many grey levels each value differs."""
    assert pixels.shape == other.shape
    assert pixels.dtype == other.dtype == np.uint8
    return np.abs(pixels.astype(int) - other.astype(int))


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_values_are_within_two_levels_of_pillows(
    photographs: list[Image.Image], size: tuple[int, int], resample: Image.Resampling
) -> None:
    for photograph in photographs:
        image = photograph.resize(size)
        ours = resize_with_torch(image, 96, 160, resample)
        off = levels_off(ours, np.asarray(image.resize((160, 96), resample)))
        assert off.max() <= 2
        assert off.mean() <= 0.02
        assert ours.flags.c_contiguous


def test_the_two_filters_are_told_apart(photographs: list[Image.Image]) -> None:
    bilinear, bicubic = (resize_with_torch(photographs[0], 64, 64, one) for one in FILTERS)

    assert levels_off(bilinear, bicubic).max() > 5


@pytest.mark.parametrize("processor", [SiglipImageProcessor, Siglip2ImageProcessor])
def test_a_processor_resizes_with_torch_when_told_to(
    photographs: list[Image.Image],
    processor: type[SiglipImageProcessor | Siglip2ImageProcessor],
) -> None:
    pillow, torch = processor(), processor(backend="torch")

    for photograph in photographs:
        with_alpha = photograph.resize((433, 311)).convert("RGBA")
        with_alpha.putalpha(200)
        off = levels_off(torch.resize(with_alpha), pillow.resize(with_alpha))
        assert 0 < off.max() <= 2  # equal bytes would be Pillow's own


def test_a_filter_that_torch_lacks_stays_pillows(photographs: list[Image.Image]) -> None:
    pillow = SiglipImageProcessor(resample=Image.Resampling.LANCZOS)
    torch = replace(pillow, backend="torch")

    assert np.array_equal(torch.resize(photographs[0]), pillow.resize(photographs[0]))
