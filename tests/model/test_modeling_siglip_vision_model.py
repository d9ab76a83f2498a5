"""SiglipVisionModel: published names and sizes, random and loaded weights, other image sizes."""

from typing import Any

import pytest
import torch
from transformers import SiglipVisionModel as ReferenceModel

from model import BaseModelOutputWithPooling, SiglipVisionConfig, SiglipVisionModel
from tests.reference import ReferenceCheckpoint, relative_difference

TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def ours(tiny_checkpoint: ReferenceCheckpoint) -> SiglipVisionModel:
    """Our model, loaded from the tiny checkpoint."""
    return SiglipVisionModel.from_pretrained(tiny_checkpoint.folder)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (24, 24), (40, 72), (16, 64)])
@torch.inference_mode()
def test_a_loaded_model_equals_the_reference_at_any_size(
    ours: SiglipVisionModel, tiny_checkpoint: ReferenceCheckpoint, height: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    pixel_values = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    outputs = ours(pixel_values, interpolate_pos_encoding=True)
    expected = tiny_checkpoint.model(pixel_values, interpolate_pos_encoding=True)
    for name in BaseModelOutputWithPooling._fields:
        assert relative_difference(getattr(outputs, name), expected[name]) <= TOLERANCE


@torch.inference_mode()
def test_images_of_a_batch_do_not_mix(ours: SiglipVisionModel, pixel_values: torch.Tensor) -> None:
    pooled = ours(pixel_values).pooler_output
    for i in range(3):
        alone = ours(pixel_values[i : i + 1]).pooler_output
        assert relative_difference(alone, pooled[i : i + 1]) <= 1e-5


@torch.inference_mode()
def test_different_images_get_different_vectors(
    ours: SiglipVisionModel, pixel_values: torch.Tensor
) -> None:
    """Guards the parity tests: weights that answer all alike would hide mistakes."""
    pooled = ours(pixel_values).pooler_output
    similarity = torch.cosine_similarity(pooled.unsqueeze(0), pooled.unsqueeze(1), dim=-1)
    assert similarity.tril(-1).max() < 0.99


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 40), (16, 64), (31, 32)])
def test_an_image_of_another_size_is_refused_unless_positions_are_interpolated(
    ours: SiglipVisionModel, height: int, width: int
) -> None:
    with pytest.raises(ValueError, match=f"{height}x{width} pixels"):
        ours(torch.zeros(1, 3, height, width))


def test_tensors_have_the_published_names(
    ours: SiglipVisionModel, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    published = {"vision_model." + name for name in tiny_checkpoint.model.state_dict()}
    assert set(ours.state_dict()) == published


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ("base-patch16-224", 92_884_224),
        ("base-patch16-512", 93_520_128),
        ("base-patch32-256", 94_552_320),
        ("large-patch16-384", 316_283_904),
        ("so400m-patch14-224", 427_680_704),
        ("so400m-patch14-384", 428_225_600),
        ("so400m-patch16-512", 428_772_800),
        ("giant-opt-patch16-256", 1_163_168_256),
        ("giant-opt-patch16-384", 1_163_659_776),
    ],
)
def test_a_published_shape_has_the_published_number_of_parameters(
    shape: str, parameters: int
) -> None:
    with torch.device("meta"):
        model = SiglipVisionModel(SiglipVisionConfig.from_shape(shape))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_a_loaded_model_is_in_inference_mode(ours: SiglipVisionModel) -> None:
    assert not any(module.training for module in ours.modules())


def test_a_loaded_model_can_be_trained(tiny_checkpoint: ReferenceCheckpoint) -> None:
    model = SiglipVisionModel.from_pretrained(tiny_checkpoint.folder).train()
    model(torch.ones(1, 3, 32, 32)).pooler_output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_from_random_is_in_inference_mode(config: SiglipVisionConfig) -> None:
    model = SiglipVisionModel.from_random(config)
    assert not any(module.training for module in model.modules())
    assert model.config == config


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({}, torch.float32),
        ({"dtype": "auto"}, torch.float32),
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": torch.float64}, torch.float64),
        ({"dtype": torch.float16, "torch_dtype": torch.float64}, torch.float16),
    ],
)
def test_the_weights_get_the_dtype_that_is_asked_for(
    tiny_checkpoint: ReferenceCheckpoint, asked: dict[str, Any], given: torch.dtype
) -> None:
    model = SiglipVisionModel.from_pretrained(tiny_checkpoint.folder, **asked)
    assert model.dtype == given
    assert {weight.dtype for weight in model.parameters()} == {given}
    reference = ReferenceModel.from_pretrained(tiny_checkpoint.folder, **asked)
    assert reference.dtype == given


@pytest.mark.parametrize(
    "dtype", ["int8", "bf16", "nn", torch.uint8, torch.float8_e5m2, 16, "torch.float16", ""]
)
def test_a_dtype_that_weights_cannot_have_is_refused(
    tiny_checkpoint: ReferenceCheckpoint, dtype: Any
) -> None:
    with pytest.raises(ValueError, match=f"dtype cannot be {dtype!r}"):
        SiglipVisionModel.from_pretrained(tiny_checkpoint.folder, dtype=dtype)


def test_device_and_dtype_are_those_of_the_weights(config: SiglipVisionConfig) -> None:
    with torch.device("meta"):
        model = SiglipVisionModel(config).to(torch.bfloat16)
    assert model.device == torch.device("meta")
    assert model.dtype == torch.bfloat16
