"""What a model says of inputs that no processor gives, instead of answering them."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from model import (
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

VALUES = torch.zeros(2, 3, 32, 32)
PATCHES, MASK, GRIDS = torch.zeros(2, 6, 192), torch.ones(2, 6), torch.tensor([[2, 3], [3, 2]])


@pytest.fixture(scope="module")
def model() -> SiglipVisionModel:
    """A tower for images of 32 x 32."""
    return SiglipVisionModel.from_random(SiglipVisionConfig.from_shape("tiny-patch8-32"))


@pytest.fixture(scope="module")
def naflex_model() -> Siglip2VisionModel:
    """A tower for patches of 8 x 8."""
    return Siglip2VisionModel.from_random(Siglip2VisionConfig.from_shape("tiny-patch8-naflex"))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_pixels_that_are_not_normalised_are_refused(
    model: SiglipVisionModel, naflex_model: Siglip2VisionModel, dtype: torch.dtype
) -> None:
    said = f"pixel_values are {str(dtype).removeprefix('torch.')}; they must be floating-point"
    with pytest.raises(ValueError, match=said):
        model(VALUES.to(dtype))
    with pytest.raises(ValueError, match=said):
        naflex_model(PATCHES.to(dtype), MASK, GRIDS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_is_taken(model: SiglipVisionModel, dtype: torch.dtype) -> None:
    outputs = model(VALUES.to(dtype))
    assert torch.equal(outputs.pooler_output, model(VALUES).pooler_output)


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (2, 1, 32, 32), (2, 32, 32, 3), (2, 4, 32, 32), (0, 3, 32, 32), ()]
)
def test_shapes_that_do_not_fit_are_named(model: SiglipVisionModel, shape: tuple[int, ...]) -> None:
    said = f"pixel_values is {shape} instead of (batch, 3, height, width)"
    for interpolate in (False, True):
        with pytest.raises(ValueError, match=re.escape(said)):
            model(torch.zeros(shape), interpolate_pos_encoding=interpolate)


@pytest.mark.parametrize("given", [np.zeros((2, 3, 32, 32)), [VALUES], None, "cat.jpg"])
def test_what_is_no_tensor_is_named(
    model: SiglipVisionModel, naflex_model: Siglip2VisionModel, given: Any
) -> None:
    said = f"pixel_values is of type {type(given).__name__}, which is no tensor"
    with pytest.raises(TypeError, match=said):
        model(given)
    with pytest.raises(TypeError, match=said):
        naflex_model(given, MASK, GRIDS)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ((PATCHES[0], MASK, GRIDS), "pixel_values is (6, 192) instead of (batch, patches, 192)"),
        ((PATCHES[..., :64], MASK, GRIDS), "pixel_values is (2, 6, 64) instead of"),
        ((VALUES, MASK, GRIDS), "pixel_values is (2, 3, 32, 32) instead of"),
        ((PATCHES, MASK[:1], GRIDS), "pixel_attention_mask is (1, 6) instead of (2, 6)"),
        ((PATCHES, MASK[:, :5], GRIDS), "pixel_attention_mask is (2, 5) instead of (2, 6)"),
        ((PATCHES, MASK, GRIDS[:1]), "spatial_shapes is (1, 2) instead of (2, 2)"),
        ((PATCHES, MASK, GRIDS[0]), "spatial_shapes is (2,) instead of (2, 2)"),
    ],
)
def test_naflex_shapes_that_do_not_fit_together_are_named(
    naflex_model: Siglip2VisionModel, inputs: tuple[torch.Tensor, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        naflex_model(*inputs)
