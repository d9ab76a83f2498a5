"""What to embed as Ray reads it: Parquet files of names, and of where each image lies."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from app.bulk.image_file import ImageFile
from app.bulk.left_out import LeftOut, extension_of
from app.bulk.row import BulkError
from app.bulk.walk import find_files
from app.intake.formats import FORMATS
from app.scale.stored_file import StoredFile, has_password, is_uri, open_filesystem

_ROWS_OF_A_FILE = 65_536
_SCHEMA = pa.schema([("path", pa.string()), ("file", pa.binary())])
"""The name that the output has for an image, and its path or URI as bytes."""


class Listed(NamedTuple):
    """Images by name, one at a time, and what of folders was left out, known at the end."""

    files: Iterator[tuple[str, str]]
    left_out: LeftOut


def list_images(arguments: Sequence[str], formats: frozenset[str], own: Path | None) -> Listed:
    """Find the images of local paths as the command without Ray does, and those below URIs.

    `own` is the output, nothing of which is taken. Raises `BulkError`.
    """
    local = [Path(argument) for argument in arguments if not is_uri(argument)]
    found = find_files(local, formats, [own] if own else [])
    extensions = tuple(ending for name in formats for ending in FORMATS[name].extensions)

    def files() -> Iterator[tuple[str, str]]:
        yield from found.paths.items()
        for uri in filter(is_uri, arguments):
            yield from ((name, name) for name in _below(uri, extensions))

    return Listed(files(), found.left_out)


def read_manifest(path: Path) -> Iterator[tuple[str, str]]:
    """Go through the images of a manifest: a line each, or the column `path` of a Parquet file."""
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["path"]):
                    yield from ((name, name) for name in batch.column(0).to_pylist())
        else:
            with path.open(encoding="utf-8") as lines:
                yield from ((name, name) for name in map(str.strip, lines) if name)
    except (OSError, ValueError, KeyError) as error:
        raise BulkError(f"{path} cannot be read as a manifest: {error}") from None


def write_manifest(files: Iterable[tuple[str, str]], folder: str, filesystem: fs.FileSystem) -> int:
    """Write each image once, and return how many there are.

    Raises `BulkError` for none, and for a URI with a password.
    """
    filesystem.create_dir(folder)
    filesystem.delete_dir_contents(folder)
    unique = _once(files)
    total = 0
    while rows := list(islice(unique, _ROWS_OF_A_FILE)):
        columns = [[name for name, _ in rows], [os.fsencode(file) for _, file in rows]]
        table = pa.Table.from_arrays(list(map(pa.array, columns, _SCHEMA.types)), schema=_SCHEMA)
        pq.write_table(table, f"{folder}/{total:012}.parquet", filesystem=filesystem)
        total += len(rows)
    if not total:
        raise BulkError("there is no image among these")
    return total


def source_of(file: bytes, max_bytes: int) -> ImageFile | StoredFile:
    """Return what reads an image."""
    path = os.fsdecode(file)
    return StoredFile(path, max_bytes) if is_uri(path) else ImageFile(path, max_bytes)


def _once(files: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for name, file in files:
        _refuse_password(name)
        if name not in seen:
            seen.add(name)
            yield name, file


def _refuse_password(name: str) -> None:
    if has_password(name):
        raise BulkError(
            "a URI has a password, which the output would show: put it where the store's"
            " client looks for it, such as AWS_SECRET_ACCESS_KEY"
        )


def _below(uri: str, extensions: tuple[str, ...]) -> Iterator[str]:
    """Go through the images at or below a URI, in the order of names."""
    _refuse_password(uri)  # before an error shows it
    try:
        filesystem, path = open_filesystem(uri)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:
            yield uri
            return
        inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    except (OSError, ValueError) as error:
        raise BulkError(
            f"{uri} cannot be listed: {error} (a URI is taken as it stands: no escapes, no options)"
        ) from None
    for name in sorted(one.path for one in inside if one.type == fs.FileType.File):
        if extension_of(name) in extensions:
            yield uri.rstrip("/") + name.removeprefix(path.rstrip("/"))
