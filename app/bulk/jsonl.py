"""Output as JSON lines: an object for each image or text, with its vectors as numbers."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app.bulk.row import ABOUT, Origin, Row

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def write(path: Path, origin: Origin, rows: Iterable[Row]) -> None:
    """Write all rows; each line also says where its vectors come from."""
    with path.open("wb") as file:
        for row in rows:
            file.write(to_line(row, origin.columns, origin))


def read(path: Path) -> tuple[Origin, Iterator[Row]]:
    """Return the origin and the rows of what `write` wrote."""
    with path.open("rb") as file:
        origin = Origin.from_values(orjson.loads(file.readline()))
    return origin, _rows(path)


def to_line(row: Row, columns: Sequence[str], origin: Origin) -> bytes:
    """Write some columns of a row as one line."""
    values = {column: getattr(row, column) for column in columns}
    return orjson.dumps(values | origin.values(), option=_OPTIONS)


def from_line(line: bytes) -> Row:
    """Read the columns that a line has."""
    values: dict[str, Any] = orjson.loads(line)
    about = ABOUT["text" if values.get("kind") == "text" else "image"]
    return Row.from_values(
        {column: values[column] for column in about}
        | {
            "grid": tuple(grid) if (grid := values.get("grid")) else None,
            "embedding": np.array(row, np.float32) if (row := values.get("embedding")) else None,
            "patches": np.array(rows, np.float32) if (rows := values.get("patches")) else None,
            "error": values.get("error"),
        }
    )


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        yield from map(from_line, file)
