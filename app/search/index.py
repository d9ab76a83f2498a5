"""What is searched: a Parquet file that `embed` wrote, read a row group at a time."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.bulk.parquet import origin_of
from app.bulk.row import BulkError
from app.engine.protocol import Int64Array
from app.search.plain_vectors import find_plain_vectors, read_plain_vectors
from app.search.ranking import Block

_DECODED_ROWS = 512
_READ_BYTES = 2**20


class Index:
    """The vectors of a file, and the paths of their images; many threads may read it.

    Raises `BulkError` in all its methods for a file that is damaged or cannot be read.
    """

    def __init__(self, path: Path, source: Any) -> None:
        file = pq.ParquetFile(source)
        self.path = path
        self._source = source  # an open file, so that it stays the same one if it is replaced
        self._metadata = file.metadata
        self.origin = origin_of(file)
        if self.origin.output == "patches":
            raise BulkError(f"{path} has patch vectors only: a search needs pooled ones")
        if file.schema_arrow.field("embedding").type != pa.list_(pa.float32(), self.origin.dim):
            raise ValueError("vectors of another length")
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._first_rows = np.cumsum([0, *rows])

    @property
    def groups(self) -> range:
        """The row groups."""
        return range(self._metadata.num_row_groups)

    def read_blocks(self, group: int) -> Iterator[Block]:
        """Go through the rows of a group that have vectors."""
        with _told_errors(self.path):
            chunk = self._chunk(group, "embedding.list.element")
            rows = self._metadata.row_group(group).num_rows
            plain = find_plain_vectors(self._source, rows, chunk, self.origin.dim)
            if plain is None:
                yield from self._decode_blocks(group)
                return
            numbers = self._numbers(group, plain.rows)
            for vectors in read_plain_vectors(self._source, plain):
                yield Block(numbers[: len(vectors)], vectors)
                numbers = numbers[len(vectors) :]

    def read_paths(self, rows: Sequence[int]) -> list[str]:
        """Return the paths of some rows, or the ids of texts, in their order."""
        paths: dict[int, str] = {}
        with _told_errors(self.path):
            for group, some in groupby(sorted(rows), self._group_of):
                first = int(self._first_rows[group])
                name = self.origin.name_column
                column = self._open().read_row_group(group, columns=[name]).column(name)
                paths |= {row: column[row - first].as_py() for row in some}
        return [paths[row] for row in rows]

    def _numbers(self, group: int, count: int) -> Int64Array:
        """Number the rows of a group that have vectors, of which there are `count`."""
        first, end = self._first_rows[group : group + 2]
        numbers: Int64Array = np.arange(first, end)
        if count == len(numbers):
            return numbers
        errors = self._open().read_row_group(group, columns=["error"]).column("error")
        numbers = numbers[errors.is_null().to_numpy()]
        if len(numbers) != count:
            raise ValueError("rows with an error and rows without a vector are not the same")
        return numbers

    def _decode_blocks(self, group: int) -> Iterator[Block]:
        """Go through vectors that are compressed, or in pages as other programs make them."""
        first = int(self._first_rows[group])
        batches = self._open().iter_batches(
            _DECODED_ROWS, row_groups=[group], columns=["embedding"]
        )
        for batch in batches:
            column = batch.column("embedding")
            there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            numbers = column.flatten().to_numpy(zero_copy_only=False)
            yield Block(first + there, numbers.reshape(-1, self.origin.dim))
            first += len(column)

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self._first_rows, row, side="right")) - 1

    def _chunk(self, group: int, path: str) -> Any:
        row_group = self._metadata.row_group(group)
        chunks = map(row_group.column, range(row_group.num_columns))
        return {chunk.path_in_schema: chunk for chunk in chunks}[path]

    def _open(self) -> pq.ParquetFile:
        """Return a reader for one thread, in whose memory is never a whole row group."""
        return pq.ParquetFile(
            self._source, metadata=self._metadata, buffer_size=_READ_BYTES, pre_buffer=False
        )


@contextmanager
def opened_index(path: Path) -> Iterator[Index]:
    """Open a file for the block; raises `BulkError` for one that cannot be searched."""
    with ExitStack() as held:
        with _told_errors(path):
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait
                raise BulkError(f"{path} is not a file")
            index = Index(path, held.enter_context(pa.OSFile(os.fsencode(path))))
        yield index


@contextmanager
def _told_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # Parquet's own, of its parts
            raise _damaged(path) from None
        reason = os.strerror(error.errno).lower()  # pyarrow's own text is of several sentences
        raise BulkError(f"{path} cannot be read: {reason}") from None
    except (pa.ArrowException, ArithmeticError, EOFError, LookupError, TypeError, ValueError):
        raise _damaged(path) from None


def _damaged(path: Path) -> BulkError:
    return BulkError(f"{path} was not written by `embed -o FILE.parquet`, or is damaged")
