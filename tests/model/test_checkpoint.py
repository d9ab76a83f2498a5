"""Checkpoints in a local folder: every spelling of names, files and configuration loads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from model import CheckpointError, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel
from model.checkpoint import open_checkpoint
from tests.reference import (
    KeySpelling,
    ReferenceCheckpoint,
    append_raw_tensor,
    build_vision_model,
    edit_tensors,
    save_checkpoint,
    tiny_vision_config,
    write_checkpoint,
)

ROOT = Path(__file__).parents[2]


def assert_same_weights(ours: SiglipVisionModel, reference: ReferenceCheckpoint) -> None:
    """Every tensor of the reference is in our tower, under the same name and bit for bit."""
    expected = reference.model.state_dict()
    loaded = ours.vision_model.state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.parametrize("keys", ["prefixed", "flat", "nested", "nested flat"])
@pytest.mark.parametrize("vision_use_head", [True, False])
def test_every_key_spelling_gives_the_same_weights(
    keys: KeySpelling, vision_use_head: bool, tmp_path: Path
) -> None:
    config = tiny_vision_config(vision_use_head=vision_use_head)
    reference = write_checkpoint(tmp_path, config, keys=keys)
    assert_same_weights(SiglipVisionModel.from_pretrained(tmp_path), reference)


def test_the_tower_of_a_language_model_loads_from_its_folder(tmp_path: Path) -> None:
    text = {"model_type": "gemma", "vocab_size": 16, "num_hidden_layers": 1, "head_dim": 4}
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    config = PaliGemmaConfig(
        vision_config=tiny_vision_config(vision_use_head=False).to_dict(),
        text_config=text | sizes | {"num_key_value_heads": 1},
        projection_dim=8,
        image_token_index=3,
    )
    whole = PaliGemmaForConditionalGeneration(config)
    whole.save_pretrained(tmp_path)
    reference = ReferenceCheckpoint(tmp_path, whole.model.vision_tower)
    assert_same_weights(SiglipVisionModel.from_pretrained(tmp_path), reference)


def test_what_else_a_larger_model_calls_vision_tower_is_left_alone(tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, keys="nested")
    edit_tensors(tmp_path, {"vision_tower.projection.weight": torch.ones(8)})
    assert_same_weights(SiglipVisionModel.from_pretrained(tmp_path), reference)


@pytest.mark.parametrize("keys", ["prefixed", "flat"])
def test_a_sharded_checkpoint_gives_the_same_weights(keys: KeySpelling, tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, keys=keys, max_shard_size="20KB")
    shards = list(tmp_path.glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    assert not (tmp_path / "model.safetensors").exists()
    assert_same_weights(SiglipVisionModel.from_pretrained(tmp_path), reference)


def test_flat_keys_may_stand_beside_a_text_tower(tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, keys="flat")
    edit_tensors(
        tmp_path,
        {
            "text_model.final_layer_norm.weight": torch.ones(8),
            "logit_scale": torch.ones(1),
            "logit_bias": torch.ones(1),
        },
    )
    assert_same_weights(SiglipVisionModel.from_pretrained(tmp_path), reference)


@pytest.mark.parametrize("folder", ["relative", "./relative"])
def test_a_relative_folder_is_found(
    folder: str,
    tiny_checkpoint: ReferenceCheckpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(tiny_checkpoint.folder, tmp_path / "relative")
    monkeypatch.chdir(tmp_path)
    assert_same_weights(SiglipVisionModel.from_pretrained(folder), tiny_checkpoint)


def test_a_folder_in_the_home_directory_is_found(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_checkpoint.folder, tmp_path / "tower")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_same_weights(SiglipVisionModel.from_pretrained("~/tower"), tiny_checkpoint)


def test_a_local_folder_has_no_revision(tiny_checkpoint: ReferenceCheckpoint) -> None:
    opened = open_checkpoint(tiny_checkpoint.folder)
    assert (opened.folder, opened.revision) == (tiny_checkpoint.folder, None)


def test_a_revision_of_a_local_folder_is_refused(tiny_checkpoint: ReferenceCheckpoint) -> None:
    message = f"{tiny_checkpoint.folder} is a folder; a revision is for hub models"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tiny_checkpoint.folder, "main")
    with pytest.raises(CheckpointError, match=message):
        SiglipImageProcessor.from_pretrained(tiny_checkpoint.folder, "main")


def test_a_sparse_config_is_completed_with_the_defaults(tmp_path: Path) -> None:
    reference = write_checkpoint(
        tmp_path, tiny_vision_config(layer_norm_eps=1e-6), sparse_config=True
    )
    written = json.loads((tmp_path / "config.json").read_bytes())
    assert "layer_norm_eps" not in written["vision_config"]
    model = SiglipVisionModel.from_pretrained(tmp_path)
    assert model.config == SiglipVisionConfig.from_dict(reference.model.config.to_dict())
    assert_same_weights(model, reference)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_the_dtype_of_the_file(dtype: torch.dtype, tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, dtype=dtype)
    model = SiglipVisionModel.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert_same_weights(model, reference)


def test_a_single_file_is_preferred_to_an_index(
    folder: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")
    assert_same_weights(SiglipVisionModel.from_pretrained(folder), tiny_checkpoint)


def test_pickles_beside_safetensors_are_left_alone(
    folder: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert_same_weights(SiglipVisionModel.from_pretrained(folder), tiny_checkpoint)


@pytest.mark.parametrize(
    ("keys", "position_ids"),
    [
        ("prefixed", "vision_model.embeddings.position_ids"),
        ("prefixed", "text_model.embeddings.position_ids"),
        ("flat", "embeddings.position_ids"),
        ("nested", "vision_tower.vision_model.embeddings.position_ids"),
    ],
)
def test_position_ids_are_ignored(keys: KeySpelling, position_ids: str, tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, keys=keys)
    edit_tensors(tmp_path, {position_ids: torch.arange(16).unsqueeze(0)})
    assert_same_weights(SiglipVisionModel.from_pretrained(tmp_path), reference)


def test_text_tensors_of_any_shape_load(folder: Path, tiny_checkpoint: ReferenceCheckpoint) -> None:
    key = "text_model.embeddings.token_embedding.weight"
    edit_tensors(folder, {key: torch.zeros(2, 1, 3, dtype=torch.int8)})
    assert_same_weights(SiglipVisionModel.from_pretrained(folder), tiny_checkpoint)


def test_text_tensors_are_never_read(folder: Path, tiny_checkpoint: ReferenceCheckpoint) -> None:
    weights = folder / "model.safetensors"
    append_raw_tensor(weights, "text_model.unreadable", "F6_E2M3", [8], bytes(6))
    with safe_open(weights, framework="pt") as file, pytest.raises(SafetensorError):
        file.get_tensor("text_model.unreadable")  # to read it at all would be an error
    assert_same_weights(SiglipVisionModel.from_pretrained(folder), tiny_checkpoint)


def find_mapped_file(address: int) -> str:
    """Return the file that this process has mapped at an address, or ''."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, _, *file = line.split(maxsplit=5)
        start, end = (int(bound, 16) for bound in span.split("-"))
        if start <= address < end:
            return "".join(file)
    return ""


def test_weights_stay_mapped_from_the_file(tiny_checkpoint: ReferenceCheckpoint) -> None:
    model = SiglipVisionModel.from_pretrained(tiny_checkpoint.folder)
    mapped = {find_mapped_file(parameter.data_ptr()) for parameter in model.parameters()}
    assert mapped == {str(tiny_checkpoint.folder / "model.safetensors")}


def test_changing_loaded_weights_leaves_the_file_alone(
    folder: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    model = SiglipVisionModel.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert_same_weights(SiglipVisionModel.from_pretrained(folder), tiny_checkpoint)


def test_loading_takes_nothing_from_the_random_number_generator(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    before = torch.get_rng_state()
    SiglipVisionModel.from_pretrained(tiny_checkpoint.folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_does_not_import_torchs_compiler(tiny_checkpoint: ReferenceCheckpoint) -> None:
    """It takes a second, and initialising a model without memory would."""
    script = (
        "import sys\n"
        "from model import SiglipVisionModel\n"
        "SiglipVisionModel.from_pretrained(sys.argv[1])\n"
        "print('torch._dynamo' in sys.modules, 'sympy' in sys.modules)\n"
    )
    printed = subprocess.check_output(
        [sys.executable, "-c", script, tiny_checkpoint.folder], cwd=ROOT, text=True
    )
    assert printed == "False False\n"


def test_a_model_saved_under_its_own_names_loads_again(tmp_path: Path) -> None:
    model = SiglipVisionModel.from_random(
        SiglipVisionConfig.from_dict(tiny_vision_config().to_dict())
    )
    save_checkpoint(build_vision_model(tiny_vision_config()), tmp_path, keys="flat")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = SiglipVisionModel.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == load_file(tmp_path / "model.safetensors").keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
