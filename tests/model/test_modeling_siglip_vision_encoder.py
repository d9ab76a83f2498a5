"""The stack of encoder layers against the reference part."""

import torch
from transformers import SiglipVisionModel as ReferenceModel

from model import SiglipVisionConfig
from model.modeling_siglip_vision_encoder import SiglipEncoder
from tests.reference import build_vision_model, relative_difference, tiny_vision_config

TOLERANCE = 2e-6


@torch.inference_mode()
def test_equals_the_reference(tokens: torch.Tensor) -> None:
    reference_config = tiny_vision_config(num_hidden_layers=5)
    reference = build_vision_model(reference_config).encoder
    ours = SiglipEncoder(SiglipVisionConfig.from_dict(reference_config.to_dict())).eval()
    ours.load_state_dict(reference.state_dict())
    expected = reference(tokens).last_hidden_state
    assert relative_difference(ours(tokens), expected) <= TOLERANCE


@torch.inference_mode()
def test_layers_run_in_the_order_of_their_numbers(
    reference: ReferenceModel, config: SiglipVisionConfig, tokens: torch.Tensor
) -> None:
    ours = SiglipEncoder(config).eval()
    ours.load_state_dict(reference.encoder.state_dict())
    first, second = ours.layers
    torch.testing.assert_close(ours(tokens), second(first(tokens)))
    assert not torch.allclose(ours(tokens), first(second(tokens)), atol=0.01)
