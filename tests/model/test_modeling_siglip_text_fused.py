"""The fused text tower computes what the plain tower computes, for every published width."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model import SiglipTextConfig, SiglipTextModel
from model.checkpoint import open_checkpoint
from model.fused_attention import attend_from_last, attend_together
from model.int8_linear import Int8Linear
from model.modeling_siglip_text_fused import FusedTextTransformer
from model.modeling_siglip_text_model import open_token_table
from tests.instruction_sets import needs_vnni
from tests.model.test_checkpoint import find_mapped_file
from tests.reference import draw_lively_weights, relative_difference
from tests.text_reference import draw_input_ids, write_full_checkpoint, write_text_checkpoint

CPU = torch.device("cpu")
SIZES = {
    "base": {},
    "large": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
    "so400m": {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16},
}


def lively_model(**config: int) -> SiglipTextModel:
    """A text model of base's width and two layers, unless told otherwise."""
    small: dict[str, Any] = {"vocab_size": 500, "num_hidden_layers": 2}
    model = SiglipTextModel(SiglipTextConfig(**small | config)).eval()
    draw_lively_weights(model.text_model)
    return model.requires_grad_(False)


def fuse(
    model: SiglipTextModel, dtype: torch.dtype, *, consume: bool = False
) -> FusedTextTransformer:
    return FusedTextTransformer(model.text_model, CPU, dtype, consume=consume)


def least_cosine(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.cosine_similarity(result, expected, dim=-1).min())


@pytest.mark.parametrize("positions", [16, 64])
@pytest.mark.parametrize("size", SIZES)
def test_float32_equals_the_plain_tower(size: str, positions: int) -> None:
    model = lively_model(**SIZES[size], max_position_embeddings=positions, projection_size=80)
    ids = draw_input_ids(model.config)
    result = fuse(model, torch.float32)(ids).pooler_output
    assert result.shape == (3, 80)
    assert relative_difference(result, model(ids).pooler_output) <= 1e-5


def test_bfloat16_of_a_deep_tower_stays_within_cosine_0_9999() -> None:
    model = lively_model(num_hidden_layers=12)
    ids = draw_input_ids(model.config, texts=4)
    result = fuse(model, torch.bfloat16)(ids).pooler_output
    assert result.dtype == torch.float32
    assert least_cosine(result, model(ids).pooler_output) >= 0.9999


@needs_vnni
def test_int8_stays_near_and_a_text_does_not_depend_on_its_neighbours() -> None:
    model = lively_model()
    ids = draw_input_ids(model.config, texts=4)
    fused = fuse(model, torch.int8)
    result = fused(ids).pooler_output
    assert {type(layer.fc1) for layer in fused.encoder.layers} == {Int8Linear}
    assert least_cosine(result, model(ids).pooler_output) >= 0.999
    alone = torch.cat([fused(text[None]).pooler_output for text in ids])
    assert least_cosine(alone, result) >= 0.99999


def test_a_text_alone_and_in_a_batch_gets_the_same_vector() -> None:
    model = lively_model()
    ids = draw_input_ids(model.config, texts=5)
    fused = fuse(model, torch.float32)
    alone = torch.cat([fused(text[None]).pooler_output for text in ids])
    assert relative_difference(alone, fused(ids).pooler_output) <= 1e-5


def test_attention_from_the_last_token_is_the_last_of_all() -> None:
    qkv = torch.randn(2, 7, 3 * 24, generator=torch.Generator().manual_seed(0))
    together = attend_together(qkv, 4)
    torch.testing.assert_close(attend_from_last(qkv, 4), together[:, -1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_token_table_stays_in_its_file(dtype: torch.dtype, tmp_path: Path) -> None:
    write_full_checkpoint(tmp_path)
    model = SiglipTextModel.from_pretrained(tmp_path)
    fused = fuse(model, dtype, consume=True)
    table = fused.embeddings.token_embedding
    assert table is not None
    assert table.dtype == torch.float32
    assert find_mapped_file(table.data_ptr()) == str(tmp_path / "model.safetensors")
    others = [buffer for buffer in fused.buffers() if buffer is not table]
    others += list(fused.parameters())
    assert {find_mapped_file(weight.data_ptr()) for weight in others} <= {"", "[heap]"}


@pytest.mark.parametrize("written", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("max_shard_size", ["50GB", "20KB"])
@pytest.mark.parametrize("keys", ["flat", "prefixed"])
def test_a_table_that_is_read_by_rows_gives_the_same_vectors(
    keys: Any, max_shard_size: str, written: torch.dtype, tmp_path: Path
) -> None:
    write_text_checkpoint(tmp_path, keys=keys, max_shard_size=max_shard_size, written=written)
    table = open_token_table(open_checkpoint(tmp_path))
    model = SiglipTextModel.from_pretrained(tmp_path)
    ids = draw_input_ids(model.config)
    mapped = fuse(model, torch.float32)
    rows = FusedTextTransformer(model.text_model, CPU, torch.float32, token_table=table)
    assert rows.embeddings.token_embedding is None
    assert torch.equal(rows(ids).pooler_output, mapped(ids).pooler_output)
    with pytest.raises(ValueError, match="the token table has 0 to 98"):
        rows(ids + 96)


def test_a_consumed_tower_gives_up_its_layers_for_the_same_vectors() -> None:
    model = lively_model()
    ids = draw_input_ids(model.config)
    kept = fuse(model, torch.float32)(ids).pooler_output
    consumed = fuse(model, torch.float32, consume=True)
    assert not len(model.text_model.encoder.layers)
    assert relative_difference(consumed(ids).pooler_output, kept) <= 1e-6


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.full((1, 64), 500), "the token table has 0 to 499"),
        (torch.zeros(1, 65, dtype=torch.int64), "65 tokens long"),
        (torch.zeros(1, 64), "must be integers"),
    ],
)
def test_what_are_no_ids_of_the_model_is_refused_in_words(ids: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(lively_model(), torch.float32)(ids)
