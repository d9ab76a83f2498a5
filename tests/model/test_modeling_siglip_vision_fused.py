"""The fused tower computes what the plain tower computes, for every published width."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from model import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel
from model.fused_linear import OneDnnLinear, PlainLinear
from model.modeling_siglip_vision_fused import FusedVisionTransformer
from model.modeling_siglip_vision_fused_pooling_head import FusedPoolingHead
from tests.reference import draw_lively_weights, write_checkpoint

CPU = torch.device("cpu")
SHAPES = ("base-patch16-224", "large-patch16-256", "so400m-patch14-224", "giant-opt-patch16-256")


def lively_model(**config: int) -> SiglipVisionModel:
    model = SiglipVisionModel(SiglipVisionConfig(**config)).eval()  # type: ignore[arg-type]
    draw_lively_weights(model.vision_model)
    return model.requires_grad_(False)


def two_layers_of(shape: str) -> SiglipVisionModel:
    config = SiglipVisionConfig.from_shape(shape)
    return lively_model(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_attention_heads=config.num_attention_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_hidden_layers=2,
    )


def relative_difference(result: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    assert result is not None
    assert expected is not None
    return float((result - expected).abs().max() / expected.abs().max())


def least_cosine(result: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    assert result is not None
    assert expected is not None
    return float(torch.cosine_similarity(result.float(), expected, dim=-1).min())


@pytest.fixture(scope="module")
def pixel_values(photographs: list[Image.Image]) -> torch.Tensor:
    return SiglipImageProcessor()(photographs)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_equals_the_plain_tower(shape: str, photographs: list[Image.Image]) -> None:
    model = two_layers_of(shape)
    side = model.config.image_size
    pixel_values = SiglipImageProcessor(height=side, width=side)(photographs[:2])
    expected = model(pixel_values)
    result = FusedVisionTransformer(model.vision_model, CPU, torch.float32)(pixel_values)
    assert relative_difference(result.last_hidden_state, expected.last_hidden_state) <= 1e-5
    assert relative_difference(result.pooler_output, expected.pooler_output) <= 1e-5


def test_bfloat16_of_a_deep_tower_stays_within_cosine_0_9999(pixel_values: torch.Tensor) -> None:
    model = lively_model()  # all 12 layers of base
    expected = model(pixel_values)
    result = FusedVisionTransformer(model.vision_model, CPU, torch.bfloat16)(pixel_values)
    assert least_cosine(result.pooler_output, expected.pooler_output) >= 0.9999
    assert least_cosine(result.last_hidden_state, expected.last_hidden_state) >= 0.9999


def test_pixels_beyond_the_last_whole_patch_are_not_seen() -> None:
    model = lively_model(hidden_size=64, num_attention_heads=4, image_size=38, patch_size=8)
    fused = FusedVisionTransformer(model.vision_model, CPU, torch.float32)
    pixel_values = torch.randn(1, 3, 38, 38)
    expected = model(pixel_values)
    result = fused(pixel_values)
    assert relative_difference(result.last_hidden_state, expected.last_hidden_state) <= 1e-5


def test_an_image_alone_and_in_a_batch_get_the_same_vector(pixel_values: torch.Tensor) -> None:
    model = two_layers_of("base-patch16-224")
    fused = FusedVisionTransformer(model.vision_model, CPU, torch.float32)
    together = fused(pixel_values).pooler_output
    alone = torch.cat([fused(image[None]).pooler_output for image in pixel_values])
    assert relative_difference(alone, together) <= 1e-5


def test_tower_without_head_pools_nothing() -> None:
    config = SiglipVisionConfig(vision_use_head=False, num_hidden_layers=1)
    model = SiglipVisionModel(config).eval().requires_grad_(False)
    fused = FusedVisionTransformer(model.vision_model, CPU, torch.float32)
    assert fused(torch.zeros(1, 3, 224, 224)).pooler_output is None


def test_head_with_a_peaked_softmax_equals_the_plain_head() -> None:
    model = lively_model(hidden_size=72, num_attention_heads=8, num_hidden_layers=1)
    head = model.vision_model.head
    assert head is not None
    head.probe.mul_(20)
    hidden_states = torch.randn(3, 50, 72)
    result = FusedPoolingHead(head, CPU)(hidden_states)
    assert relative_difference(result, head(hidden_states)) <= 1e-5


@pytest.mark.parametrize("approximate", ["tanh", "none"])
@pytest.mark.parametrize("residual", [False, True])
def test_onednn_linear_equals_the_plain_one(approximate: str, residual: bool) -> None:
    weight, bias, inputs = torch.randn(24, 16), torch.randn(24), torch.randn(2, 5, 16)
    activation = None if residual else torch.nn.GELU(approximate)
    other = torch.randn(2, 5, 24) if residual else None
    expected = PlainLinear(weight, bias, activation)(inputs, other)
    result = OneDnnLinear(weight, bias, activation)(inputs, other)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_loading_leaves_the_plain_tower_as_it_was(tmp_path: Path) -> None:
    model = SiglipVisionModel.from_pretrained(write_checkpoint(tmp_path).folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    FusedVisionTransformer(model.vision_model, CPU, torch.bfloat16)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
