"""The feed-forward block against the reference part, for each activation."""

import pytest
import torch
from transformers.models.siglip.modeling_siglip import SiglipMLP as ReferenceMLP

from model import ConfigError, SiglipVisionConfig
from model.modeling_siglip_vision_mlp import SiglipMLP
from tests.reference import draw_lively_weights, relative_difference, tiny_vision_config

TOLERANCE = 2e-6


def build_pair(hidden_act: str) -> tuple[SiglipMLP, ReferenceMLP]:
    """Our block and the reference's with the same lively weights."""
    reference_config = tiny_vision_config(hidden_act=hidden_act)
    reference = ReferenceMLP(reference_config)
    draw_lively_weights(reference)
    ours = SiglipMLP(SiglipVisionConfig.from_dict(reference_config.to_dict()))
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize("hidden_act", ["gelu_pytorch_tanh", "gelu"])
@torch.inference_mode()
def test_equals_the_reference(hidden_act: str, tokens: torch.Tensor) -> None:
    ours, reference = build_pair(hidden_act)
    assert relative_difference(ours(tokens), reference(tokens)) <= TOLERANCE


@torch.inference_mode()
def test_the_two_activations_are_told_apart(tokens: torch.Tensor) -> None:
    tanh, _ = build_pair("gelu_pytorch_tanh")
    exact, _ = build_pair("gelu")
    assert relative_difference(tanh(tokens), exact(tokens)) > 10 * TOLERANCE


@pytest.mark.parametrize("hidden_act", ["relu", "quick_gelu", "", "GELU"])
def test_another_activation_is_refused(hidden_act: str) -> None:
    with pytest.raises(ConfigError, match=f"hidden_act '{hidden_act}'.*gelu_pytorch_tanh"):
        SiglipMLP(SiglipVisionConfig(hidden_act=hidden_act))
