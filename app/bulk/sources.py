"""Which of the sources a command asks for."""

from collections.abc import Sequence
from pathlib import Path

from app.bulk.images import Images
from app.bulk.row import BulkError
from app.bulk.source import Source, VectorOptions
from app.bulk.texts import Texts


def pick_source(
    paths: Sequence[Path] | None,
    texts: Path | None,
    options: VectorOptions,
    formats: frozenset[str],
    max_image_bytes: int,
    max_text_bytes: int,
) -> Source:
    """Return the one that is given; raises `BulkError`, also for both or none."""
    if not paths and texts is None:
        raise BulkError("give images and folders of images, or --texts FILE")
    if texts is None:
        return Images(paths or (), formats, max_image_bytes, options)
    if paths:
        raise BulkError("give images or --texts FILE, not both: each has an output of its own")
    if options.output != "pooled":
        raise BulkError(f"texts have no patches: --output {options.output} is for images")
    return Texts(texts, max_text_bytes, options)
