"""Self-attention against the reference part, and where its dropout applies."""

from typing import Any

import pytest
import torch
from transformers.models.siglip.modeling_siglip import SiglipAttention as ReferenceAttention

from model import SiglipVisionConfig
from model.modeling_siglip_vision_attention import SiglipAttention
from tests.reference import (
    build_vision_model,
    draw_lively_weights,
    relative_difference,
    tiny_vision_config,
)

TOLERANCE = 2e-6


def build_pair(**changes: Any) -> tuple[SiglipAttention, ReferenceAttention]:
    """Our attention and the reference's with the same lively weights, in inference mode."""
    reference_config = tiny_vision_config(**changes)
    reference_config._attn_implementation = "sdpa"
    reference = ReferenceAttention(reference_config).eval()
    draw_lively_weights(reference)
    ours = SiglipAttention(SiglipVisionConfig.from_dict(reference_config.to_dict())).eval()
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize(("hidden_size", "heads"), [(32, 4), (32, 1), (144, 2), (192, 2), (32, 32)])
@torch.inference_mode()
def test_equals_the_reference_for_every_head_size(hidden_size: int, heads: int) -> None:
    ours, reference = build_pair(hidden_size=hidden_size, num_attention_heads=heads)
    tokens = torch.randn(2, 16, hidden_size, generator=torch.Generator().manual_seed(1))
    assert relative_difference(ours(tokens), reference(tokens)[0]) <= TOLERANCE


@torch.inference_mode()
def test_equals_the_reference_written_out_in_full(tokens: torch.Tensor) -> None:
    ours, reference = build_pair()
    reference.config._attn_implementation = "eager"
    mixed, weights = reference(tokens)
    assert weights.shape == (3, 4, 16, 16)
    assert relative_difference(ours(tokens), mixed) <= TOLERANCE


def test_reference_attention_has_favourites(pixel_values: torch.Tensor) -> None:
    """Guards the other tests: uniform attention would hide a mistake in it."""
    tower = build_vision_model(tiny_vision_config())
    tower.set_attn_implementation("eager")
    outputs = tower(pixel_values, output_attentions=True)
    for weights in outputs.attentions:
        assert weights.max(-1).values.mean() > 4 / 16


@torch.inference_mode()
def test_every_patch_attends_to_every_patch(tokens: torch.Tensor) -> None:
    ours, _ = build_pair()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours(tokens[:, order]), ours(tokens)[:, order])


@torch.inference_mode()
def test_images_of_a_batch_do_not_mix(tokens: torch.Tensor) -> None:
    ours, _ = build_pair()
    torch.testing.assert_close(ours(tokens)[1:2], ours(tokens[1:2]))


@torch.inference_mode()
def test_dropout_is_off_in_inference_mode(tokens: torch.Tensor) -> None:
    with_dropout, _ = build_pair(attention_dropout=0.5)
    without_dropout, _ = build_pair(attention_dropout=0.0)
    torch.testing.assert_close(with_dropout(tokens), without_dropout(tokens))


@torch.inference_mode()
def test_dropout_in_training_mode_equals_the_references(tokens: torch.Tensor) -> None:
    ours, reference = build_pair(attention_dropout=0.5)
    undisturbed = ours(tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        dropped = ours.train()(tokens)
        torch.manual_seed(4)
        expected = reference.train()(tokens)[0]
    assert relative_difference(dropped, expected) <= TOLERANCE
    assert relative_difference(dropped, undisturbed) > 0.01
