"""Output as a Parquet file: a row for each image or text, its origin in the metadata.

Vectors lie in a row group as they lie in memory, so that a search reads them at the speed of a
copy (app/search/plain_vectors.py): uncompressed, which loses nothing since float32 numbers hardly
compress, and in one page, which takes as much memory as the row group that was written.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.bulk.row import Origin, Row
from app.engine.protocol import Float32Array

_GROUP_ROWS = 4096
_GROUP_BYTES = 32 * 2**20
_COMPRESSION = MappingProxyType(dict.fromkeys(("path", "sha256", "id", "text", "error"), "snappy"))


def write(path: Path, origin: Origin, rows: Iterable[Row]) -> None:
    """Write row groups of bounded size, so that neither writing nor reading needs all at once."""
    schema = schema_of(origin)
    with pq.ParquetWriter(path, schema, **writer_options(schema)) as writer:
        for group in _groups(rows):
            writer.write_table(table_of(group, schema))


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Return how pyarrow is to write: row groups come in the size that they are given."""
    return {
        # Hardly any value comes twice: dictionaries would cost time and save nothing.
        "use_dictionary": False,
        "compression": {name: kind for name, kind in _COMPRESSION.items() if name in schema.names},
        "data_page_size": 2 * _GROUP_BYTES,  # more than a group: vectors and their list levels
    }


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Put rows into one table of a schema."""
    columns = [_column(name, schema.field(name).type, rows) for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def read(path: Path) -> tuple[Origin, Iterator[Row]]:
    """Return the origin and the rows of what `write` wrote."""
    with pq.ParquetFile(path) as file:
        origin = origin_of(file)
    return origin, _rows(path, origin)


def _rows(path: Path, origin: Origin) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64):
            plain = [name for name in batch.schema.names if name not in ("embedding", "patches")]
            for index, values in enumerate(batch.select(plain).to_pylist()):
                grid = values.pop("grid", None)
                yield Row.from_values(
                    values
                    | {
                        "grid": grid and tuple(grid),
                        "embedding": _vectors(batch, "embedding", index),
                        "patches": _patches(batch, index, origin.dim),
                    }
                )


def _vectors(batch: Any, name: str, index: int) -> Float32Array | None:
    if name not in batch.schema.names or not batch.column(name)[index].is_valid:
        return None
    vectors: Float32Array = batch.column(name)[index].values.to_numpy(zero_copy_only=False)
    return vectors


def _patches(batch: Any, index: int, dim: int) -> Float32Array | None:
    if "patches" not in batch.schema.names or not batch.column("patches")[index].is_valid:
        return None
    numbers: Float32Array = batch.column("patches")[index].values.flatten().to_numpy()
    return numbers.reshape(-1, dim)


def schema_of(origin: Origin) -> pa.Schema:
    """Return the columns of an output, and its origin as their metadata."""
    vector = pa.list_(pa.float32(), origin.dim)
    types = {
        "path": pa.string(),
        "sha256": pa.string(),
        "id": pa.string(),
        "text": pa.string(),
        "tokens": pa.int32(),
        "truncated": pa.bool_(),
        "width": pa.int32(),
        "height": pa.int32(),
        "embedding": vector,
        "grid": pa.list_(pa.int32(), 2),
        "patches": pa.list_(vector),
        "error": pa.string(),
    }
    metadata = {
        name: "" if value is None else str(value) for name, value in origin.values().items()
    }
    return pa.schema([(name, types[name]) for name in origin.columns], metadata)


def origin_of(file: pq.ParquetFile) -> Origin:
    """Return the origin in a file's metadata; raises `KeyError` or `ValueError` without one."""
    metadata: dict[bytes, bytes] = file.schema_arrow.metadata or {}
    texts: dict[str, Any] = {name.decode(): text.decode() for name, text in metadata.items()}
    return Origin.from_values(
        texts
        | {
            "revision": texts["revision"] or None,
            "text_space": texts.get("text_space") or None,
            "normalized": texts["normalized"] == "True",
            "dim": int(texts["dim"]),
        }
    )


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(part.nbytes for part in (row.embedding, row.patches) if part is not None)
        size += len(row.text or "")
        if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _column(name: str, kind: Any, rows: Sequence[Row]) -> Any:
    values = [getattr(row, name) for row in rows]
    if name == "embedding":
        return _vector_column(values, kind)
    if name == "patches":
        return _patches_column(values, kind)
    return pa.array(values, kind)


def _vector_column(vectors: Sequence[Float32Array | None], kind: Any) -> Any:
    numbers = np.zeros((len(vectors), kind.list_size), np.float32)
    for row, vector in zip(numbers, vectors, strict=True):
        if vector is not None:
            row[:] = vector
    return pa.FixedSizeListArray.from_arrays(
        pa.array(numbers.reshape(-1)), type=kind, mask=_missing(vectors)
    )


def _patches_column(patches: Sequence[Float32Array | None], kind: Any) -> Any:
    ends = np.cumsum([0, *(0 if rows is None else len(rows) for rows in patches)], dtype=np.int32)
    there = [rows.reshape(-1) for rows in patches if rows is not None]
    numbers = pa.array(np.concatenate(there) if there else np.zeros(0, np.float32))
    inner = pa.FixedSizeListArray.from_arrays(numbers, type=kind.value_type)
    return pa.ListArray.from_arrays(pa.array(ends), inner, type=kind, mask=_missing(patches))


def _missing(values: Sequence[object]) -> Any:
    return pa.array([value is None for value in values])
