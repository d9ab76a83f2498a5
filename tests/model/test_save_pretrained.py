"""Saved models and processors: read by both sides, and written whole or not at all."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from model import (
    CheckpointError,
    ConfigError,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from tests.naflex_reference import write_naflex_checkpoint
from tests.reference import ReferenceCheckpoint, relative_difference, write_checkpoint

TOLERANCE = 2e-5
Model = SiglipVisionModel | Siglip2VisionModel
Processor = SiglipImageProcessor | Siglip2ImageProcessor


def load_fixed(folder: Path) -> tuple[Model, Processor]:
    """Read a model of fixed resolution with its processor."""
    return SiglipVisionModel.from_pretrained(folder), SiglipImageProcessor.from_pretrained(folder)


def load_naflex(folder: Path) -> tuple[Model, Processor]:
    """Read a NaFlex model with its processor."""
    return Siglip2VisionModel.from_pretrained(folder), Siglip2ImageProcessor.from_pretrained(folder)


@pytest.mark.parametrize(
    ("write", "load"),
    [(write_checkpoint, load_fixed), (write_naflex_checkpoint, load_naflex)],
    ids=["fixed", "naflex"],
)
@torch.inference_mode()
def test_a_saved_folder_gives_the_same_vectors_on_both_sides(
    write: Any, load: Any, photographs: list[Image.Image], tmp_path: Path
) -> None:
    write(tmp_path / "written")
    model, processor = load(tmp_path / "written")
    folder = tmp_path / "new" / "saved"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    expected = model(processor(photographs)).pooler_output

    own_model, own_processor = load(folder)
    assert own_model.config == model.config
    assert own_processor == processor
    assert torch.equal(own_model(own_processor(photographs)).pooler_output, expected)

    theirs, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert type(theirs).__name__ == type(model).__name__
    inputs = AutoImageProcessor.from_pretrained(folder, use_fast=False)(
        photographs, return_tensors="pt"
    )
    assert relative_difference(theirs(**inputs).pooler_output, expected) <= TOLERANCE


@pytest.mark.parametrize(
    "processor",
    [
        SiglipImageProcessor(height=48, width=64, rescale_factor=1 / 128, image_std=(0.1, 0.2, 1)),
        Siglip2ImageProcessor(
            patch_size=14,
            max_num_patches=99,
            resample=Image.Resampling.BICUBIC,
            image_mean=(0.48, 0.45, 0.41),
        ),
    ],
    ids=["fixed", "naflex"],
)
def test_every_setting_of_a_processor_is_kept(
    processor: Processor, photographs: list[Image.Image], tmp_path: Path
) -> None:
    processor.save_pretrained(tmp_path)
    assert type(processor).from_pretrained(tmp_path) == processor
    theirs = AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    expected = theirs(photographs, return_tensors="pt")
    for name, tensor in processor(photographs).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        SiglipVisionConfig(image_size=384, patch_size=14, hidden_act="gelu", vision_use_head=False),
        Siglip2VisionConfig(num_patches=64, num_attention_heads=6, layer_norm_eps=1e-5),
    ],
)
def test_every_value_of_a_config_is_kept(config: SiglipVisionConfig | Siglip2VisionConfig) -> None:
    written = json.loads(json.dumps(config.to_dict()))
    assert type(config).from_dict(written) == config
    other = Siglip2VisionConfig if isinstance(config, SiglipVisionConfig) else SiglipVisionConfig
    with pytest.raises(ConfigError, match="VisionModel"):
        other.from_dict(written)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_kept(
    tiny_checkpoint: ReferenceCheckpoint, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = SiglipVisionModel.from_pretrained(tiny_checkpoint.folder, dtype=dtype)
    model.save_pretrained(tmp_path)
    assert SiglipVisionModel.from_pretrained(tmp_path).dtype == dtype
    assert AutoModel.from_pretrained(tmp_path).dtype == dtype


def test_a_model_can_be_saved_where_it_was_read(folder: Path) -> None:
    model = SiglipVisionModel.from_pretrained(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder)
    again = SiglipVisionModel.from_pretrained(folder).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(again[name], before[name])


def test_whoever_may_read_the_config_may_read_the_weights(folder: Path) -> None:
    SiglipVisionModel.from_pretrained(folder).save_pretrained(folder)
    SiglipImageProcessor.from_pretrained(folder).save_pretrained(folder)
    (folder / "touched").touch()
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write more, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_whole_changes_nothing(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = SiglipVisionModel.from_random(SiglipVisionConfig.from_shape("tiny-patch16-32"))
    with files_of_at_most(8192), pytest.raises(CheckpointError, match="cannot be written"):
        other.save_pretrained(folder)
    with files_of_at_most(16), pytest.raises(CheckpointError, match="File too large"):
        SiglipImageProcessor(height=32, width=32).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(CheckpointError, match=r"file.* cannot be written"):
        SiglipImageProcessor().save_pretrained(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_processor_that_would_not_be_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"resample": 2}}')
    with pytest.raises(CheckpointError, match=r"processor_config\.json.*remove it"):
        SiglipImageProcessor().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["processor_config.json"]


def test_a_sharded_checkpoint_is_replaced_whole(tmp_path: Path, folder: Path) -> None:
    """The single file goes before older shards, on both sides."""
    write_checkpoint(tmp_path / "sharded", max_shard_size="30KB", keys="flat", seed=1)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    model = SiglipVisionModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "sharded")
    expected = model.vision_model.embeddings.patch_embedding.weight
    own = SiglipVisionModel.from_pretrained(tmp_path / "sharded")
    theirs = AutoModel.from_pretrained(tmp_path / "sharded")
    assert torch.equal(own.vision_model.embeddings.patch_embedding.weight, expected)
    assert torch.equal(theirs.embeddings.patch_embedding.weight, expected)


def test_the_home_folder_can_be_written_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    SiglipImageProcessor().save_pretrained("~/saved")
    assert SiglipImageProcessor.from_pretrained("~/saved") == SiglipImageProcessor()
    assert (tmp_path / "saved" / "preprocessor_config.json").is_file()
