"""The attention-pooling head against the reference part."""

import pytest
import torch
from transformers import SiglipVisionModel as ReferenceModel

from model import SiglipVisionConfig
from model.modeling_siglip_vision_fused_pooling_head import FusedPoolingHead
from model.modeling_siglip_vision_pooling_head import SiglipMultiheadAttentionPoolingHead
from tests.reference import build_vision_model, relative_difference, tiny_vision_config

TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def ours(
    reference: ReferenceModel, config: SiglipVisionConfig
) -> SiglipMultiheadAttentionPoolingHead:
    """Our head with the reference's weights."""
    head = SiglipMultiheadAttentionPoolingHead(config).eval()
    head.load_state_dict(reference.head.state_dict())
    return head


@torch.inference_mode()
def test_equals_the_reference(
    ours: SiglipMultiheadAttentionPoolingHead, reference: ReferenceModel, tokens: torch.Tensor
) -> None:
    pooled = ours(tokens)
    assert pooled.shape == (3, 32)
    assert relative_difference(pooled, reference.head(tokens)) <= TOLERANCE


@pytest.mark.parametrize(("hidden_size", "heads"), [(32, 1), (144, 2), (192, 2)])
@torch.inference_mode()
def test_equals_the_reference_for_every_head_size(hidden_size: int, heads: int) -> None:
    reference_config = tiny_vision_config(hidden_size=hidden_size, num_attention_heads=heads)
    reference = build_vision_model(reference_config).head
    ours = SiglipMultiheadAttentionPoolingHead(
        SiglipVisionConfig.from_dict(reference_config.to_dict())
    ).eval()
    ours.load_state_dict(reference.state_dict())
    tokens = torch.randn(2, 16, hidden_size, generator=torch.Generator().manual_seed(1))
    assert relative_difference(ours(tokens), reference(tokens)) <= TOLERANCE


@torch.inference_mode()
def test_reference_head_has_favourites(reference: ReferenceModel, tokens: torch.Tensor) -> None:
    """Guards the other tests: a plain mean over the patches must not pass them."""
    head = reference.head
    _, weights = head.attention(head.probe.expand(3, -1, -1), tokens, tokens)
    assert weights.max() > 4 / 16


@torch.inference_mode()
def test_layer_norm_eps_is_the_configured_one(tokens: torch.Tensor) -> None:
    reference_config = tiny_vision_config(layer_norm_eps=0.1)
    reference = build_vision_model(reference_config).head
    ours = SiglipMultiheadAttentionPoolingHead(
        SiglipVisionConfig.from_dict(reference_config.to_dict())
    ).eval()
    ours.load_state_dict(reference.state_dict())
    assert relative_difference(ours(tokens), reference(tokens)) <= TOLERANCE


@torch.inference_mode()
def test_the_order_of_the_patches_does_not_matter(
    ours: SiglipMultiheadAttentionPoolingHead, tokens: torch.Tensor
) -> None:
    torch.testing.assert_close(ours(tokens.flip(1)), ours(tokens))


@torch.inference_mode()
def test_images_of_a_batch_do_not_mix(
    ours: SiglipMultiheadAttentionPoolingHead, tokens: torch.Tensor
) -> None:
    torch.testing.assert_close(ours(tokens)[1:2], ours(tokens[1:2]))


def test_the_fused_head_asks_for_no_gradients() -> None:
    head = SiglipMultiheadAttentionPoolingHead(SiglipVisionConfig.from_shape("tiny-patch16-32"))
    fused = FusedPoolingHead(head, torch.device("cpu"))
    assert not any(tensor.requires_grad for tensor in [*fused.buffers(), *fused.parameters()])
    assert all(tensor.requires_grad for tensor in head.parameters())
