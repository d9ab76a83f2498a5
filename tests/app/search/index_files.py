"""Files to search, written as `embed` writes them, or as it did once and as others do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from app.bulk import parquet
from app.bulk.row import Origin, Row
from app.engine.protocol import Float32Array
from tests.app.fake_embedder import SPACE

DIM = 48
OLD_LAYOUT = {"use_dictionary": False}
"""What `pq.ParquetWriter` was told before vectors lay in one uncompressed page."""


def origin_of_dim(dim: int = DIM, *, normalized: bool = True) -> Origin:
    """Return an origin in the space of the fake."""
    return Origin("fake/colours", None, SPACE, "pooled", normalized, dim)


def draw_vectors(rows: int, dim: int = DIM, *, normalized: bool = True) -> Float32Array:
    """Draw vectors, (rows, dim), some of them twice."""
    random = np.random.default_rng(rows)
    vectors = random.standard_normal((rows, dim)).astype(np.float32)
    vectors[random.integers(rows, size=rows // 8)] = vectors[rows // 2]
    if normalized:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    else:
        vectors *= (10 ** random.uniform(-2, 2, (rows, 1))).astype(np.float32)
    return vectors


def write_index(
    path: Path,
    vectors: Float32Array,
    fails: Callable[[int], bool] = lambda _: False,
    *,
    normalized: bool = True,
) -> Path:
    """Write a file with the real writer; row i is of `i.png`, and has no vector where it fails."""

    def rows() -> Iterator[Row]:
        for number, vector in enumerate(vectors):
            if fails(number):
                yield Row(f"{number}.png", error="image_truncated")
            else:
                yield Row(f"{number}.png", embedding=vector)

    parquet.write(path, origin_of_dim(vectors.shape[1], normalized=normalized), rows())
    return path


def rewrite(path: Path, **options: Any) -> Path:
    """Write a file anew, as another program would, metadata and row groups included."""
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(group) for group in range(file.num_row_groups)]
        with pq.ParquetWriter(path, file.schema_arrow, **options) as writer:
            for group in groups:
                writer.write_table(group)
    return path
