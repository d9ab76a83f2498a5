"""The fused NaFlex tower against the plain one, on photographs of several shapes."""

import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from model import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel
from model.fused_attention import PackedAttention, attend_together
from model.fused_packed_attention import AttentionByLength, PaddedAttention, pick_packed_attention
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


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
@torch.inference_mode()
def test_attention_on_a_padded_batch_equals_attention_image_by_image(
    dtype: torch.dtype, tolerance: float
) -> None:
    """Devices other than the CPU pad; their way is taken here on the CPU."""
    packing = Packing([3, 17, 5], CPU)
    qkv = torch.randn(25, 96, generator=torch.Generator().manual_seed(0)).to(dtype)
    padded = PaddedAttention(packing)

    for layer in (qkv, qkv.flip(0)):
        expected = PackedAttention(packing, attend_together)(layer, 4)
        torch.testing.assert_close(padded(layer, 4), expected, rtol=tolerance, atol=tolerance)


def test_the_mask_is_made_once_and_needs_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch copies one whose rows begin at odd places, in every layer."""
    masks: list[torch.Tensor] = []

    def note(qkv: torch.Tensor, _num_heads: int, mask: torch.Tensor) -> torch.Tensor:
        masks.append(mask)
        return qkv[..., :32]

    monkeypatch.setattr("model.fused_packed_attention.attend_together", note)
    attend = PaddedAttention(Packing([3, 17, 5], CPU))
    for _ in range(2):
        attend(torch.zeros(25, 96, dtype=torch.bfloat16), 4)

    assert masks[0] is masks[1]
    assert masks[0].shape == (3, 1, 1, 17)
    assert masks[0].stride() == (32, 32, 32, 1)
    assert masks[0].isneginf().logical_not().sum((1, 2, 3)).tolist() == [3, 17, 5]


def test_images_begin_where_those_before_them_end() -> None:
    starts = Packing([3, 7, 5], CPU).starts()
    assert starts.tolist() == [0, 3, 10, 15]
    assert starts.dtype == torch.int32


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.float32), ((9, 0), torch.float32)],
)
def test_what_flash_attention_does_not_compute_is_padded(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    picked = pick_packed_attention(torch.device("cuda"), dtype, 64, attend_together)
    assert picked is PaddedAttention


def test_other_devices_pad_and_the_cpu_does_not() -> None:
    for device in ("mps", "meta"):
        picked = pick_packed_attention(torch.device(device), torch.float16, 64, attend_together)
        assert picked is PaddedAttention
    own = pick_packed_attention(CPU, torch.float32, 64, attend_together)(Packing([1], CPU))
    assert isinstance(own, PackedAttention)


def test_attention_by_length_keeps_patches_and_width() -> None:
    """As far as a device without data tells: arguments and shapes are what PyTorch takes."""
    packing = Packing([3, 7, 5], torch.device("meta"))
    qkv = torch.empty(15, 96, dtype=torch.bfloat16, device="meta")
    assert AttentionByLength(packing)(qkv, 4).shape == (15, 32)


def test_padding_can_be_undone() -> None:
    packing = Packing([2, 4, 1], CPU)
    packed = torch.arange(14.0).view(7, 2)

    padded = packing.pad(packed)

    assert padded.shape == (3, 4, 2)
    assert padded[0, 2:].abs().sum() == 0
    assert packing.mask.sum(1).tolist() == [2, 4, 1]
    assert torch.equal(packing.unpad(padded), packed)


def test_a_tower_that_nobody_uses_is_gone_at_once(model: Siglip2VisionModel) -> None:
    """And not when the collector finds a cycle: it has gigabytes."""
    fused = FusedSiglip2Transformer(model.vision_model, PROCESSOR, CPU, torch.float32)
    gone = weakref.ref(fused.embeddings)
    gc.disable()
    try:
        del fused
        assert gone() is None
    finally:
        gc.enable()
