"""One encoder layer against the reference part."""

import torch
from transformers import SiglipVisionModel as ReferenceModel

from model import SiglipVisionConfig
from model.modeling_siglip_vision_encoder_layer import SiglipEncoderLayer
from tests.reference import build_vision_model, relative_difference, tiny_vision_config

TOLERANCE = 2e-6


@torch.inference_mode()
def test_equals_the_reference(
    reference: ReferenceModel, config: SiglipVisionConfig, tokens: torch.Tensor
) -> None:
    for layer in reference.encoder.layers:
        ours = SiglipEncoderLayer(config).eval()
        ours.load_state_dict(layer.state_dict())
        assert relative_difference(ours(tokens), layer(tokens, None)) <= TOLERANCE


@torch.inference_mode()
def test_layer_norm_eps_is_the_configured_one(tokens: torch.Tensor) -> None:
    reference_config = tiny_vision_config(layer_norm_eps=0.1)
    layer = build_vision_model(reference_config).encoder.layers[0]
    ours = SiglipEncoderLayer(SiglipVisionConfig.from_dict(reference_config.to_dict())).eval()
    ours.load_state_dict(layer.state_dict())
    assert relative_difference(ours(tokens), layer(tokens, None)) <= TOLERANCE
