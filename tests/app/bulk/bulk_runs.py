"""Runs of the bulk command inside the test's process, and its outputs read with plain libraries."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from app.bulk.images import Images
from app.bulk.pipeline import images_in_flight, texts_in_flight
from app.bulk.row import OutputKind
from app.bulk.run import BulkRequest, embed_source
from app.bulk.source import VectorOptions
from app.bulk.texts import Texts
from app.engine.protocol import NO_TEXTS, Embedder, NoTexts, TextEmbedder, Towers
from app.engine.service import EmbeddingService
from app.main import build_service
from app.settings import Settings
from tests.app.fake_embedder import FakeEmbedder
from tests.app.images import Colour, plain_png

RAW = VectorOptions(normalize=False)


def run_bulk(
    paths: Path | list[Path],
    output: Path,
    embedder: Embedder | None = None,
    *,
    load: Callable[[], Embedder] | None = None,
    kind: OutputKind = "pooled",
    normalize: bool = False,
    resume: bool = False,
    max_image_bytes: int = 2**20,
) -> int:
    """Embed files, by default with the fake embedder, and return the exit code."""
    settings = Settings(max_image_bytes=max_image_bytes)

    def build(loaded: Towers) -> EmbeddingService:
        return build_service(loaded.images, settings, images_in_flight(loaded.images.info))

    def load_towers() -> Towers:
        return Towers(load() if load else embedder or FakeEmbedder(), NO_TEXTS)

    files = paths if isinstance(paths, list) else [paths]
    source = Images(
        files, frozenset(settings.formats), max_image_bytes, VectorOptions(kind, normalize)
    )
    return embed_source(BulkRequest(source, output, resume), load_towers, build)


def write_colours(folder: Path, reds: range) -> list[Path]:
    """Write images of one colour each, by which the fake's vectors tell them apart."""
    folder.mkdir(exist_ok=True)
    return [write_colour(folder / f"{red:03}.png", (red, 0, 0)) for red in reds]


def write_colour(path: Path, colour: Colour) -> Path:
    """Write an image of one colour."""
    path.write_bytes(plain_png(colour))
    return path


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Return all rows of an output of any format, vectors as lists."""
    if output.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(output).to_pylist()
        return rows
    if output.suffix == ".jsonl":
        return read_lines(output)
    names = read_lines(output.with_name(output.name + ".rows.jsonl"))
    vectors = np.load(output, allow_pickle=False)
    return [
        name | {"embedding": vector.tolist(), "error": None}
        for name, vector in zip(names, vectors, strict=True)
    ]


def read_errors(output: Path) -> dict[str, str]:
    """Return the error code of each file that the manifest names."""
    path = output.with_name(output.name + ".errors.jsonl")
    if not path.exists():
        return {}
    return {Path(line["path"]).name: line["error"] for line in read_lines(path)}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return the file names of rows."""
    return [Path(row["path"]).name for row in rows]


def reds_of(rows: list[dict[str, Any]]) -> list[float]:
    """Return the first number of each vector, which is the fake's red."""
    return [row["embedding"][0] for row in rows]


def run_texts(
    path: Path,
    output: Path,
    texts: TextEmbedder | NoTexts,
    *,
    images: Embedder | None = None,
    options: VectorOptions = RAW,
    resume: bool = False,
    max_text_bytes: int = 1000,
) -> int:
    """Embed the texts of a file and return the exit code."""

    def build(loaded: Towers) -> EmbeddingService:
        assert not isinstance(loaded.texts, NoTexts)
        queue = texts_in_flight(loaded.texts.info)
        return build_service(loaded.images, Settings(), 1, loaded.texts, queue_texts=queue)

    source = Texts(path, max_text_bytes, options)
    towers = Towers(images or FakeEmbedder(), texts)
    return embed_source(BulkRequest(source, output, resume), lambda: towers, build)
