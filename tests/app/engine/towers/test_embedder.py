"""The real model behind the engine, against transformers, and the errors of a start."""

import hashlib
import re
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image

from app.engine.embedder import StartError, load_embedder
from app.engine.protocol import DeviceOutOfMemoryError, UInt8Array
from app.engine.towers.fixed_family import FIXED
from app.engine.towers.loading import load_plain_model
from app.engine.towers.reference import embed_plainly, load_float32_tower
from app.engine.towers.tower_embedder import ImageTowerEmbedder
from model import fused_attention
from model.fused_attention import Attend
from model.modeling_siglip_vision_fused_encoder import FusedEncoderLayer
from tests.app.answers import cosines
from tests.app.images import scene
from tests.app.reference_pipeline import ReferencePipeline
from tests.hub_server import HubServer
from tests.instruction_sets import needs_vnni
from tests.reference import (
    ReferenceCheckpoint,
    edit_json,
    save_checkpoint,
    write_checkpoint,
)

UNREACHABLE = "google/siglip-tiny-patch8-32"


def load(folder: Path | str, **options: object) -> ImageTowerEmbedder:
    """Load a checkpoint on the CPU in float32 unless told otherwise."""
    arguments: dict[str, object] = {"device": "cpu", "dtype": "float32", "max_batch_size": 4}
    embedder = load_embedder(str(folder), **(arguments | options))  # type: ignore[arg-type]
    assert isinstance(embedder, ImageTowerEmbedder)
    return embedder


def space_of(folder: Path | str, **options: object) -> tuple[str, str]:
    """Return name and digest of a checkpoint's space."""
    name, _, digest = load(folder, **options).info.space.rpartition(":")
    return name, digest


def start_error(model: Path | str, **options: object) -> str:
    """Return the one line with which a start is refused."""
    with pytest.raises(StartError) as refused:
        load(model, **options)
    message = str(refused.value)
    assert message
    assert "\n" not in message
    return message


@pytest.fixture
def checkpoint(tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may change."""
    return Path(copytree(tiny_checkpoint.folder, tmp_path / "checkpoint"))


def draw_pixels(embedder: ImageTowerEmbedder, count: int) -> UInt8Array:
    """Draw images at the model's input size: (count, side, side, 3)."""
    side = embedder.info.image_size
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def embed_all(
    embedder: ImageTowerEmbedder, images: list[Image.Image]
) -> tuple[np.ndarray, np.ndarray]:
    """Return pooled and patch vectors of images in one batch."""
    vectors = embedder.embed(np.stack([embedder.resize(image) for image in images]), patches=True)
    assert vectors.patches is not None
    return vectors.pooled, vectors.patches


def test_float32_vectors_are_those_of_the_reference(
    tiny_checkpoint: ReferenceCheckpoint,
    tiny_reference: ReferencePipeline,
    photographs: list[Image.Image],
) -> None:
    pooled, patches = embed_all(load(tiny_checkpoint.folder), photographs)

    for index, photograph in enumerate(photographs):
        reference_pooled, reference_patches = tiny_reference.vectors(photograph)
        np.testing.assert_allclose(pooled[index], reference_pooled, rtol=0, atol=1e-4)
        np.testing.assert_allclose(patches[index], reference_patches, rtol=0, atol=1e-4)
        assert cosines(pooled[index], reference_pooled) >= 0.99999
        assert cosines(patches[index], reference_patches).min() >= 0.99999


def test_bfloat16_vectors_are_near_those_of_the_reference(
    tiny_checkpoint: ReferenceCheckpoint,
    tiny_reference: ReferencePipeline,
    photographs: list[Image.Image],
) -> None:
    embedder = load(tiny_checkpoint.folder, dtype="bfloat16")

    pooled, patches = embed_all(embedder, photographs)

    assert embedder.info.dtype == "bfloat16"
    assert pooled.dtype == patches.dtype == np.float32
    for index, photograph in enumerate(photographs):
        assert cosines(pooled[index], tiny_reference.pooled(photograph)) >= 0.999


@needs_vnni
def test_int8_vectors_are_near_those_of_the_reference_and_in_a_space_of_their_own(
    tiny_checkpoint: ReferenceCheckpoint,
    tiny_reference: ReferencePipeline,
    photographs: list[Image.Image],
) -> None:
    embedder = load(tiny_checkpoint.folder, dtype="int8")

    pooled, patches = embed_all(embedder, photographs)

    assert embedder.info.dtype == "int8"
    for index, photograph in enumerate(photographs):
        reference_pooled, reference_patches = tiny_reference.vectors(photograph)
        assert cosines(pooled[index], reference_pooled) >= 0.99
        assert cosines(patches[index], reference_patches).min() >= 0.99
    others = {load(tiny_checkpoint.folder, dtype=d).info.space for d in ("float32", "bfloat16")}
    assert embedder.info.space not in others


def test_int8_without_the_instructions_for_it_stops_the_start(
    tiny_checkpoint: ReferenceCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})

    assert "avx512_vnni" in start_error(tiny_checkpoint.folder, dtype="int8")


def test_patches_are_left_out_when_not_asked_for(tiny_checkpoint: ReferenceCheckpoint) -> None:
    embedder = load(tiny_checkpoint.folder)
    pixels = np.stack([embedder.resize(scene(seed)) for seed in range(3)])

    without, with_patches = embedder.embed(pixels), embedder.embed(pixels, patches=True)

    assert without.patches is None
    assert with_patches.patches is not None
    assert with_patches.patches.shape == (3, 16, 32)
    np.testing.assert_allclose(without.pooled, with_patches.pooled, atol=1e-5)


def test_the_model_describes_itself(tiny_checkpoint: ReferenceCheckpoint) -> None:
    info = load(tiny_checkpoint.folder).info

    assert (info.dim, info.image_size, info.patch_size, info.max_patches) == (32, 32, 8, 16)
    assert (info.device, info.dtype) == ("cpu", "float32")
    assert info.model == tiny_checkpoint.folder.name
    assert info.revision is None
    assert info.pretrained
    assert info.max_batch_size == 4


def test_without_a_batch_size_there_is_one_for_the_device(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    assert load(tiny_checkpoint.folder, max_batch_size=None).info.max_batch_size == 8


def test_batches_that_have_begun_give_what_embedding_gives(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    embedder = load(tiny_checkpoint.folder)
    pixels = np.stack([embedder.resize(scene(seed)) for seed in range(3)])
    assert embedder.batches_in_flight == 1

    waits = [embedder.begin(pixels[:2], 2), embedder.begin(list(pixels[1:]))]

    expected = embedder.embed(pixels, patches=True)
    first, second = (wait() for wait in waits)
    np.testing.assert_allclose(first.pooled, expected.pooled[:2], atol=1e-5)
    np.testing.assert_allclose(second.pooled, expected.pooled[1:], atol=1e-5)
    assert first.patches is not None
    assert second.patches is None


def test_lack_of_memory_is_told_by_whoever_waits(
    tiny_checkpoint: ReferenceCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = load(tiny_checkpoint.folder)
    wait = embedder.begin(np.zeros((1, 32, 32, 3), np.uint8))

    def take_too_much(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(FusedEncoderLayer, "forward", take_too_much)

    with pytest.raises(DeviceOutOfMemoryError):
        wait()


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_the_dtype_of_the_device(
    tiny_checkpoint: ReferenceCheckpoint, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})

    info = load(tiny_checkpoint.folder, dtype="auto").info

    assert info.dtype == ("bfloat16" if native else "float32")


def test_float32_is_computed_with_packed_weights(tiny_checkpoint: ReferenceCheckpoint) -> None:
    """Without them all vectors are right, and only a benchmark would tell."""
    embedder = load(tiny_checkpoint.folder, dtype="float32")
    image = draw_pixels(embedder, 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        embedder.embed(image)  # one image is computed in this thread

    calls = [event.name for event in profile.events()].count("mkldnn::_linear_pointwise")
    layers = tiny_checkpoint.model.config.num_hidden_layers
    assert calls == 4 * layers + 1, "attention in and out, both of the MLP; and the patches"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_neighbours_change_no_bit_of_a_vector(
    tiny_checkpoint: ReferenceCheckpoint, dtype: str, count: int
) -> None:
    embedder = load(tiny_checkpoint.folder, dtype=dtype, max_batch_size=8)
    pixels = draw_pixels(embedder, 2 * count)
    batch, others = pixels[:count], pixels[count:].copy()
    expected = embedder.embed(batch, patches=True)
    for place in range(count):
        others[place] = batch[place]
        result = embedder.embed(others, patches=True)
        others[place] = pixels[count + place]

        np.testing.assert_array_equal(result.pooled[place], expected.pooled[place])
        assert result.patches is not None
        assert expected.patches is not None
        np.testing.assert_array_equal(result.patches[place], expected.patches[place])


def test_a_hub_model_keeps_its_name_and_commit(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    commit = hub.publish("owner/siglip-tiny", tiny_checkpoint.folder)

    info = load("owner/siglip-tiny").info

    assert (info.model, info.revision) == ("owner/siglip-tiny", commit)
    assert info.space.startswith("siglip-tiny:")


def test_random_weights_of_a_shape_say_that_they_are() -> None:
    first, again = load("random:tiny-patch8-32"), load("random:tiny-patch8-32")
    image = np.stack([first.resize(scene(0))])

    assert not first.info.pretrained
    assert first.info.model == "random:tiny-patch8-32"
    assert first.info.space == again.info.space
    np.testing.assert_allclose(first.embed(image).pooled, again.embed(image).pooled, atol=1e-5)


def test_no_folder_stops_the_start(tmp_path: Path) -> None:
    assert "no folder" in start_error(tmp_path / "none")


def test_a_folder_without_a_checkpoint_stops_the_start(tmp_path: Path) -> None:
    assert "config.json" in start_error(tmp_path)


def test_an_unreachable_hub_stops_the_start_and_names_the_ways_out() -> None:
    message = start_error(UNREACHABLE)

    assert "hub cannot be reached" in message
    assert "local folder" in message
    assert "random:" in message


def test_an_unreachable_hub_leads_to_random_weights_only_when_asked_for() -> None:
    info = load(UNREACHABLE, fallback="random").info

    assert info.model == "random:tiny-patch8-32"
    assert not info.pretrained


def test_an_unreachable_hub_leads_to_the_model_that_is_named_instead(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    info = load(UNREACHABLE, revision="main", fallback=str(tiny_checkpoint.folder)).info

    assert info.model == tiny_checkpoint.folder.name
    assert info.space == load(tiny_checkpoint.folder).info.space
    assert info.pretrained


def test_a_fallback_that_is_no_model_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in start_error(UNREACHABLE, fallback=str(tmp_path / "none"))


def test_what_is_served_instead_has_the_digests_that_were_asked_for(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    error = start_error(UNREACHABLE, sha256=["0" * 64], fallback=str(tiny_checkpoint.folder))

    assert "SHA-256" in error


def test_a_hub_that_has_no_such_model_never_leads_to_random_weights(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    hub.publish("owner/another", tiny_checkpoint.folder)

    assert UNREACHABLE in start_error(UNREACHABLE, fallback="random")


def test_a_missing_folder_never_leads_to_random_weights(tmp_path: Path) -> None:
    start_error(tmp_path / "none", fallback="random")


def test_an_unknown_shape_stops_the_start() -> None:
    assert "unknown shape" in start_error("random:enormous-patch16-224")


def test_a_revision_of_what_no_hub_has_stops_the_start(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    for model in (str(tiny_checkpoint.folder), "random:tiny-patch16-32"):
        message = start_error(model, revision="main")
        assert model in message
        assert "a revision is for hub models" in message


def test_an_unreachable_model_of_unknown_shape_stops_the_start() -> None:
    assert "someone/strange-model" in start_error("someone/strange-model", fallback="random")


def test_a_processor_of_another_size_stops_the_start(checkpoint: Path) -> None:
    edit_json(checkpoint / "preprocessor_config.json", size={"height": 64, "width": 64})

    message = start_error(checkpoint)

    assert "64x64" in message
    assert "32" in message


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_there_is_not_stops_the_start(
    tiny_checkpoint: ReferenceCheckpoint, device: str
) -> None:
    assert device in start_error(tiny_checkpoint.folder, device=device)


def test_weights_that_do_not_fit_stop_the_start(checkpoint: Path) -> None:
    config = (checkpoint / "config.json").read_text()
    (checkpoint / "config.json").write_text(
        config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )

    assert "layers.2" in start_error(checkpoint)


def test_a_damaged_weight_file_stops_the_start(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(
        b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all"
    )

    assert "safetensors" in start_error(checkpoint)


def test_a_checkpoint_without_processor_is_resized_like_siglip(
    checkpoint: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    (checkpoint / "preprocessor_config.json").unlink()

    assert np.array_equal(
        load(checkpoint).resize(scene(0)), load(tiny_checkpoint.folder).resize(scene(0))
    )


def test_a_processor_config_that_only_names_a_class_is_no_processor(
    checkpoint: Path, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    (checkpoint / "preprocessor_config.json").unlink()
    (checkpoint / "processor_config.json").write_text('{"processor_class": "SiglipProcessor"}')

    assert np.array_equal(
        load(checkpoint).resize(scene(0)), load(tiny_checkpoint.folder).resize(scene(0))
    )


def test_the_space_names_the_folder_and_is_the_same_wherever_that_lies(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path
) -> None:
    name = tiny_checkpoint.folder.name
    moved = copytree(tiny_checkpoint.folder, tmp_path / name)

    assert space_of(moved) == space_of(tiny_checkpoint.folder)
    assert space_of(moved)[0] == name


def test_a_folder_renamed_changes_the_name_of_the_space_and_not_its_digest(
    tiny_checkpoint: ReferenceCheckpoint, checkpoint: Path
) -> None:
    original, renamed = space_of(tiny_checkpoint.folder), space_of(checkpoint)

    assert renamed[1] == original[1]
    assert renamed[0] == "checkpoint" != original[0]


def test_the_spelling_of_a_checkpoint_is_no_part_of_its_space(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path
) -> None:
    save_checkpoint(tiny_checkpoint.model, tmp_path / "flat", keys="flat")
    save_checkpoint(tiny_checkpoint.model, tmp_path / "sharded", max_shard_size="20KB")

    digest = space_of(tiny_checkpoint.folder)[1]

    assert space_of(tmp_path / "flat")[1] == digest
    assert space_of(tmp_path / "sharded")[1] == digest


def test_batch_size_is_no_part_of_the_space(tiny_checkpoint: ReferenceCheckpoint) -> None:
    folder = tiny_checkpoint.folder

    assert space_of(folder, max_batch_size=1) == space_of(folder, max_batch_size=8)


def test_fast_decoding_resizes_otherwise_in_a_space_of_its_own(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    exact, fast = (load(tiny_checkpoint.folder, decode=decode) for decode in ("exact", "fast"))
    image = scene(0, (120, 90))
    off = np.abs(exact.resize(image).astype(int) - fast.resize(image).astype(int))

    assert exact.info.space != fast.info.space
    assert 0 < off.max() <= 2


def test_precision_resize_and_weights_are_part_of_the_space(
    tiny_checkpoint: ReferenceCheckpoint, checkpoint: Path, tmp_path: Path
) -> None:
    original = space_of(tiny_checkpoint.folder)[1]
    bfloat16 = space_of(tiny_checkpoint.folder, dtype="bfloat16")[1]
    edit_json(checkpoint / "preprocessor_config.json", resample=2)
    bilinear = space_of(checkpoint)[1]
    write_checkpoint(tmp_path / "other-weights", seed=1)
    other_weights = space_of(tmp_path / "other-weights")[1]

    assert len({original, bfloat16, bilinear, other_weights}) == 4


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", pytest.param("int8", marks=needs_vnni)])
def test_a_loaded_model_keeps_no_page_of_its_checkpoint(checkpoint: Path, dtype: str) -> None:
    """Otherwise the weights would be in memory twice."""
    embedder = load(checkpoint, dtype=dtype)

    assert embedder.info.dim
    assert str(checkpoint) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_images_shared_among_threads_keep_their_order_and_their_vectors(
    checkpoint: Path, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.towers.device._FEWEST_PARALLEL_WEIGHTS", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        embedder = load(checkpoint)
        pictures = [scene(index, (40, 50)) for index in range(images)]
        together = embed_all(embedder, pictures)
        alone = [embed_all(embedder, [picture]) for picture in pictures]
    finally:
        torch.set_num_threads(threads)

    for part in range(2):
        each = np.concatenate([vectors[part] for vectors in alone])
        np.testing.assert_allclose(together[part], each, atol=2e-5)


def test_weights_of_another_digest_end_the_start(checkpoint: Path) -> None:
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()

    assert load(checkpoint, sha256=[digest]).info.pretrained
    message = start_error(checkpoint, sha256=["0" * 64])
    assert digest in message
    assert "no weight file" in start_error("random:tiny-patch16-32", sha256=[digest])


def test_a_fast_path_that_computes_something_else_is_never_served(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FusedEncoderLayer.forward

    def forget_the_residual(
        layer: FusedEncoderLayer, hidden_states: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        return original(layer, hidden_states, attend) - hidden_states

    assert (load(checkpoint).info.selftest_cosine or 0) > 0.99999
    monkeypatch.setattr(FusedEncoderLayer, "forward", forget_the_residual)

    assert "self-test failed" in start_error(checkpoint)


def test_a_fast_path_that_confuses_the_images_of_a_batch_is_never_served(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fused_attention.attend_one_by_one

    def attend_to_the_first(qkv: torch.Tensor, num_heads: int) -> torch.Tensor:
        return original(qkv[:1].expand_as(qkv), num_heads)

    for way in ("attend_one_by_one", "attend_together"):  # the processor decides
        monkeypatch.setattr(fused_attention, way, attend_to_the_first)

    assert "self-test failed" in start_error(checkpoint, dtype="bfloat16")


@pytest.mark.parametrize("name", ["modèle", "模型", "a b", "a:b", "line\nbreak"])
def test_a_folder_of_any_name_gives_a_space_that_fits_into_a_header(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    renamed = checkpoint.rename(tmp_path / name)

    assert re.fullmatch(r"[A-Za-z0-9._-]+:[0-9a-f]{12}", load(renamed).info.space)


def test_overflows_of_a_device_are_computed_there_as_the_plain_model_does(
    checkpoint: Path,
) -> None:
    """What takes a device takes the CPU here; more images than go at once."""
    loaded = load_plain_model(str(checkpoint), None, ())
    pixels = draw_pixels(load(checkpoint), 11)
    expected = embed_plainly(loaded.model, loaded.processor, pixels)

    embed = load_float32_tower(loaded.load_again, FIXED, loaded.processor, torch.device("cpu"))

    vectors = embed(pixels)
    np.testing.assert_allclose(vectors.pooled, expected.pooled, atol=1e-5)
    np.testing.assert_allclose(vectors.patches, expected.patches, atol=1e-5)  # type: ignore[arg-type] # there are some
