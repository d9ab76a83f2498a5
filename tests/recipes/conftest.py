"""Photographs, a tiny checkpoint of two towers, what `embed` makes of them, and a service."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app.settings import Settings
from tests.app.service_server import ServiceServer, run_service
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "recipes.md"
PACKAGES = ("duckdb", "lancedb", "qdrant_client", "sklearn")
if not all(map(find_spec, PACKAGES)):
    collect_ignore_glob = ["test_*.py"]  # the extra `recipes` is not installed

LABELS = ("astronaut", "coffee", "cat", "rocket")
CROPS = 6  # of each photograph


@dataclass(frozen=True)
class Album:
    """A folder with `photographs/` in it, and the checkpoint that embeds them."""

    folder: Path
    checkpoint: Path

    def embed(self, *arguments: str) -> None:
        """Run `siglip-embed embed` in the folder, where one file is no image."""
        run = subprocess.run(
            [sys.executable, "-m", "app", "embed", "--quiet", *arguments],
            cwd=self.folder,
            env=os.environ
            | {
                "PYTHONPATH": str(REPOSITORY),
                "SIGLIP_MODEL": str(self.checkpoint),
                "SIGLIP_DTYPE": "float32",
            },
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert run.returncode == 1, run.stderr


@dataclass(frozen=True)
class Embedded:
    """Paths, and their vectors as numpy reads them, (images, dim)."""

    paths: list[str]
    vectors: np.ndarray

    def rank(self, query: list[float]) -> list[tuple[float, str]]:
        """Return cosine and path of all images, the nearest first."""
        lengths = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(query)
        cosines = self.vectors @ np.array(query) / lengths
        return sorted(zip(cosines.tolist(), self.paths, strict=True), reverse=True)


@pytest.fixture(scope="session")
def album(photographs: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Album:
    checkpoint = tmp_path_factory.mktemp("both-towers")
    write_siglip_tokenizer(checkpoint)
    write_full_checkpoint(checkpoint, vocab_size=400)
    folder = tmp_path_factory.mktemp("album")
    for label, photograph in zip(LABELS, photographs, strict=True):
        write_crops(photograph, folder / "photographs" / label)
    cat = folder / "photographs" / "cat"
    (cat / "copy.jpg").write_bytes((cat / "0.jpg").read_bytes())
    photographs[3].save(folder / "photographs" / "rocket" / "again.webp", quality=80)
    (cat / "broken.jpg").write_bytes(b"no image")
    album = Album(folder, checkpoint)
    for arguments in re.findall(r"^siglip-embed embed (.*)$", DOCUMENT.read_text(), re.MULTILINE):
        album.embed(*arguments.split())
    return album


def write_crops(photograph: Image.Image, folder: Path) -> None:
    """Write the photograph, and crops of it that lack more and more of its edges."""
    folder.mkdir(parents=True)
    for number in range(CROPS):
        across, down = photograph.width * number // 40, photograph.height * number // 40
        box = (across, down, photograph.width - across, photograph.height - down)
        photograph.crop(box).save(folder / f"{number}.jpg", quality=92)


@pytest.fixture(scope="session")
def embedded(album: Album) -> Embedded:
    rows = pq.read_table(album.folder / "vectors.parquet").to_pylist()
    there = [row for row in rows if row["error"] is None]
    assert len(there) == len(rows) - 1
    return Embedded([row["path"] for row in there], np.array([row["embedding"] for row in there]))


@pytest.fixture(scope="session")
def service(album: Album) -> Iterator[ServiceServer]:
    with run_service(Settings(model=str(album.checkpoint), dtype="float32")) as running:
        running.wait_for_status("ok")
        yield running
