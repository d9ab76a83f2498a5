"""What a CUDA device computes, against float32 on the CPU: `pytest -m gpu` where there is one."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from app.engine.embedder import StartError, load_embedder
from app.engine.protocol import DeviceOutOfMemoryError, Embedder, Vectors
from model import SiglipVisionConfig
from tests.app.answers import cosines
from tests.app.images import scene
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


def test_8_bit_layers_are_for_cpus(base: ReferenceCheckpoint) -> None:
    with pytest.raises(StartError, match="SIGLIP_DEVICE=cpu"):
        load(base, "cuda", "int8")
