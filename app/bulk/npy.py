"""Output as one npy array of all that have vectors, with their names in a file beside it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
from numpy.lib import format as npy_format

from app.bulk.jsonl import from_line, to_line
from app.bulk.row import ABOUT, BulkError, Origin, Row
from app.engine.protocol import Float32Array


def names_path(path: Path) -> Path:
    """Return where the paths are: line i, a JSON object, is about row i."""
    return path.with_name(path.name + ".rows.jsonl")


def write(path: Path, origin: Origin, rows: Iterable[Row]) -> None:
    """Write float32 (images, dim), or (images, patches, dim) of patch vectors, without failures."""
    good = (row for row in rows if row.error is None)
    first = next(good, None)
    empty = (origin.dim,) if origin.output == "pooled" else (0, origin.dim)
    shape = empty if first is None else _vectors(first).shape
    columns = (*ABOUT[origin.kind], *(("grid",) if origin.kind == "image" else ()))
    images = 0
    with path.open("wb") as file, names_path(path).open("wb") as names:
        _write_head(file, 0, shape)
        for row in chain([first] if first else [], good):
            file.write(np.ascontiguousarray(_vectors(row), "<f4").data)
            names.write(to_line(row, columns, origin))
            images += 1
        file.seek(0)
        _write_head(file, images, shape)  # of the same length: numpy leaves room for the number


def read(path: Path) -> tuple[Origin, Iterator[Row]] | None:
    """Return the origin and the rows of what `write` wrote, None where all images had failed."""
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    with names_path(path).open("rb") as names:
        first = names.readline()
        lines = bool(first) + sum(1 for _ in names)
    if lines != len(vectors):
        raise BulkError(f"{lines} names do not go with {len(vectors)} vectors")
    if not first:
        return None
    origin = Origin.from_values(orjson.loads(first))
    return origin, _rows(names_path(path), vectors, origin)


def _rows(names: Path, vectors: Float32Array, origin: Origin) -> Iterator[Row]:
    pooled = origin.output == "pooled"
    with names.open("rb") as lines:
        for line, mapped in zip(lines, vectors, strict=True):
            row, own = from_line(line), np.array(mapped)
            yield replace(row, embedding=own) if pooled else replace(row, patches=own)


def _vectors(row: Row) -> Float32Array:
    vectors = row.patches if row.embedding is None else row.embedding
    if vectors is None:
        raise BulkError(f"{row.name} has neither vectors nor an error")
    return vectors


def _write_head(file: BinaryIO, images: int, shape: tuple[int, ...]) -> None:
    head = {"descr": "<f4", "fortran_order": False, "shape": (images, *shape)}
    npy_format.write_array_header_1_0(file, head)
