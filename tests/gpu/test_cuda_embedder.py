"""What a CUDA device computes, against float32 on the CPU: `pytest -m gpu` where there is one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

from app.engine.embedder import StartError, load_embedder
from app.engine.protocol import (
    DeviceOutOfMemoryError,
    Embedder,
    Pending,
    Vectors,
)
from model import Siglip2VisionConfig, SiglipVisionConfig
from tests.app.answers import cosines
from tests.app.images import scene
from tests.naflex_reference import write_naflex_checkpoint
from tests.reference import ReferenceCheckpoint, write_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    # torch's own, from modules that only its compiler imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    # advice of the compiler, which as an error would end compiling
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]

MAX_BATCH_SIZE = 8
LEAST_COSINES = {"float32": 0.99999, "bfloat16": 0.9999, "float16": 0.9999}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ReferenceCheckpoint:
    """All twelve layers of base, with lively weights: errors add up as in a real model."""
    config = transformers.SiglipVisionConfig(**asdict(SiglipVisionConfig()))
    return write_checkpoint(tmp_path_factory.mktemp("base"), config)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack(
        [np.asarray(scene(seed, (224, 224)).convert("RGB")) for seed in range(2 * MAX_BATCH_SIZE)]
    )


@pytest.fixture(scope="module")
def expected(base: ReferenceCheckpoint, pixels: np.ndarray) -> Vectors:
    vectors = load(base, "cpu", "float32").embed(pixels, patches=True)
    assert isinstance(vectors, Vectors)
    return vectors


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave this process what it has by now and half a GiB."""
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 2**29
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def load(
    checkpoint: ReferenceCheckpoint, device: str, dtype: str, *, compiled: bool = False
) -> Embedder:
    return load_embedder(str(checkpoint.folder), device, dtype, MAX_BATCH_SIZE, compiled=compiled)


def check_vectors(embedder: Embedder, pixels: np.ndarray, expected: Vectors) -> None:
    """Compare batches of all sizes, the uneven ones and one above the largest among them."""
    bar = LEAST_COSINES[embedder.info.dtype]
    assert expected.patches is not None
    for count in (1, 2, 3, 5, 7, 8, 11):
        vectors = embedder.embed(pixels[:count], patches=True)
        assert isinstance(vectors, Vectors)
        assert vectors.patches is not None
        assert vectors.pooled.dtype == vectors.patches.dtype == np.float32
        assert vectors.pooled.shape == expected.pooled[:count].shape
        for row in range(count):
            assert cosines(vectors.pooled[row], expected.pooled[row]) >= bar
            assert cosines(vectors.patches[row], expected.patches[row]).min() >= bar


def check_rows(rows: np.ndarray, wait: Pending, alone: list[Vectors]) -> None:
    """Compare a batch with the same images, each alone."""
    vectors = wait()
    for place, row in enumerate(rows):
        assert cosines(vectors.pooled[place], alone[row].pooled[0]) >= 0.9999
        if vectors.patches is not None:
            expected = alone[row].patches
            assert expected is not None
            assert cosines(vectors.patches[place], expected[0]).min() >= 0.9999


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_vectors_are_those_of_the_cpu(
    base: ReferenceCheckpoint, pixels: np.ndarray, expected: Vectors, dtype: str
) -> None:
    check_vectors(load(base, "cuda", dtype), pixels, expected)


@pytest.mark.timeout(1200)  # four graphs are compiled and recorded
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_compiled_tower_gives_the_same(
    base: ReferenceCheckpoint,
    pixels: np.ndarray,
    expected: Vectors,
    dtype: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    check_vectors(load(base, "cuda", dtype, compiled=True), pixels, expected)


def test_vectors_stay_as_they_are_when_the_next_batch_runs(
    base: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    """They come in pinned memory that is used again and again."""
    embedder = load(base, "cuda", "bfloat16")
    first = embedder.embed(pixels[:4]).pooled
    before = first.copy()

    for _ in range(5):
        embedder.embed(pixels[4:8], patches=True)

    assert np.array_equal(first, before)


def test_two_batches_in_flight_keep_their_vectors_apart(
    base: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    """Patches asked for now and then, sizes uneven: memory is used again in every way."""
    embedder = load(base, "cuda", "bfloat16")
    assert embedder.batches_in_flight == 2
    alone = [embedder.embed(image[None], patches=True) for image in pixels]
    rng, waiting = np.random.default_rng(0), []
    for number in range(100):
        rows = rng.choice(len(pixels), 1 + number % MAX_BATCH_SIZE)
        waiting.append((rows, embedder.begin(pixels[rows], len(rows) if number % 3 == 0 else 0)))
        if len(waiting) == 2:
            check_rows(*waiting.pop(0), alone)


def test_more_batches_may_be_in_flight_and_some_never_waited_for(
    base: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    embedder = load(base, "cuda", "bfloat16")
    expected = [embedder.embed(pixels[row : row + 2]).pooled for row in range(4)]
    waits = [embedder.begin(pixels[row : row + 2]) for row in range(4)]
    del waits[2]

    for row, wait in zip((0, 1, 3), waits, strict=True):
        assert cosines(wait().pooled, expected[row]).min() >= 0.99999


def test_a_batch_may_begin_in_another_thread_than_loaded_the_model(
    base: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    """As in the service, which loads in a thread that then ends."""
    with ThreadPoolExecutor(1) as loading:
        embedder = loading.submit(load, base, "cuda", "bfloat16").result()
    expected = embedder.embed(pixels[:4]).pooled
    with ThreadPoolExecutor(1) as inference:
        result = inference.submit(embedder.embed, pixels[:4]).result()

    assert cosines(result.pooled, expected).min() >= 0.99999


def test_rows_that_are_no_image_of_this_size_are_refused(
    base: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    """Assigned to pinned memory, a smaller image could be repeated to fill it."""
    embedder = load(base, "cuda", "bfloat16")

    with pytest.raises(ValueError, match="shape"):
        embedder.embed([pixels[0], pixels[1][:1]])
    with pytest.raises(TypeError):
        embedder.embed(pixels[:2].astype(np.float32))


def test_a_naflex_model_gives_the_vectors_of_the_cpu_with_two_batches_in_flight(
    tmp_path: Path,
) -> None:
    config = transformers.Siglip2VisionConfig(
        **asdict(Siglip2VisionConfig.from_shape("base-patch16-naflex"))
    )
    checkpoint = write_naflex_checkpoint(tmp_path, config, max_num_patches=256)
    cpu, cuda = (
        load_embedder(str(checkpoint.folder), device, dtype, MAX_BATCH_SIZE)
        for device, dtype in (("cpu", "float32"), ("cuda", "bfloat16"))
    )
    sizes = [(300, 500), (640, 200), (224, 224), (90, 700)]
    images = [cpu.resize(scene(seed, size).convert("RGB")) for seed, size in enumerate(sizes)]
    expected = cpu.embed(images, patches=True)
    waits = [cuda.begin(batch, len(batch)) for batch in (images, images[::-1])]

    assert expected.patches is not None
    for wait, rows in zip(waits, ([0, 1, 2, 3], [3, 2, 1, 0]), strict=True):
        vectors = wait()
        assert vectors.patches is not None
        for place, row in enumerate(rows):
            assert cosines(vectors.pooled[place], expected.pooled[row]) >= 0.999
            assert cosines(vectors.patches[place], expected.patches[row]).min() >= 0.999


@pytest.mark.parametrize("head_dim", [64, 72, 96])
def test_flash_attention_takes_the_head_sizes_of_siglip(head_dim: int) -> None:
    """64 is base and large, 72 so400m, 96 giant; as the fused tower calls it, scaled already."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("flash attention needs compute capability 8.0")
    qkv = torch.randn(2, 196, 3, 4, head_dim, device="cuda", dtype=torch.bfloat16)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    attend = partial(torch.nn.functional.scaled_dot_product_attention, scale=1.0)
    scaled = query * head_dim**-0.5

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        flash = attend(scaled, key, value)

    expected = attend(scaled.float(), key.float(), value.float())
    torch.testing.assert_close(flash.float(), expected, rtol=0, atol=2e-2)


def test_an_image_has_the_same_vector_at_any_place_of_a_full_batch(
    base: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    embedder = load(base, "cuda", "bfloat16")
    forwards = embedder.embed(pixels[:8]).pooled
    backwards = embedder.embed(pixels[:8][::-1]).pooled

    assert cosines(forwards, backwards[::-1]).min() >= 0.99999


@pytest.mark.usefixtures("little_memory")
def test_a_batch_too_large_for_the_device_says_so_and_a_small_one_still_works(
    base: ReferenceCheckpoint, pixels: np.ndarray
) -> None:
    embedder = load(base, "cuda", "bfloat16")

    with pytest.raises(DeviceOutOfMemoryError):
        embedder.embed(np.repeat(pixels, 128, axis=0), patches=True)

    assert np.isfinite(embedder.embed(pixels[:2]).pooled).all()


@pytest.mark.usefixtures("little_memory")
def test_a_largest_batch_beyond_the_device_stops_the_start(base: ReferenceCheckpoint) -> None:
    with pytest.raises(StartError, match="SIGLIP_MAX_BATCH_SIZE=1024"):
        load_embedder(str(base.folder), "cuda", "bfloat16", 1024)


@pytest.mark.usefixtures("little_memory")
def test_without_a_batch_size_the_largest_that_fits_is_taken(tmp_path: Path) -> None:
    """16 images of 1024 patches do not go through a layer of giant-opt in half a GiB."""
    wide = {"hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 16}
    config = asdict(SiglipVisionConfig.from_shape("base-patch16-512")) | wide
    checkpoint = write_checkpoint(
        tmp_path, transformers.SiglipVisionConfig(**config | {"num_hidden_layers": 1})
    )

    embedder = load_embedder(str(checkpoint.folder), "cuda", "bfloat16")

    assert embedder.info.max_batch_size < 16
    assert np.isfinite(embedder.embed(np.zeros((1, 512, 512, 3), np.uint8)).pooled).all()


def test_8_bit_layers_are_for_cpus(base: ReferenceCheckpoint) -> None:
    with pytest.raises(StartError, match="SIGLIP_DEVICE=cpu"):
        load(base, "cuda", "int8")


def test_a_tower_without_head_has_patch_vectors_only(tmp_path: Path, pixels: np.ndarray) -> None:
    config = transformers.SiglipVisionConfig(num_hidden_layers=1, vision_use_head=False)
    checkpoint = write_checkpoint(tmp_path, config)
    expected = load(checkpoint, "cpu", "float32").embed(pixels[:3], patches=True)

    vectors = load(checkpoint, "cuda", "float32").embed(pixels[:3], patches=True)

    assert vectors.pooled is None
    assert vectors.patches is not None
    assert expected.patches is not None
    for own, reference in zip(vectors.patches, expected.patches, strict=True):
        assert cosines(own, reference).min() >= LEAST_COSINES["float32"]
