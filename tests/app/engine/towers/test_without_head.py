"""Towers without pooling head behind the engine: patch vectors as ever, and no pooled ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.engine.embedder import load_embedder
from app.engine.protocol import Embedder, SelfTestError
from model.modeling_siglip_vision_fused_encoder import FusedEncoderLayer
from tests.app.answers import cosines
from tests.app.reference_pipeline import ReferencePipeline
from tests.instruction_sets import needs_vnni
from tests.naflex_reference import reference_vectors, tiny_naflex_config, write_naflex_checkpoint
from tests.reference import (
    ReferenceCheckpoint,
    edit_vision_config,
    tiny_vision_config,
    write_checkpoint,
)

BARS = {"float32": 0.99999, "bfloat16": 0.999, "int8": 0.99}
DTYPES = ["float32", "bfloat16", pytest.param("int8", marks=needs_vnni)]


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> ReferenceCheckpoint:
    """A tiny checkpoint of fixed resolution."""
    config = tiny_vision_config(vision_use_head=False)
    return write_checkpoint(tmp_path_factory.mktemp("headless"), config)


def load(folder: Path, dtype: str = "float32", *, compiled: bool = False) -> Embedder:
    return load_embedder(str(folder), "cpu", dtype, 4, compiled=compiled)


def check_patches(
    embedder: Embedder, images: list[Image.Image], expected: list[np.ndarray], bar: float
) -> None:
    """Check that patch vectors are the reference's, by either way, and that there are no others."""
    pixels = [embedder.resize(image) for image in images]

    assert not embedder.info.pooled
    assert embedder.info.selftest_cosine is not None
    assert embedder.embed(pixels) == (None, None)
    assert embedder.embed_in_float32(pixels) == (None, None)
    for vectors in (embedder.embed(pixels, True), embedder.embed_in_float32(pixels, len(pixels))):
        assert vectors.pooled is None
        assert vectors.patches is not None
        for own, patches in zip(vectors.patches, expected, strict=True):
            assert own.shape == patches.shape
            assert cosines(own, patches).min() >= bar


def check_fixed(
    embedder: Embedder, checkpoint: ReferenceCheckpoint, photographs: list[Image.Image], bar: float
) -> None:
    reference = ReferencePipeline(checkpoint)
    for images in (photographs[:1], photographs):
        check_patches(embedder, images, [reference.patches(image) for image in images], bar)


@pytest.mark.parametrize("dtype", DTYPES)
def test_patch_vectors_are_the_references(
    headless: ReferenceCheckpoint, photographs: list[Image.Image], dtype: str
) -> None:
    check_fixed(load(headless.folder, dtype), headless, photographs, BARS[dtype])


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch's compiler
def test_patch_vectors_of_a_compiled_tower_are_the_references(
    photographs: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer and one size: what is compiled for others is the same."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("app.engine.towers.compiled.bucket_sizes", lambda largest: (largest,))
    config = tiny_vision_config(vision_use_head=False, num_hidden_layers=1)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config)
    embedder = load(checkpoint.folder, compiled=True)
    check_fixed(embedder, checkpoint, photographs, BARS["float32"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_patch_vectors_of_a_naflex_tower_are_the_references(
    photographs: list[Image.Image], tmp_path: Path, dtype: str
) -> None:
    checkpoint = write_naflex_checkpoint(tmp_path, tiny_naflex_config(vision_use_head=False))
    images = [*photographs[:3], photographs[1].crop((0, 0, 600, 30))]
    embedder = load(tmp_path, dtype)
    for some in (images[:1], images):
        expected = [patches for _, patches in reference_vectors(checkpoint, some)]
        check_patches(embedder, some, expected, BARS[dtype])


def test_a_head_that_the_config_turns_off_changes_no_patch_but_the_space(
    tiny_checkpoint: ReferenceCheckpoint, photographs: list[Image.Image], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_checkpoint.folder, tmp_path / "checkpoint")
    edit_vision_config(folder, vision_use_head=False)

    embedder = load(folder)

    check_fixed(embedder, tiny_checkpoint, photographs, BARS["float32"])
    assert embedder.info.space != load(tiny_checkpoint.folder).info.space


def test_a_fast_path_that_computes_something_else_stops_the_start(
    headless: ReferenceCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = FusedEncoderLayer.forward
    monkeypatch.setattr(FusedEncoderLayer, "forward", lambda self, *inputs: -forward(self, *inputs))
    with pytest.raises(SelfTestError, match="self-test failed"):
        load(headless.folder)
