"""The fused NaFlex tower against the plain one, on photographs of several shapes."""

import numpy as np
import pytest
import torch
from PIL import Image

from model import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel
from model.fused_attention import PackedAttention, attend_together
from model.modeling_siglip2_fused import FusedSiglip2Transformer
from model.packing import Packing
from tests.naflex_reference import build_naflex_model, tiny_naflex_config

CPU = torch.device("cpu")
PROCESSOR = Siglip2ImageProcessor(
    patch_size=8, max_num_patches=40, image_mean=(0.4, 0.5, 0.6), image_std=(0.3, 0.5, 0.2)
)


@pytest.fixture(scope="module")
def model() -> Siglip2VisionModel:
    """The tiny tower with lively weights."""
    reference = build_naflex_model(tiny_naflex_config())
    own = Siglip2VisionModel(Siglip2VisionConfig.from_dict(reference.config.to_dict())).eval()
    own.vision_model.load_state_dict(reference.state_dict())
    return own


@pytest.fixture(scope="module")
def resized(photographs: list[Image.Image]) -> list[np.ndarray]:
    """Photographs of four grids, as the processor resizes them."""
    images = [*photographs[:2], photographs[2].crop((0, 0, 60, 300)), photographs[3].resize((3, 9))]
    return [PROCESSOR.resize(image) for image in images]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 5e-2)], ids=str
)
@torch.inference_mode()
def test_vectors_are_those_of_the_plain_tower(
    model: Siglip2VisionModel, resized: list[np.ndarray], dtype: torch.dtype, tolerance: float
) -> None:
    plain = model(PROCESSOR.collate(resized))
    patches, grids = PROCESSOR.pack(resized)
    lengths = [rows * columns for rows, columns in grids]
    assert len(set(lengths)) > 2

    fused = FusedSiglip2Transformer(model.vision_model, PROCESSOR, CPU, dtype)(patches, grids)

    torch.testing.assert_close(
        fused.pooler_output, plain.pooler_output, rtol=tolerance, atol=tolerance
    )
    for row, own in enumerate(torch.split(fused.last_hidden_state, lengths)):
        expected = plain.last_hidden_state[row, : lengths[row]]
        torch.testing.assert_close(own.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_an_image_gets_the_same_vector_alone_and_packed(
    model: Siglip2VisionModel, resized: list[np.ndarray], dtype: torch.dtype
) -> None:
    tower = FusedSiglip2Transformer(model.vision_model, PROCESSOR, CPU, dtype)
    together = tower(*PROCESSOR.pack(resized)).pooler_output
    for row, pixels in enumerate(resized):
        alone = tower(*PROCESSOR.pack([pixels])).pooler_output
        torch.testing.assert_close(alone[0], together[row], rtol=1e-2, atol=1e-2)
        if dtype == torch.float32:
            torch.testing.assert_close(alone[0], together[row])


@torch.inference_mode()
def test_attention_on_a_padded_batch_equals_attention_image_by_image() -> None:
    """Devices other than the CPU pad; their way is taken here on the CPU."""
    attend = PackedAttention(Packing([3, 7, 5], CPU), attend_together)
    qkv = torch.randn(15, 96, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(attend.attend_padded(qkv, 4), attend(qkv, 4))


def test_padding_can_be_undone() -> None:
    packing = Packing([2, 4, 1], CPU)
    packed = torch.arange(14.0).view(7, 2)

    padded = packing.pad(packed)

    assert padded.shape == (3, 4, 2)
    assert padded[0, 2:].abs().sum() == 0
    assert packing.mask.sum(1).tolist() == [2, 4, 1]
    assert torch.equal(packing.unpad(padded), packed)
