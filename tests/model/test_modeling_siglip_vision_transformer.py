"""The whole transformer against the reference, and what it returns."""

from typing import Any

import pytest
import torch
from transformers import SiglipVisionModel as ReferenceModel

from model import BaseModelOutputWithPooling, SiglipVisionConfig
from model.modeling_siglip_vision_transformer import SiglipVisionTransformer
from tests.reference import build_vision_model, relative_difference, tiny_vision_config

TOLERANCE = 2e-6


def build_pair(**changes: Any) -> tuple[SiglipVisionTransformer, ReferenceModel]:
    """Our tower and the reference's with the same lively weights, in inference mode."""
    reference_config = tiny_vision_config(**changes)
    reference = build_vision_model(reference_config)
    ours = SiglipVisionTransformer(SiglipVisionConfig.from_dict(reference_config.to_dict())).eval()
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_act": "gelu"},
        {"layer_norm_eps": 0.1},
        {"image_size": 38},
        {"num_attention_heads": 1},
    ],
)
@torch.inference_mode()
def test_equals_the_reference(changes: dict[str, Any]) -> None:
    ours, reference = build_pair(**changes)
    side, channels = reference.config.image_size, reference.config.num_channels
    generator = torch.Generator().manual_seed(2)
    pixel_values = torch.rand(3, channels, side, side, generator=generator) * 2 - 1
    outputs, expected = ours(pixel_values), reference(pixel_values)
    for name in BaseModelOutputWithPooling._fields:
        assert relative_difference(getattr(outputs, name), expected[name]) <= TOLERANCE


@torch.inference_mode()
def test_a_tower_without_head_pools_nothing(pixel_values: torch.Tensor) -> None:
    ours, reference = build_pair(vision_use_head=False)
    outputs, expected = ours(pixel_values), reference(pixel_values)
    assert outputs.pooler_output is None
    assert relative_difference(outputs.last_hidden_state, expected.last_hidden_state) <= TOLERANCE
    assert not any(name.startswith("head") for name in ours.state_dict())


@torch.inference_mode()
def test_outputs_have_the_documented_shapes(pixel_values: torch.Tensor) -> None:
    last_hidden_state, pooler_output = build_pair()[0](pixel_values)
    assert last_hidden_state.shape == (3, 16, 32)
    assert pooler_output.shape == (3, 32)


@torch.inference_mode()
def test_the_last_hidden_state_is_normalised_and_the_pooled_vector_is_not(
    pixel_values: torch.Tensor,
) -> None:
    ours, _ = build_pair()
    torch.nn.init.ones_(ours.post_layernorm.weight)
    torch.nn.init.zeros_(ours.post_layernorm.bias)
    outputs = ours(pixel_values)
    variance, mean = torch.var_mean(outputs.last_hidden_state, dim=-1, correction=0)
    torch.testing.assert_close(variance, torch.ones(3, 16), atol=1e-4, rtol=0)
    torch.testing.assert_close(mean, torch.zeros(3, 16), atol=1e-5, rtol=0)
    assert (outputs.pooler_output.norm(dim=-1) - 1).abs().min() > 0.1


def test_gradients_equal_the_references(pixel_values: torch.Tensor) -> None:
    ours, reference = build_pair()
    ours(pixel_values).pooler_output.square().sum().backward()
    reference(pixel_values).pooler_output.square().sum().backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_attention_dropout_acts_in_training_mode_only(pixel_values: torch.Tensor) -> None:
    ours, _ = build_pair(attention_dropout=0.5)
    reference, _ = build_pair(attention_dropout=0.0)
    expected = reference(pixel_values).last_hidden_state
    torch.testing.assert_close(ours.eval()(pixel_values).last_hidden_state, expected)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = ours.train()(pixel_values).last_hidden_state
    assert relative_difference(dropped, expected) > 0.01


@torch.inference_mode()
def test_bfloat16_stays_near_float32(pixel_values: torch.Tensor) -> None:
    ours, _ = build_pair()
    expected = ours(pixel_values).pooler_output
    pooled = ours.to(torch.bfloat16)(pixel_values).pooler_output
    assert pooled.dtype == torch.bfloat16
    assert torch.cosine_similarity(pooled.float(), expected).min() > 0.999
