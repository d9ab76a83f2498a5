"""Where vectors lie in a Parquet file just as they lie in memory: no need to decode them.

pyarrow decodes two list levels beside each number, which takes some 10 times as long as a search
does (docs/decisions/0021-search.md). A file of ours has no use for them: all its vectors have the
same length.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from app.engine.protocol import Float32Array

# Fits the cache of a core beside what else is in there, and one core multiplies it alone.
_BLOCK_BYTES = 384 * 2**10
_HEAD_BYTES = 64
_V1_DATA_PAGE = b"\x15\x00"
_I32_FIELD, _DATA_PAGE_FIELD = 0x15, 0x2C


class PlainVectors(NamedTuple):
    """Consecutive little-endian float32 vectors, from byte `offset` on."""

    offset: int
    rows: int
    dim: int


def find_plain_vectors(file: Any, rows: int, chunk: Any, dim: int) -> PlainVectors | None:
    """Say where the vectors of a column chunk lie, or None where they must be decoded.

    They lie at the end of a chunk that is one page, uncompressed and in plain encoding. Each vector
    counts as `dim` values there, and each row without one as a single null.
    """
    missing = chunk.statistics.null_count if chunk.is_stats_set else None
    if (
        missing is None
        or chunk.compression != "UNCOMPRESSED"
        or chunk.has_dictionary_page
        or not {*chunk.encodings} <= {"PLAIN", "RLE"}  # RLE is of the list levels
        or chunk.num_values != (rows - missing) * dim + missing
    ):
        return None
    head = file.read_at(_HEAD_BYTES, chunk.data_page_offset)
    if _values_of_page(head) != chunk.num_values:
        return None
    count = rows - missing
    end = chunk.data_page_offset + chunk.total_compressed_size
    return PlainVectors(end - 4 * count * dim, count, dim)


def read_plain_vectors(file: Any, vectors: PlainVectors) -> Iterator[Float32Array]:
    """Read blocks of (vectors, dim), a copy that numpy can multiply at once.

    A map of the file would be copied too, since a page begins at any byte, and a file that somebody
    cuts short would end the process. Raises `EOFError`.
    """
    rows = max(1, _BLOCK_BYTES // (4 * vectors.dim))
    for first in range(0, vectors.rows, rows):
        size = 4 * vectors.dim * min(rows, vectors.rows - first)
        data = file.read_at(size, vectors.offset + 4 * first * vectors.dim)
        if len(data) != size:
            raise EOFError("the file ends early")
        yield np.frombuffer(data, "<f4").reshape(-1, vectors.dim)


def _values_of_page(head: bytes) -> int | None:
    """Read how many values a page has; None for what is no data page as pyarrow begins it.

    Thrift's compact protocol: the kind of page, its size, its compressed size, and in the header
    for data pages, field 5, first the number of values.
    """
    if not head.startswith(_V1_DATA_PAGE):
        return None
    place, number = len(_V1_DATA_PAGE), 0
    for field in (_I32_FIELD, _I32_FIELD, _DATA_PAGE_FIELD):
        if head[place] != field:
            return None
        place += 2 if field == _DATA_PAGE_FIELD else 1  # the number is the first in its struct
        number, place = _read_varint(head, place)
    return number


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a zigzag number, seven bits a byte; return it and the place behind it."""
    number = shift = 0
    while data[place] & 0x80:
        number |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    number |= data[place] << shift
    return number >> 1, place + 1
