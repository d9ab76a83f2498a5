"""Image files as what a run embeds: found in folders, a row for each."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.bulk.image_file import ImageFile
from app.bulk.journal import Journal
from app.bulk.pipeline import PATIENCE_S, images_in_flight
from app.bulk.row import BulkError, Row
from app.bulk.source import Left, VectorOptions, pooled_vector
from app.bulk.walk import FoundFiles, find_files
from app.engine.protocol import Modality, Towers
from app.engine.service import EmbeddedImage, EmbeddingService
from app.errors import ItemsFailedError, ServiceError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Images:
    """Files and folders of images; `formats` are what folders are walked for.

    A file of more than `max_image_bytes` fails.
    """

    paths: Sequence[Path]
    formats: frozenset[str]
    max_image_bytes: int
    options: VectorOptions
    modality: Modality = "image"

    @contextmanager
    def opened(self, own: Iterable[Path]) -> Iterator["FoundImages"]:
        """Walk the folders; raises `BulkError` when there is nothing to embed."""
        found = find_files(self.paths, self.formats, own)
        _require_some(self.paths, found)
        yield FoundImages(self, found)

    def pieces_in_flight(self, towers: Towers) -> int:
        """Return how many images are to be worked on at one time."""
        return images_in_flight(towers.images.info)


class FoundImages:
    """The files that were found, by name."""

    def __init__(self, source: Images, found: FoundFiles) -> None:
        self._source = source
        self.names = found.paths
        self.left_out = found.left_out

    def left(self, journal: Journal, _: Towers) -> Left:
        """Return those without vectors, one at a time."""
        left = [name for name in self.names if not journal.is_done(name)]
        pieces = (_ImagePiece(name, self.names[name], self._source) for name in left)
        return Left(len(left), pieces)


class _ImagePiece:
    """One image file."""

    def __init__(self, name: str, path: str, source: Images) -> None:
        self._name = name
        self._file = ImageFile(path, source.max_image_bytes)
        self._source = source

    async def embed(self, service: EmbeddingService) -> list[Row]:
        """Read, decode and embed it."""
        try:
            embedded = await service.embed(
                [self._file],
                patches=self._source.options.output != "pooled",
                partial=False,
                timeout_s=PATIENCE_S,
            )
        except ItemsFailedError as failed:
            return self.fail(failed.details[0][1])
        (image,) = embedded
        if isinstance(image, ServiceError):
            return self.fail(image)
        patch_size = service.info.patch_size
        return [image_row(self._name, self._file.sha256, image, self._source.options, patch_size)]

    def fail(self, error: ServiceError) -> list[Row]:
        """Return a row that says why."""
        return [Row(self._name, self._file.sha256, error=error.code, message=error.message)]


def image_row(
    name: str, sha256: str | None, image: EmbeddedImage, options: VectorOptions, patch_size: int
) -> Row:
    """Return the row of an image that has vectors."""
    seen, (pooled, patches) = image.seen, image.vectors
    rows, columns = (side // patch_size for side in seen.input_size)
    return Row(
        name,
        sha256,
        seen.width,
        seen.height,
        grid=None if patches is None else (rows, columns),
        embedding=None if options.output == "patches" else pooled_vector(pooled, options),
        patches=patches,
    )


def _require_some(arguments: Iterable[Path], found: FoundFiles) -> None:
    """Tell of arguments that are not there; raise `BulkError` when there is nothing to embed."""
    missing = list(filter(None, map(_why_missing, arguments)))
    if not any(map(os.path.lexists, found.paths.values())):
        raise BulkError("\n".join(missing) or "there is no image among these files and folders")
    for reason in missing:  # each is a row that says so, but the others may take hours
        _log.warning("this cannot be embedded", reason=reason)


def _why_missing(argument: Path) -> str | None:
    try:
        os.lstat(argument)
    except OSError as error:
        shown = os.fsencode(argument).decode(errors="backslashreplace")
        return f"{shown}: {(error.strerror or 'unknown reason').lower()}"
    return None
