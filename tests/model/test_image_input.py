"""What a processor takes for an image, and what it says of all else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from model import Siglip2ImageProcessor, SiglipImageProcessor

Processor = SiglipImageProcessor | Siglip2ImageProcessor
PROCESSORS: list[Processor] = [SiglipImageProcessor(height=32, width=32), Siglip2ImageProcessor()]
PIXELS = np.zeros((4, 5, 3), np.uint8)


@pytest.fixture(params=PROCESSORS, ids=["fixed", "naflex"])
def processor(request: pytest.FixtureRequest) -> Processor:
    """Each kind of processor."""
    kind: Processor = request.param
    return kind


@pytest.mark.parametrize(
    "as_given",
    [
        lambda arrays: arrays,
        tuple,
        lambda arrays: [Image.fromarray(arrays[0]), *arrays[1:]],
        lambda arrays: [np.asfortranarray(arrays[0]), arrays[1][:, ::-1][:, ::-1], *arrays[2:]],
    ],
    ids=["list", "tuple", "mixed with PIL images", "any memory layout"],
)
def test_arrays_are_images(
    processor: Processor, photographs: list[Image.Image], as_given: Callable[[Any], Any]
) -> None:
    expected = processor(photographs)
    given = processor(as_given([np.asarray(photograph) for photograph in photographs]))
    for name, tensor in expected.items():
        assert torch.equal(given[name], tensor)


def test_one_array_is_one_image_and_a_batch_is_several(
    processor: Processor, photographs: list[Image.Image]
) -> None:
    image = np.asarray(photographs[0])
    one, batch = processor(image), processor(np.stack([image, image]))
    assert torch.equal(one.pixel_values, processor(photographs[0]).pixel_values)
    assert torch.equal(batch.pixel_values, one.pixel_values.expand_as(batch.pixel_values))
    assert len(batch.pixel_values) == 2


def test_arrays_give_the_references_values(photographs: list[Image.Image]) -> None:
    arrays = [np.asarray(photograph) for photograph in photographs]
    expected = SiglipImageProcessorPil()(arrays, return_tensors="pt")["pixel_values"]
    ours = SiglipImageProcessor()(arrays).pixel_values
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("cat.jpg", "images is of type str; an image is a PIL image (PIL.Image.open reads a file)"),
        (b"\xff\xd8\xff", "images is of type bytes"),
        (Path("cat.jpg"), "images is of type PosixPath"),
        (None, "images is of type NoneType"),
        (torch.zeros(3, 8, 8), "images is of type Tensor"),
        ([PIXELS, "cat.jpg"], "images[1] is of type str"),
        ([[PIXELS]], "images[0] is of type list"),
        ({"images": PIXELS}, "images is of type dict"),
        (3, "images is of type int"),
    ],
)
def test_what_is_no_image_is_named(processor: Processor, given: Any, said: str) -> None:
    with pytest.raises(TypeError, match=re.escape(said)):
        processor(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "images is empty; give at least one image"),
        ((), "images is empty"),
        (np.zeros((0, 4, 5, 3), np.uint8), "images is empty"),
        (np.zeros((4, 5, 3), np.float32), "images is an array float32 (4, 5, 3)"),
        ([PIXELS, np.zeros((4, 5, 3), np.int64)], "images[1] is an array int64 (4, 5, 3)"),
        (np.zeros((4, 5, 3), np.uint16), "images is an array uint16 (4, 5, 3)"),
        (np.zeros((4, 5, 3), bool), "images is an array bool (4, 5, 3)"),
        (np.zeros((4, 5), np.uint8), "images is an array uint8 (4, 5)"),
        (np.zeros((3, 4, 5), np.uint8), "images is an array uint8 (3, 4, 5)"),
        (np.zeros((4, 5, 4), np.uint8), "images is an array uint8 (4, 5, 4)"),
        (np.zeros((2, 3, 4, 5), np.uint8), "images[0] is an array uint8 (3, 4, 5)"),
        (np.zeros((2, 2, 4, 5, 3), np.uint8), "images is an array uint8 (2, 2, 4, 5, 3)"),
        (np.zeros((0, 5, 3), np.uint8), "images has no pixels"),
        ([PIXELS, Image.new("RGB", (0, 5))], "images[1] has no pixels"),
        (Image.new("I;16", (4, 5)), "images is of mode I;16; scale its values to 8 bits first"),
        ([Image.new("I", (4, 5))], "images[0] is of mode I;"),
        ([Image.new("F", (4, 5))], "images[0] is of mode F;"),
    ],
)
def test_what_cannot_be_taken_as_it_is_says_so(processor: Processor, given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        processor(given)
