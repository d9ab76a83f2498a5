"""Patch and position embeddings against the reference part, at the native size and others."""

import pytest
import torch
from transformers import SiglipVisionModel as ReferenceModel

from model import SiglipVisionConfig
from model.modeling_siglip_vision_embeddings import SiglipVisionEmbeddings
from tests.reference import relative_difference

TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def ours(reference: ReferenceModel, config: SiglipVisionConfig) -> SiglipVisionEmbeddings:
    """Our embeddings with the reference's weights: a grid of 4 x 4 patches of 8 pixels."""
    part = SiglipVisionEmbeddings(config).eval()
    part.load_state_dict(reference.embeddings.state_dict())
    return part


def random_pixels(height: int, width: int) -> torch.Tensor:
    """Two random images of any size."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.rand(2, 3, height, width, generator=generator) * 2 - 1


@torch.inference_mode()
def test_equals_the_reference_at_the_native_size(
    ours: SiglipVisionEmbeddings, reference: ReferenceModel, pixel_values: torch.Tensor
) -> None:
    embedded = ours(pixel_values)
    assert embedded.shape == (3, 16, 32)
    assert relative_difference(embedded, reference.embeddings(pixel_values)) <= TOLERANCE


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (48, 48),  # larger
        (24, 24),  # smaller
        (40, 64),  # not square
        (64, 40),
        (16, 64),  # as many patches as positions, but another grid
        (45, 71),  # no whole number of patches
        (8, 8),  # one patch
    ],
)
@torch.inference_mode()
def test_interpolated_positions_equal_the_references(
    ours: SiglipVisionEmbeddings, reference: ReferenceModel, height: int, width: int
) -> None:
    pixels = random_pixels(height, width)
    embedded = ours(pixels, interpolate_pos_encoding=True)
    expected = reference.embeddings(pixels, interpolate_pos_encoding=True)
    assert embedded.shape == (2, (height // 8) * (width // 8), 32)
    assert relative_difference(embedded, expected) <= TOLERANCE


@torch.inference_mode()
def test_interpolating_changes_nothing_at_the_native_size(
    ours: SiglipVisionEmbeddings, pixel_values: torch.Tensor
) -> None:
    torch.testing.assert_close(
        ours(pixel_values, interpolate_pos_encoding=True), ours(pixel_values)
    )


@torch.inference_mode()
def test_rows_and_columns_beyond_the_last_whole_patch_are_not_seen(
    ours: SiglipVisionEmbeddings, reference: ReferenceModel
) -> None:
    pixels = random_pixels(38, 39)
    torch.testing.assert_close(ours(pixels), ours(pixels[..., :32, :32]))
    assert relative_difference(ours(pixels), reference.embeddings(pixels)) <= TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(40, 32), (32, 24), (16, 64), (31, 31), (7, 7)])
def test_another_patch_grid_is_refused_unless_positions_are_interpolated(
    ours: SiglipVisionEmbeddings, height: int, width: int
) -> None:
    with pytest.raises(ValueError, match=f"{height}x{width} pixels.*32x32.*interpolate"):
        ours(random_pixels(height, width))


@torch.inference_mode()
def test_the_same_patch_at_another_place_gets_another_token(ours: SiglipVisionEmbeddings) -> None:
    embedded = ours(torch.zeros(1, 3, 32, 32))[0]
    assert torch.unique(embedded, dim=0).shape == embedded.shape


@torch.inference_mode()
def test_pixels_are_cast_to_the_dtype_of_the_weights(
    config: SiglipVisionConfig, pixel_values: torch.Tensor
) -> None:
    part = SiglipVisionEmbeddings(config).to(torch.bfloat16)
    assert part(pixel_values).dtype == torch.bfloat16
