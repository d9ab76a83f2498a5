"""The two stages that Ray Data runs: images to pixels on any core, pixels to rows on a device.

No later run tries a row again that says why an image failed. So what is no fault of the image, and
may work the next time, ends the run instead, and `--resume` has that image once more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from app import exit_codes
from app.allocator import configure_allocators
from app.bulk.images import image_row
from app.bulk.parquet import schema_of, table_of
from app.bulk.row import BulkError, Origin, Row
from app.bulk.source import VectorOptions
from app.engine.forward import Forward, Outcome, OwnVectors, Wanted
from app.engine.preparing import PreparedImage, Preparer, SeenImage
from app.engine.protocol import DeviceLostError, Resizer
from app.engine.same_space import same_space
from app.engine.service import EmbeddedImage
from app.environment import exit_at_once
from app.errors import OutOfMemoryError, ServerError, ServiceError
from app.main import decode_limits, load_model
from app.observe.logs import configure_logs
from app.scale.manifest import source_of
from app.settings import Settings

_PIXELS = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("input_height", pa.int32()),
        ("input_width", pa.int32()),
        ("pixels", pa.binary()),
        ("error", pa.string()),
    ]
)
"""Between the stages: the pixels at the model's input size, or the code of an error."""


class ImageDecoder:
    """Reads and decodes, one image at a time, in a process that a bad one ends alone."""

    def __init__(self, settings: Settings, resizer: Resizer) -> None:
        configure_logs(settings.log_level, settings.log_format)
        self._max_bytes = settings.max_image_bytes
        self._preparer = Preparer(
            resizer,
            decode_limits(settings),
            fast=settings.decode == "fast",
            decode_memory=settings.decode_memory,
            processes=1,
        )

    def __call__(self, files: pa.Table) -> pa.Table:
        """Turn places of images into pixels; raises `ServerError` where no image can be decoded."""
        sources = [source_of(file, self._max_bytes) for file in files["file"].to_pylist()]
        preparing = [self._preparer.begin(source) for source in sources]
        rows = [
            {"path": name, "sha256": source.sha256, **_columns(image)}
            for name, source, image in zip(
                files["path"].to_pylist(),
                sources,
                (one.result() for one in preparing),
                strict=True,
            )
        ]
        return pa.Table.from_pylist(rows, _PIXELS)


@dataclass(frozen=True)
class Described:
    """A model as the cluster's devices have it: the origin of its vectors, and its resizer."""

    origin: Origin
    resizer: Resizer


class ImageEmbedder:
    """Holds the model and computes what the decoders send."""

    def __init__(self, settings: Settings, described: Described, options: VectorOptions) -> None:
        configure_logs(settings.log_level, settings.log_format)
        configure_allocators()
        embedder = load_model(settings)
        origin = described.origin
        if not same_space(embedder.info.space, origin.space):
            raise BulkError(f"devices differ: vectors of {embedder.info.space}, of {origin.space}")
        self._options = options
        self._schema = schema_of(origin)
        self._info = embedder.info
        self._forward = Forward(embedder, embedder.info.max_batch_size)

    def __call__(self, images: pa.Table) -> pa.Table:
        """Turn pixels into rows of the output; raises `OutOfMemoryError`."""
        rows = images.to_pylist()
        good = [row for row in rows if row["error"] is None]
        outcomes = dict(zip((row["path"] for row in good), self._compute(good), strict=True))
        return table_of([self._row(row, outcomes.get(row["path"])) for row in rows], self._schema)

    def _compute(self, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        patches = self._options.output != "pooled"
        wanted = [Wanted(_pixels(row), patches) for row in rows]
        try:
            while wanted:
                batch = wanted[: self._forward.batch_limit]
                wanted = wanted[len(batch) :]
                yield from self._forward.run(batch)
        except DeviceLostError:
            exit_at_once(exit_codes.ENGINE_LOST)  # Ray starts another, and gives it the same images

    def _row(self, row: dict[str, Any], outcome: Outcome | None) -> Row:
        name, sha256 = row["path"], row["sha256"]
        if isinstance(outcome, OutOfMemoryError):
            raise outcome
        if not isinstance(outcome, OwnVectors):
            return Row(name, sha256, error=row["error"] if outcome is None else outcome.code)
        input_size = (row["input_height"], row["input_width"])
        seen = SeenImage(row["width"], row["height"], "", (), input_size)
        image = EmbeddedImage(outcome, seen)
        return image_row(name, sha256, image, self._options, self._info.patch_size)


def _columns(image: PreparedImage | ServiceError) -> dict[str, Any]:
    if isinstance(image, ServerError):
        raise image
    if isinstance(image, ServiceError):
        return {"error": image.code}
    height, width, _ = image.pixels.shape
    return {
        "width": image.seen.width,
        "height": image.seen.height,
        "input_height": height,
        "input_width": width,
        "pixels": image.pixels.tobytes(),
    }


def _pixels(row: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    shape = (row["input_height"], row["input_width"], 3)
    return np.frombuffer(row["pixels"], np.uint8).reshape(shape)
