"""A real NaFlex model behind the engine, against transformers, and the errors of a start."""

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image

from app.engine.embedder import StartError, load_embedder
from app.engine.towers.tower_embedder import ImageTowerEmbedder
from tests.app.answers import cosines
from tests.app.images import scene
from tests.naflex_reference import (
    NaflexCheckpoint,
    reference_vectors,
    write_naflex_checkpoint,
)
from tests.reference import edit_json

MAX_PATCHES = 24


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> NaflexCheckpoint:
    """A tiny NaFlex checkpoint; to be read only, so copy it to change it."""
    return write_naflex_checkpoint(
        tmp_path_factory.mktemp("tiny-naflex"), max_num_patches=MAX_PATCHES
    )


@pytest.fixture
def checkpoint(written: NaflexCheckpoint, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(copytree(written.folder, tmp_path / "checkpoint"))


def load(folder: Path | str, **options: object) -> ImageTowerEmbedder:
    """Load a checkpoint on the CPU in float32 unless told otherwise."""
    arguments: dict[str, object] = {"device": "cpu", "dtype": "float32", "max_batch_size": 4}
    embedder = load_embedder(str(folder), **(arguments | options))  # type: ignore[arg-type]
    assert isinstance(embedder, ImageTowerEmbedder)
    return embedder


def digest_of(folder: Path, **options: object) -> str:
    """Return the digest of a checkpoint's space."""
    return load(folder, **options).info.space.rpartition(":")[2]


def start_error(folder: Path | str, **options: object) -> str:
    """Return the line with which a start is refused."""
    with pytest.raises(StartError) as refused:
        load(folder, **options)
    return str(refused.value)


def mixed(photographs: list[Image.Image]) -> list[Image.Image]:
    """Images that are square, wide, tall and very wide."""
    square, wide, _, other = photographs
    return [square, wide, other.transpose(Image.Transpose.ROTATE_90), wide.crop((0, 0, 600, 30))]


@pytest.mark.parametrize(("dtype", "bar"), [("float32", 0.99999), ("bfloat16", 0.999)])
def test_vectors_of_a_mixed_batch_are_the_references(
    written: NaflexCheckpoint, photographs: list[Image.Image], dtype: str, bar: float
) -> None:
    embedder, images = load(written.folder, dtype=dtype), mixed(photographs)

    vectors = embedder.embed([embedder.resize(image) for image in images], patches=True)

    assert vectors.patches is not None
    assert len({len(own) for own in vectors.patches}) > 2
    for row, (pooled, patches) in enumerate(reference_vectors(written, images)):
        assert cosines(vectors.pooled[row], pooled) >= bar
        assert vectors.patches[row].shape == patches.shape
        assert vectors.patches[row].dtype == np.float32
        assert cosines(vectors.patches[row], patches).min() >= bar


def test_patches_are_left_out_when_not_asked_for(written: NaflexCheckpoint) -> None:
    embedder = load(written.folder)
    assert embedder.embed([embedder.resize(scene(0))]).patches is None


def test_images_of_one_size_may_come_as_one_array(written: NaflexCheckpoint) -> None:
    embedder = load(written.folder)
    pixels = [embedder.resize(scene(seed)) for seed in range(3)]

    listed, stacked = embedder.embed(pixels), embedder.embed(np.stack(pixels))

    np.testing.assert_allclose(listed.pooled, stacked.pooled, atol=1e-5)


def test_float32_on_request_gives_the_references_vectors(
    written: NaflexCheckpoint, photographs: list[Image.Image]
) -> None:
    embedder, images = load(written.folder, dtype="bfloat16"), mixed(photographs)

    vectors = embedder.embed_in_float32([embedder.resize(image) for image in images], len(images))

    assert vectors.patches is not None
    for row, (pooled, patches) in enumerate(reference_vectors(written, images)):
        np.testing.assert_allclose(vectors.pooled[row], pooled, atol=1e-4)
        np.testing.assert_allclose(vectors.patches[row], patches, atol=1e-4)


def test_the_model_describes_itself(written: NaflexCheckpoint) -> None:
    info = load(written.folder).info

    assert (info.dim, info.patch_size, info.max_patches) == (32, 8, MAX_PATCHES)
    assert info.image_size == 32  # 4 x 4 patches are the largest square of at most 24
    assert (info.device, info.dtype, info.pretrained) == ("cpu", "float32", True)
    assert info.max_batch_size == 4


def test_random_weights_of_a_naflex_shape_say_that_they_are() -> None:
    embedder = load("random:tiny-patch16-naflex")

    assert embedder.info.model == "random:tiny-patch16-naflex"
    assert not embedder.info.pretrained
    assert embedder.info.max_patches == 256


def test_an_unreachable_hub_leads_to_random_weights_of_the_same_kind() -> None:
    info = load("google/siglip2-tiny-patch16-naflex", fallback="random").info
    assert info.model == "random:tiny-patch16-naflex"


def test_number_of_patches_and_precision_are_part_of_the_space(
    written: NaflexCheckpoint, checkpoint: Path
) -> None:
    original, bfloat16 = digest_of(written.folder), digest_of(written.folder, dtype="bfloat16")
    assert digest_of(checkpoint) == original
    edit_json(checkpoint / "preprocessor_config.json", max_num_patches=MAX_PATCHES - 1)
    assert len({original, bfloat16, digest_of(checkpoint)}) == 3


def test_a_processor_of_other_patches_stops_the_start(checkpoint: Path) -> None:
    edit_json(checkpoint / "preprocessor_config.json", patch_size=16)
    assert "patch_size 16" in start_error(checkpoint)


def test_a_checkpoint_without_processor_gets_the_usual_patches(checkpoint: Path) -> None:
    (checkpoint / "preprocessor_config.json").unlink()
    info = load(checkpoint).info
    assert (info.patch_size, info.max_patches) == (8, 256)


@pytest.mark.parametrize(("option", "value"), [("dtype", "int8"), ("compiled", True)])
def test_what_a_naflex_model_cannot_do_stops_the_start(
    written: NaflexCheckpoint, option: str, value: object
) -> None:
    if value == "int8" and not torch.cpu.get_capabilities().get("avx512_vnni"):
        pytest.skip("int8 is refused for another reason here")
    assert "NaFlex" in start_error(written.folder, **{option: value})


def test_a_tower_that_computes_something_else_stops_the_start(
    written: NaflexCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.packing.Packing.split", lambda _, packed: (packed,))
    assert "self-test failed" in start_error(written.folder)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_keeps_no_page_of_its_checkpoint(checkpoint: Path, dtype: str) -> None:
    embedder = load(checkpoint, dtype=dtype)

    assert embedder.info.dim
    assert str(checkpoint) not in Path("/proc/self/maps").read_text()


def test_the_attention_that_is_told_is_that_of_the_tower(written: NaflexCheckpoint) -> None:
    """On the CPU packed images attend one by one, whatever suits those of fixed resolution."""
    assert load(written.folder).info.attention == "one_by_one"
