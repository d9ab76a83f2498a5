"""The fused tower computes what the plain tower computes, for every published width."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from model import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel
from model.fused_attention import Attend, attend_one_by_one, attend_together, pick_attention
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


def fuse(
    model: SiglipVisionModel, dtype: torch.dtype, processor: SiglipImageProcessor | None = None
) -> FusedVisionTransformer:
    processor = processor or SiglipImageProcessor()
    return FusedVisionTransformer(model.vision_model, processor, CPU, dtype)


def resized(photographs: list[Image.Image], side: int) -> torch.Tensor:
    processor = SiglipImageProcessor(height=side, width=side)
    return torch.from_numpy(np.stack([processor.resize(image) for image in photographs]))


@pytest.fixture(scope="module")
def pixels(photographs: list[Image.Image]) -> torch.Tensor:
    return resized(photographs, 224)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_equals_the_plain_tower(shape: str, photographs: list[Image.Image]) -> None:
    model = two_layers_of(shape)
    pixels = resized(photographs[:2], model.config.image_size)
    expected = model(SiglipImageProcessor().normalize(pixels))
    result = fuse(model, torch.float32)(pixels)
    assert relative_difference(result.last_hidden_state, expected.last_hidden_state) <= 1e-5
    assert relative_difference(result.pooler_output, expected.pooler_output) <= 1e-5


def test_bfloat16_of_a_deep_tower_stays_within_cosine_0_9999(pixels: torch.Tensor) -> None:
    model = lively_model()  # all 12 layers of base
    expected = model(SiglipImageProcessor().normalize(pixels))
    result = fuse(model, torch.bfloat16)(pixels)
    assert least_cosine(result.pooler_output, expected.pooler_output) >= 0.9999
    assert least_cosine(result.last_hidden_state, expected.last_hidden_state) >= 0.9999


@pytest.mark.parametrize("scores_at_once", [1, 2 * 16**2, 2**22])
def test_both_ways_to_attend_agree_with_heads_in_any_groups(
    scores_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five heads of 16 patches: one at a time; two, two and one; all."""
    qkv = torch.randn(2, 16, 3 * 80, generator=torch.Generator().manual_seed(0))
    expected = attend_together(qkv, 5)
    monkeypatch.setattr("model.fused_attention._SCORES_AT_ONCE", scores_at_once)

    assert relative_difference(attend_one_by_one(qkv, 5), expected) <= 1e-5


@pytest.mark.parametrize(
    ("tiles", "bf16", "aten", "attend"),
    [
        (True, True, "AVX512", attend_together),
        (True, True, "AVX2", attend_one_by_one),
        (False, True, "AVX512", attend_one_by_one),
        (False, False, "AVX512", attend_together),
    ],
)
def test_the_processor_decides_how_bfloat16_attends(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, bf16: bool, aten: str, attend: Attend
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: aten)

    assert pick_attention(CPU, torch.bfloat16) is attend
    assert pick_attention(CPU, torch.bfloat16, compilable=True) is attend_together
    assert pick_attention(CPU, torch.float32) is attend_together
    assert pick_attention(torch.device("cuda"), torch.bfloat16) is attend_together


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("values_between", [3072, 7 * 3072, 10**9])
def test_feeding_forward_in_blocks_of_rows_changes_nothing(
    pixels: torch.Tensor, dtype: torch.dtype, values_between: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row for each core at a time; 7, which divide no image; all."""
    fused = fuse(lively_model(num_hidden_layers=1), dtype)
    expected = fused(pixels[:3]).last_hidden_state
    monkeypatch.setattr(
        "model.modeling_siglip_vision_fused_encoder._VALUES_BETWEEN", values_between
    )

    result = fused(pixels[:3]).last_hidden_state

    assert least_cosine(result, expected.float()) > 0.9999


def test_bfloat16_as_another_device_computes_it_stays_as_near(pixels: torch.Tensor) -> None:
    """Without the CPU's own layers and attention: the arithmetic of the CUDA path."""
    model = lively_model()
    expected = model(SiglipImageProcessor().normalize(pixels[:2]))
    fused = FusedVisionTransformer(
        model.vision_model, SiglipImageProcessor(), CPU, torch.bfloat16, compilable=True
    )
    with sdpa_kernel(
        SDPBackend.MATH
    ):  # the CPU's flash attention asks for AVX-512 where it sees AMX
        result = fused(pixels[:2])
    assert {type(layer.fc1) for layer in fused.encoder.layers} == {PlainLinear}
    assert least_cosine(result.pooler_output, expected.pooler_output) >= 0.9999
    assert least_cosine(result.last_hidden_state, expected.last_hidden_state) >= 0.9999


def test_any_rescaling_mean_and_deviation_goes_into_the_weights(pixels: torch.Tensor) -> None:
    processor = SiglipImageProcessor(
        rescale_factor=1 / 200, image_mean=(0.48, 0.45, 0.4), image_std=(0.27, 0.26, 0.28)
    )
    model = two_layers_of("base-patch16-224")
    expected = model(processor.normalize(pixels))
    result = fuse(model, torch.float32, processor)(pixels)
    assert relative_difference(result.last_hidden_state, expected.last_hidden_state) <= 1e-5


def test_pixels_beyond_the_last_whole_patch_are_not_seen() -> None:
    model = lively_model(hidden_size=64, num_attention_heads=4, image_size=38, patch_size=8)
    pixels = torch.randint(0, 256, (1, 38, 38, 3), dtype=torch.uint8)
    expected = model(SiglipImageProcessor().normalize(pixels))
    result = fuse(model, torch.float32)(pixels)
    assert relative_difference(result.last_hidden_state, expected.last_hidden_state) <= 1e-5


def test_an_image_alone_and_in_a_batch_get_the_same_vector(pixels: torch.Tensor) -> None:
    fused = fuse(two_layers_of("base-patch16-224"), torch.float32)
    together = fused(pixels).pooler_output
    alone = torch.cat([fused(image[None]).pooler_output for image in pixels])
    assert relative_difference(alone, together) <= 1e-5


def test_embedding_leaves_the_pixels_as_they_were(pixels: torch.Tensor) -> None:
    before = pixels.clone()
    fuse(two_layers_of("base-patch16-224"), torch.float32)(pixels)
    assert torch.equal(pixels, before)


def test_tower_without_head_pools_nothing(pixels: torch.Tensor) -> None:
    config = SiglipVisionConfig(vision_use_head=False, num_hidden_layers=1)
    model = SiglipVisionModel(config).eval().requires_grad_(False)
    assert fuse(model, torch.float32)(pixels[:1]).pooler_output is None


def test_head_with_a_peaked_softmax_equals_the_plain_head() -> None:
    model = lively_model(hidden_size=72, num_attention_heads=8, num_hidden_layers=1)
    head = model.vision_model.head
    assert head is not None
    head.probe.mul_(20)
    hidden_states = torch.randn(3, 50, 72, generator=torch.Generator().manual_seed(0))
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


def test_a_consumed_tower_gives_up_its_layers_for_the_same_vectors(pixels: torch.Tensor) -> None:
    model = two_layers_of("base-patch16-224")
    kept = fuse(model, torch.float32)(pixels[:1])
    consumed = FusedVisionTransformer(
        model.vision_model, SiglipImageProcessor(), CPU, torch.float32, consume=True
    )
    assert not len(model.vision_model.encoder.layers)
    given_up = consumed(pixels[:1])
    assert relative_difference(given_up.last_hidden_state, kept.last_hidden_state) <= 1e-5


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_a_layer_that_is_dropped_takes_its_part_of_the_file_along(tmp_path: Path) -> None:
    model = SiglipVisionModel.from_pretrained(write_checkpoint(tmp_path).folder)
    before = Path("/proc/self/maps").read_text().count(str(tmp_path))
    model.vision_model.encoder.layers.pop(0)
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) < before


def test_loading_leaves_the_plain_tower_as_it_was(tmp_path: Path) -> None:
    model = SiglipVisionModel.from_pretrained(write_checkpoint(tmp_path).folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fuse(model, torch.bfloat16)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
