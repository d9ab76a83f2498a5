"""8-bit linear layers stay near the float ones, image by image, and hide no overflow."""

import math

import pytest
import torch
from torch import nn

from model import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel
from model.fused_linear import PlainLinear
from model.int8_linear import Int8Linear
from model.modeling_siglip_vision_fused import FusedVisionTransformer
from tests.instruction_sets import needs_vnni
from tests.reference import draw_lively_weights

pytestmark = needs_vnni

INNER, OUTER = 96, 160


def layers(activation: nn.Module | None = None) -> tuple[Int8Linear, PlainLinear]:
    """The same random layer in both arithmetics."""
    torch.manual_seed(0)
    weight, bias = torch.randn(OUTER, INNER), torch.randn(OUTER)
    return Int8Linear(weight, bias, activation), PlainLinear(weight, bias, activation)


def least_cosine(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.cosine_similarity(result.float(), expected.float(), dim=-1).min())


@pytest.mark.parametrize("activation", [None, nn.GELU("tanh"), nn.GELU()])
@pytest.mark.parametrize("offset", [-3.0, 0.0, 3.0])
def test_products_are_near_those_of_floats(activation: nn.Module | None, offset: float) -> None:
    int8, plain = layers(activation)
    inputs = torch.randn(3, 20, INNER) + offset

    result = int8(inputs.bfloat16())

    assert result.dtype == torch.bfloat16
    assert result.shape == (3, 20, OUTER)
    assert least_cosine(result, plain(inputs)) >= 0.999


def test_a_residual_is_added() -> None:
    int8, _ = layers()
    inputs, residual = torch.randn(2, 4, INNER).bfloat16(), torch.randn(2, 4, OUTER).bfloat16()

    torch.testing.assert_close(int8(inputs, residual.clone()), int8(inputs) + residual)


def test_neighbours_in_the_batch_change_nothing() -> None:
    int8, _ = layers()
    inputs = torch.randn(3, 20, INNER).bfloat16() * torch.tensor([[[1.0]], [[50.0]], [[0.01]]])
    inputs = inputs.bfloat16()

    together = int8(inputs)

    for index, image in enumerate(inputs):
        torch.testing.assert_close(together[index], int8(image[None])[0])


def test_images_without_contrast_have_a_range_too() -> None:
    int8, plain = layers()
    for value in (0.0, 2.0, -2.0):
        inputs = torch.full((1, 2, INNER), value)
        assert least_cosine(int8(inputs.bfloat16()), plain(inputs)) >= 0.999


def test_an_output_without_weights_is_its_bias() -> None:
    bias = torch.randn(OUTER)
    result = Int8Linear(torch.zeros(OUTER, INNER), bias, None)(torch.randn(1, 2, INNER).bfloat16())

    torch.testing.assert_close(result[0, 0].float(), bias, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_what_is_not_finite_stays_so_and_is_no_neighbours_concern(fault: float) -> None:
    int8, _ = layers()
    inputs = torch.randn(2, 4, INNER).bfloat16()
    inputs[0, 1, 2] = fault

    result = int8(inputs)

    assert result[0].isnan().all()
    assert result[1].isfinite().all()


def test_a_deep_tower_stays_within_cosine_0_99() -> None:
    model = SiglipVisionModel(SiglipVisionConfig()).eval().requires_grad_(False)
    draw_lively_weights(model.vision_model)
    processor, cpu = SiglipImageProcessor(), torch.device("cpu")
    pixels = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    expected = model(processor.normalize(pixels))

    result = FusedVisionTransformer(model.vision_model, processor, cpu, torch.int8)(pixels)

    assert result.pooler_output is not None
    assert least_cosine(result.pooler_output, expected.pooler_output) >= 0.99
    assert least_cosine(result.last_hidden_state, expected.last_hidden_state) >= 0.99
