"""Text towers of checkpoints: every spelling loads, nothing but what is needed is read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model import (
    CheckpointError,
    Siglip2Model,
    Siglip2TextModel,
    SiglipModel,
    SiglipTextModel,
    SiglipVisionModel,
)
from model.checkpoint import open_checkpoint
from model.modeling_siglip_model import read_logit_parameters
from model.modeling_siglip_text_model import has_text_tower
from tests.model.test_checkpoint import find_mapped_file
from tests.reference import (
    ReferenceCheckpoint,
    append_raw_tensor,
    edit_json,
    edit_tensors,
    write_checkpoint,
)
from tests.text_reference import Generation, write_full_checkpoint, write_text_checkpoint

TABLE = "text_model.embeddings.token_embedding.weight"
TEXT_CLASSES: dict[Generation, Any] = {"siglip": SiglipTextModel, "siglip2": Siglip2TextModel}
FULL_CLASSES: dict[Generation, Any] = {"siglip": SiglipModel, "siglip2": Siglip2Model}


def assert_same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Every tensor is in both, under the same name and bit for bit."""
    loaded, expected = ours.state_dict(), theirs.state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.parametrize("generation", ["siglip", "siglip2"])
@pytest.mark.parametrize("keys", ["flat", "prefixed"])
def test_a_tower_alone_loads_in_both_spellings(
    generation: Generation, keys: Any, tmp_path: Path
) -> None:
    written = write_text_checkpoint(tmp_path, generation, keys=keys)
    loaded = TEXT_CLASSES[generation].from_pretrained(tmp_path)
    assert_same_weights(loaded.text_model, written.model)


@pytest.mark.parametrize("generation", ["siglip", "siglip2"])
@pytest.mark.parametrize("max_shard_size", ["50GB", "20KB"])
def test_a_whole_model_loads_and_its_towers_alone(
    generation: Generation, max_shard_size: str, tmp_path: Path
) -> None:
    written = write_full_checkpoint(tmp_path, generation, max_shard_size=max_shard_size)
    assert len(list(tmp_path.glob("*.safetensors"))) > (max_shard_size == "20KB")
    assert_same_weights(FULL_CLASSES[generation].from_pretrained(tmp_path), written.model)
    text = TEXT_CLASSES[generation].from_pretrained(tmp_path)
    assert_same_weights(text.text_model, written.model.text_model)


def test_a_sharded_tower_alone_loads(tmp_path: Path) -> None:
    written = write_text_checkpoint(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_weights(SiglipTextModel.from_pretrained(tmp_path).text_model, written.model)


def test_a_sparse_config_is_completed_with_the_defaults(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "num_hidden_layers": 1,
        "num_attention_heads": 12,
        "projection_size": 768,
    }
    base: dict[str, Any] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "max_position_embeddings": 64,
    }
    vision = {"hidden_size": 768, "num_hidden_layers": 1}
    written = write_full_checkpoint(
        tmp_path, sparse_config=True, vision=vision, vocab_size=99, **sizes, **base
    )
    assert "hidden_size" not in (tmp_path / "config.json").read_text().split("vision_config")[0]
    assert_same_weights(SiglipModel.from_pretrained(tmp_path), written.model)


def test_a_flat_vision_tower_may_stand_beside_a_text_tower(
    tmp_path: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    written = write_text_checkpoint(tmp_path, keys="prefixed")
    edit_tensors(tmp_path, tiny_checkpoint.model.state_dict())
    assert_same_weights(SiglipTextModel.from_pretrained(tmp_path).text_model, written.model)


def test_vision_tensors_are_never_read(tmp_path: Path) -> None:
    written = write_full_checkpoint(tmp_path)
    append_raw_tensor(tmp_path / "model.safetensors", "vision_model.x", "F6_E2M3", [8], bytes(6))
    loaded = SiglipTextModel.from_pretrained(tmp_path)
    assert_same_weights(loaded.text_model, written.model.text_model)


def test_position_ids_are_ignored(tmp_path: Path) -> None:
    written = write_full_checkpoint(tmp_path)
    edit_tensors(tmp_path, {"text_model.embeddings.position_ids": torch.arange(16)[None]})
    assert_same_weights(SiglipModel.from_pretrained(tmp_path), written.model)


def test_the_token_table_stays_mapped_from_the_file(tmp_path: Path) -> None:
    write_full_checkpoint(tmp_path)
    for model in (SiglipTextModel, SiglipModel):
        table = model.from_pretrained(tmp_path).text_model.embeddings.token_embedding.weight
        assert find_mapped_file(table.data_ptr()) == str(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({TABLE: None}, "missing embeddings.token_embedding.weight"),
        ({"text_model.extra": torch.ones(1)}, "unexpected extra"),
        ({"final_layer_norm.x": torch.ones(24)}, "unexpected final_layer_norm.x"),
        ({TABLE: torch.ones(98, 24)}, r"misshaped .*token_embedding.weight: \[98, 24\]"),
        ({"text_model.head.bias": torch.ones(32, dtype=torch.int8)}, "quantised head.bias: I8"),
        ({"x.text_model.head.bias": torch.ones(32)}, "more than one text tower: text_model., x."),
        ({"logit_scale": None}, "missing logit_scale"),
        ({"logit_bias": torch.ones(2)}, r"misshaped logit_bias: \[2\] instead of \[1\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    changes: dict[str, torch.Tensor | None], problem: str, tmp_path: Path
) -> None:
    folder = write_full_checkpoint(tmp_path).folder
    edit_tensors(folder, changes)
    with pytest.raises(CheckpointError, match=problem):
        SiglipModel.from_pretrained(folder)
    SiglipVisionModel.from_pretrained(folder)


def test_a_checkpoint_says_what_it_has(tmp_path: Path) -> None:
    both = open_checkpoint(write_full_checkpoint(tmp_path / "both").folder)
    text = open_checkpoint(write_text_checkpoint(tmp_path / "text").folder)
    flat = open_checkpoint(write_checkpoint(tmp_path / "flat", keys="flat").folder)
    assert [has_text_tower(opened) for opened in (both, text, flat)] == [True, True, False]
    assert read_logit_parameters(text) is None
    assert read_logit_parameters(flat) is None
    model = SiglipModel.from_pretrained(both.folder)
    logits = read_logit_parameters(both)
    assert logits == (model.logit_scale.item(), model.logit_bias.item())


def test_a_vision_tower_under_a_whole_config_has_no_texts(tmp_path: Path) -> None:
    """As stripped copies are, to save the download."""
    whole = write_full_checkpoint(tmp_path)
    vision = whole.model.vision_model.state_dict()
    save_file(
        {f"vision_model.{name}": tensor for name, tensor in vision.items()},
        tmp_path / "model.safetensors",
    )
    assert not has_text_tower(open_checkpoint(tmp_path))
    SiglipVisionModel.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing embeddings\.position_embedding"):
        SiglipTextModel.from_pretrained(tmp_path)


def test_the_texts_of_another_architecture_are_none(tmp_path: Path) -> None:
    opened = open_checkpoint(write_full_checkpoint(tmp_path).folder)
    edit_json(tmp_path / "config.json", text_config={"model_type": "clip_text_model"})
    assert has_text_tower(opened)
    assert not has_text_tower(open_checkpoint(tmp_path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_keep_the_dtype_of_the_file(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = write_full_checkpoint(tmp_path)
    whole.model.to(dtype).save_pretrained(tmp_path)
    assert SiglipTextModel.from_pretrained(tmp_path).dtype == dtype
    assert_same_weights(SiglipModel.from_pretrained(tmp_path), whole.model)
