"""A compiled tower gives what a plain one gives, at every batch size, and says why it cannot."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engine.embedder import StartError, load_embedder
from app.engine.protocol import ModelInfo
from app.engine.towers.compiled import CompiledRunner
from app.engine.towers.fixed_family import collate_images
from app.engine.towers.tower_embedder import ImageTowerEmbedder
from tests.reference import ReferenceCheckpoint, tiny_vision_config, write_checkpoint

MAX_BATCH_SIZE = 4

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
# torch's own, from modules that only its compiler imports
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ReferenceCheckpoint:
    """One layer: what is compiled for a second one is the same."""
    return write_checkpoint(
        tmp_path_factory.mktemp("one-layer"), tiny_vision_config(num_hidden_layers=1)
    )


def load(checkpoint: ReferenceCheckpoint, *, compiled: bool) -> ImageTowerEmbedder:
    embedder = load_embedder(
        str(checkpoint.folder), "cpu", "float32", MAX_BATCH_SIZE, compiled=compiled
    )
    assert isinstance(embedder, ImageTowerEmbedder)
    return embedder


def without_cosine(info: ModelInfo) -> ModelInfo:
    """Leave out the self-test's cosine, whose last digits are rounding."""
    assert info.selftest_cosine == pytest.approx(1, abs=1e-5)
    return replace(info, selftest_cosine=None)


@pytest.fixture(scope="module")
def compiled(
    checkpoint: ReferenceCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ImageTowerEmbedder]:
    """Compiled for one size, which is quicker than for all, and pads more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("app.engine.towers.compiled.bucket_sizes", lambda largest: (largest,))
        yield load(checkpoint, compiled=True)


@pytest.fixture
def pixels() -> np.ndarray:
    shape = 2 * MAX_BATCH_SIZE + 1, 32, 32, 3
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@needs_compiler
def test_every_batch_size_gives_the_vectors_of_the_plain_tower(
    checkpoint: ReferenceCheckpoint, compiled: ImageTowerEmbedder, pixels: np.ndarray
) -> None:
    plain = load(checkpoint, compiled=False)

    assert without_cosine(compiled.info) == without_cosine(plain.info)
    for count in range(1, len(pixels) + 1):
        expected = plain.embed(pixels[:count], patches=True)
        result = compiled.embed(pixels[:count], patches=True)
        np.testing.assert_allclose(result.pooled, expected.pooled, atol=1e-5)
        np.testing.assert_allclose(result.patches, expected.patches, atol=1e-5)  # type: ignore[arg-type]


@needs_compiler
def test_padding_is_no_part_of_any_answer(compiled: ImageTowerEmbedder, pixels: np.ndarray) -> None:
    padded = compiled.embed(pixels[:3], patches=True)
    full = compiled.embed(pixels[:4], patches=True)

    assert len(padded.pooled) == 3
    np.testing.assert_allclose(padded.pooled, full.pooled[:3], atol=1e-5)
    assert padded.patches is not None
    assert full.patches is not None
    np.testing.assert_allclose(padded.patches, full.patches[:3], atol=1e-5)


def test_a_cache_folder_that_cannot_be_made_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "cache"))

    with pytest.raises(StartError, match="TORCHINDUCTOR_CACHE_DIR"):
        CompiledRunner(torch.nn.Identity(), collate_images, torch.device("cpu"))


def test_8_bit_layers_are_not_compiled(checkpoint: ReferenceCheckpoint) -> None:
    if not torch.cpu.get_capabilities().get("avx512_vnni"):
        pytest.skip("this processor has no avx512_vnni")

    with pytest.raises(StartError, match="SIGLIP_DTYPE=int8"):
        load_embedder(str(checkpoint.folder), "cpu", "int8", compiled=True)


def test_a_missing_compiler_stops_the_start_with_one_line(
    checkpoint: ReferenceCheckpoint, tmp_path: Path
) -> None:
    environment = os.environ | {
        "CXX": "no-such-compiler",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "SIGLIP_MODEL": str(checkpoint.folder),
        "SIGLIP_COMPILE": "on",
        "SIGLIP_PORT": "0",
    }
    service = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    log = service.stdout + service.stderr
    assert service.returncode == 3
    (reason,) = [line for line in log.splitlines() if "cannot start" in line]
    assert "SIGLIP_COMPILE=on" in reason
    assert "C++ compiler" in reason
    assert "Traceback" not in log
