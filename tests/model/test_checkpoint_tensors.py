"""Checkpoints whose tensors do not fit their configuration: what does not is listed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import SiglipVisionModel as ReferenceModel

from model import SiglipVisionModel
from tests.model.refusal import refusal
from tests.reference import (
    KeySpelling,
    append_raw_tensor,
    edit_tensors,
    edit_vision_config,
    tiny_vision_config,
    write_checkpoint,
)

LAYER = "vision_model.encoder.layers.0."


def test_missing_tensors_are_listed(folder: Path) -> None:
    edit_tensors(folder, {LAYER + "mlp.fc1.weight": None, "vision_model.head.probe": None})
    message = refusal(folder)
    assert "missing encoder.layers.0.mlp.fc1.weight" in message
    assert "missing head.probe" in message
    assert message.count("missing") == 2


def test_unexpected_tensors_are_listed(folder: Path) -> None:
    edit_tensors(folder, {LAYER + "extra": torch.ones(1), "vision_model.x": torch.ones(1)})
    message = refusal(folder)
    assert "unexpected encoder.layers.0.extra" in message
    assert "unexpected x" in message
    assert message.count("unexpected") == 2


def test_misshaped_tensors_are_listed_with_both_shapes(folder: Path) -> None:
    edit_tensors(folder, {LAYER + "layer_norm1.bias": torch.ones(2, 16)})
    message = refusal(folder)
    assert "misshaped encoder.layers.0.layer_norm1.bias: [2, 16] instead of [32]" in message


def test_all_problems_are_listed_at_once(folder: Path) -> None:
    edit_tensors(
        folder,
        {
            LAYER + "layer_norm1.bias": None,
            LAYER + "layer_norm2.bias": torch.ones(31),
            LAYER + "layer_norm3.bias": torch.ones(32),
            LAYER + "mlp.fc1.bias": torch.ones(64).to(torch.float8_e4m3fn),
        },
    )
    message = refusal(folder)
    for problem in ("missing", "misshaped", "unexpected", "quantised"):
        assert message.count(problem) == 1


def test_of_many_problems_the_first_of_each_kind_are_listed_and_the_rest_counted(
    folder: Path,
) -> None:
    layers = "vision_model.encoder.layers."
    four = [f"{layers}0.mlp.fc{part}.{kind}" for part in "12" for kind in ("weight", "bias")]
    five = [f"{layers}1.{kind}.bias" for kind in ("layer_norm1", "layer_norm2", "mlp.fc1")]
    five += [f"{layers}1.self_attn.{name}_proj.bias" for name in "kq"]
    thousand = [f"{layers}0.extra{number:04}" for number in range(1000)]
    edit_tensors(folder, dict.fromkeys(four))
    edit_tensors(folder, {name: torch.ones(1) for name in five + thousand})
    message = refusal(folder)
    assert message.count("missing encoder") == 4
    assert message.count("misshaped encoder") == 5
    assert message.count("unexpected encoder") == 5
    assert "unexpected encoder.layers.0.extra0004; and 995 more unexpected" in message
    assert message.count(" more ") == 1
    assert len(message) < 1500


@pytest.mark.parametrize("keys", ["prefixed", "flat", "nested"])
def test_names_are_those_inside_the_tower_in_every_spelling(
    keys: KeySpelling, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path, keys=keys)
    prefix = {"prefixed": "vision_model.", "flat": "", "nested": "vision_tower.vision_model."}
    edit_tensors(tmp_path, {prefix[keys] + "post_layernorm.bias": None})
    assert refusal(tmp_path).endswith(": missing post_layernorm.bias")


def test_a_tower_with_more_layers_than_its_config_is_refused(folder: Path) -> None:
    edit_vision_config(folder, num_hidden_layers=1)
    assert "unexpected encoder.layers.1.mlp.fc1.bias" in refusal(folder)


def test_a_tower_with_fewer_layers_than_its_config_is_refused(folder: Path) -> None:
    edit_vision_config(folder, num_hidden_layers=3)
    assert "missing encoder.layers.2.mlp.fc1.bias" in refusal(folder)


def test_a_head_that_the_config_does_not_have_is_left_out_as_by_the_reference(
    folder: Path,
) -> None:
    edit_vision_config(folder, vision_use_head=False)
    assert ReferenceModel.from_pretrained(folder).state_dict().keys() == (
        SiglipVisionModel.from_pretrained(folder).vision_model.state_dict().keys()
    )


def test_a_head_that_only_the_config_has_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_vision_config(vision_use_head=False))
    edit_vision_config(tmp_path, vision_use_head=True)
    assert "missing head.layernorm.bias" in refusal(tmp_path)


def test_positions_of_another_image_size_are_refused(folder: Path) -> None:
    edit_vision_config(folder, image_size=48)
    assert "misshaped embeddings.position_embedding.weight: [16, 32] instead of [36, 32]" in (
        refusal(folder)
    )


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64]
)
def test_quantised_weights_are_refused_by_name_and_dtype(folder: Path, dtype: torch.dtype) -> None:
    edit_tensors(folder, {LAYER + "mlp.fc1.bias": torch.ones(64).to(dtype)})
    message = refusal(folder)
    assert "quantised encoder.layers.0.mlp.fc1.bias" in message
    assert "is not supported" in message


def test_a_dtype_that_torch_lacks_is_refused_by_name(folder: Path) -> None:
    key = LAYER + "mlp.fc1.bias"
    edit_tensors(folder, {key: None})
    append_raw_tensor(folder / "model.safetensors", key, "F6_E2M3", [64], bytes(48))
    assert "quantised encoder.layers.0.mlp.fc1.bias: F6_E2M3" in refusal(folder)


def test_two_vision_towers_are_refused_by_name(folder: Path) -> None:
    edit_tensors(folder, {"left.vision_model.head.probe": torch.ones(1, 1, 32)})
    assert "more than one vision tower: left.vision_model., vision_model." in refusal(folder)


def test_a_file_without_a_tower_is_refused(folder: Path) -> None:
    save_file({"text_model.x": torch.ones(1)}, folder / "model.safetensors")
    message = refusal(folder)
    assert "missing embeddings.patch_embedding.weight" in message
    assert "text_model" not in message
