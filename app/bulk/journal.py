"""Rows on disk from the moment they are computed, in any order: a line of JSON each.

Whatever ends the process, the lines that were written are there for the next one. The first line
says where the vectors come from. Vectors are base64 of little-endian float32.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pybase64

from app.bulk.row import BulkError, Origin, Row
from app.engine.protocol import Float32Array


class Journal:
    """The rows by name, the latest of each; only their places in the file are kept in memory."""

    def __init__(self, reading: BinaryIO, appending: FileIO, origin: Origin) -> None:
        self._reading = reading
        self._appending = appending
        self._dim = origin.dim
        self._name_column = origin.name_column
        self._places: dict[str, int] = {}
        self._failed: set[str] = set()
        self._end = 0
        self._find_rows(origin)

    def __contains__(self, name: str) -> bool:
        """Whether there is a row for this name."""
        return name in self._places

    def is_done(self, name: str) -> bool:
        """Whether there is a row with vectors for this name."""
        return name in self._places and name not in self._failed

    def __iter__(self) -> Iterator[str]:
        """Go through the names of all rows."""
        return iter(self._places)

    def append(self, row: Row) -> None:
        """Write one row, for whoever comes after this process; raises `OSError`."""
        line = _to_line(row, self._name_column)
        written = 0
        while written < len(line):
            written += self._appending.write(line[written:])
        self._note(row.name, failed=row.error is not None)
        self._end += len(line)

    def read(self, name: str) -> Row:
        """Return the row of one name."""
        self._reading.seek(self._places[name])
        return _from_values(orjson.loads(self._reading.readline()), self._dim)

    def _find_rows(self, origin: Origin) -> None:
        """Find all rows; a last line that a dying process did not finish is cut off."""
        damaged = BulkError(f"{self._reading.name} is damaged")
        try:
            earlier = Origin.from_values(orjson.loads(self._reading.readline()))
        except (KeyError, TypeError, ValueError):
            raise damaged from None
        origin.require_same(earlier, Path(self._reading.name))
        self._end = self._reading.tell()
        for line in self._reading:
            if not line.endswith(b"\n"):
                break
            try:
                values = orjson.loads(line)
                self._note(values[self._name_column], failed=values["error"] is not None)
            except (KeyError, TypeError, ValueError):
                raise damaged from None
            self._end += len(line)
        self._appending.truncate(self._end)

    def _note(self, name: str, *, failed: bool) -> None:
        self._places[name] = self._end
        if failed:
            self._failed.add(name)
        else:
            self._failed.discard(name)


@contextmanager
def opened_journal(path: Path, origin: Origin) -> Iterator[Journal]:
    """Open what `start_journal` wrote, and perhaps others went on writing, for the block.

    Raises `BulkError` for a journal of another origin.
    """
    with path.open("rb") as reading, path.open("ab", buffering=0) as appending:
        yield Journal(reading, appending, origin)


def start_journal(path: Path, origin: Origin, rows: Iterable[Row]) -> None:
    """Write a journal with the rows of an earlier output; it is there whole or not at all."""
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            file.write(orjson.dumps(origin.values(), option=orjson.OPT_APPEND_NEWLINE))
            file.writelines(_to_line(row, origin.name_column) for row in rows)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _to_line(row: Row, name_column: str) -> bytes:
    values: dict[str, Any] = vars(row) | {
        name_column: row.name,
        "embedding": _to_text(row.embedding),
        "patches": _to_text(row.patches),
    }
    del values["name"]
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)


def _to_text(vectors: Float32Array | None) -> str | None:
    if vectors is None:
        return None
    return pybase64.b64encode_as_string(np.ascontiguousarray(vectors, "<f4").data)


def _from_values(values: dict[str, Any], dim: int) -> Row:
    embedding, patches, grid = values["embedding"], values["patches"], values["grid"]
    return Row.from_values(
        values
        | {
            "grid": grid and tuple(grid),
            "embedding": embedding and _from_text(embedding),
            "patches": patches and _from_text(patches).reshape(-1, dim),
        }
    )


def _from_text(text: str) -> Float32Array:
    return np.frombuffer(pybase64.b64decode(text), "<f4")
