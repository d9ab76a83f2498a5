"""Parity of the image processor with transformers, on photographs in every colour mode."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from model import SiglipImageProcessor

MAX_DIFFERENCE = 1e-6  # in units of pixel values, which go from -1 to 1


def assert_parity(
    processor: SiglipImageProcessor, images: list[Image.Image], **settings: Any
) -> None:
    """Our pixel values are the reference's; `settings` are for the reference."""
    reference = SiglipImageProcessorPil(**settings)
    expected = torch.as_tensor(reference(images, return_tensors="pt")["pixel_values"])
    ours = processor(images).pixel_values
    torch.testing.assert_close(ours, expected, rtol=0, atol=MAX_DIFFERENCE)


def half_transparent(image: Image.Image) -> Image.Image:
    """Return the image as RGBA, its opacity changing from one side to the other."""
    faded = image.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return faded


def palette_with_transparency(image: Image.Image) -> Image.Image:
    """Return the image as P with its most frequent colour transparent, as a GIF has it."""
    paletted = image.quantize(16)
    paletted.info["transparency"] = int(np.bincount(np.asarray(paletted).ravel()).argmax())
    return paletted


MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "RGB": lambda image: image,
    "L": lambda image: image.convert("L"),
    "1": lambda image: image.convert("1"),
    "P": lambda image: image.quantize(64),
    "P-tRNS": palette_with_transparency,
    "RGBA": half_transparent,
    "LA": lambda image: half_transparent(image).convert("LA"),
    "PA": lambda image: half_transparent(image).convert("PA"),
    "CMYK": lambda image: image.convert("CMYK"),
    "YCbCr": lambda image: image.convert("YCbCr"),
    "HSV": lambda image: image.convert("HSV"),
}


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("mode", MODES)
def test_every_colour_mode_equals_the_references(
    photographs: list[Image.Image], mode: str, resample: Image.Resampling
) -> None:
    images = [MODES[mode](photograph) for photograph in photographs]
    assert {image.mode for image in images} == {mode.removesuffix("-tRNS")}
    assert_parity(SiglipImageProcessor(resample=resample), images, resample=resample)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "CMYK"])
def test_a_null_do_convert_rgb_still_converts(
    tmp_path: Path, photographs: list[Image.Image], mode: str
) -> None:
    """Published files carry it, and the reference then fails on all but RGB."""
    (tmp_path / "preprocessor_config.json").write_text('{"do_convert_rgb": null}')
    images = [MODES[mode](photograph) for photograph in photographs]
    processor = SiglipImageProcessor.from_pretrained(tmp_path)
    assert_parity(processor, images, do_convert_rgb=True)


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("side", [256, 384, 512])
def test_every_published_size_equals_the_references(
    photographs: list[Image.Image], side: int, resample: Image.Resampling
) -> None:
    processor = SiglipImageProcessor(height=side, width=side, resample=resample)
    size = {"height": side, "width": side}
    assert_parity(processor, photographs, size=size, resample=resample)
