"""Vectors of the bulk command against transformers: photographs, pooled and every patch."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app.engine.embedder import load_embedder
from app.engine.protocol import Embedder
from tests.app.answers import cosines
from tests.app.bulk.bulk_runs import run_bulk
from tests.app.reference_pipeline import ReferencePipeline
from tests.naflex_reference import reference_vectors, write_naflex_checkpoint
from tests.reference import ReferenceCheckpoint

BAR = 0.99999


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, photographs: list[Image.Image]) -> list[Path]:
    """The photographs without loss, and a wide strip of one."""
    folder = tmp_path_factory.mktemp("photos")
    images = [*photographs, photographs[1].crop((0, 0, 600, 60))]
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return paths


def test_a_model_of_fixed_resolution_gives_the_references_vectors(
    tiny_checkpoint: ReferenceCheckpoint, files: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"
    reference = ReferencePipeline(tiny_checkpoint)

    assert run_bulk(files, output, load_float32(tiny_checkpoint.folder), kind="both") == 0

    for row, file in zip(pq.read_table(output).to_pylist(), files, strict=True):
        pooled, patches = reference.vectors(Image.open(file))
        assert cosines(row["embedding"], pooled) >= BAR
        assert cosines(row["patches"], patches).min() >= BAR
        assert row["grid"] == [4, 4]


def test_a_naflex_model_gives_the_references_vectors_and_each_image_its_grid(
    files: list[Path], tmp_path: Path
) -> None:
    checkpoint = write_naflex_checkpoint(tmp_path / "naflex")
    output = tmp_path / "out.parquet"

    assert run_bulk(files, output, load_float32(checkpoint.folder), kind="both") == 0

    rows = pq.read_table(output).to_pylist()
    expected = reference_vectors(checkpoint, [Image.open(file) for file in files])
    for row, (pooled, patches) in zip(rows, expected, strict=True):
        assert cosines(row["embedding"], pooled) >= BAR
        assert np.prod(row["grid"]) == len(patches)
        assert cosines(row["patches"], patches).min() >= BAR
    assert rows[-1]["grid"] == [2, 12]
    assert len({tuple(row["grid"]) for row in rows}) > 1


def load_float32(folder: Path) -> Embedder:
    return load_embedder(str(folder), device="cpu", dtype="float32")
