"""Encoded image bytes to upright RGB pixels, or an `ImageError`; no network, no disk.

Opening and reading are two steps: what is open has told its size and the memory that reading takes,
for which a caller may have to wait.
"""

import warnings
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import Self

from PIL import Image, ImageFile

from app.errors import ImageError, ImageTooLargeError
from app.intake.formats import FORMATS, ImageFormat
from app.intake.orientation import (
    UPRIGHT,
    read_orientation,
    resize_upright,
    turn_upright,
    upright_size,
)
from app.intake.outline import Outline, truncated, undecodable
from app.intake.pixels import to_grey_or_rgb
from app.intake.sniff import sniff_format

# Our own limits are checked first and answer with a clear error; Pillow's stays as a second line.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# What it says of a file's metadata is as much as the file wants, in its words.
warnings.filterwarnings("ignore", module=r"PIL\.")

_BYTES_PER_PIXEL_TO_FLATTEN = 12

Resize = tuple[tuple[int, int], int]
"""A width and a height in pixels, and which of Pillow's filters gets there."""


@dataclass(frozen=True)
class DecodeLimits:
    """What an encoded image may be: bytes, pixels (width x height), longer side, formats."""

    max_image_bytes: int
    max_pixels: int
    max_side: int
    formats: frozenset[str]


@dataclass(frozen=True)
class DecodedImage:
    """Upright RGB pixels, and what had to be done to get them.

    `size` is the upright image's full width and height, which the pixels of a reduced decode do not
    have; `format` is the encoded format in capitals; `warnings` are the contract's warning codes.
    """

    pixels: Image.Image
    size: tuple[int, int]
    format: str
    warnings: tuple[str, ...]


class OpenImage:
    """An image whose header has been read, and none of its pixels; a context manager.

    `size` is its upright width and height, `decode_bytes` the memory that reading and resizing it
    take at most.
    """

    def __init__(self, outline: Outline, image_format: ImageFormat, limits: DecodeLimits) -> None:
        self._format = image_format
        self._outline = outline
        self._file = BytesIO(outline.data)
        self._image: ImageFile.ImageFile | None = None
        size, transparent = outline.size, outline.transparent
        if size is None:
            self._image = self._open()
            size = self._image.size
            transparent = transparent or self._image.has_transparency_data
        _check_size(size, limits)
        outline.check_size(size)
        self._stored_size = size
        self._orientation = outline.orientation or read_orientation(outline.exif, outline.xmp)
        self.size = upright_size(size, self._orientation)
        self.decode_bytes = _most_decode_bytes(size, image_format, transparent=transparent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._image is not None:
            self._image.__exit__(kind, error, traceback)  # closing it would take its pixels away

    def read(self, least_side: int | None = None, resize: Resize | None = None) -> DecodedImage:
        """Decode it, once: first frame, turned upright, on white, 8 bits, RGB; then resize it.

        With `least_side` a JPEG may be decoded at a half, quarter or eighth of its size, as long as
        no side falls below it. Raises an `ImageError`: truncated or broken.
        """
        noted = ["exif_rotated"] if self._orientation != UPRIGHT else []
        try:
            image = self._decode(least_side, noted)
        except ImageError:
            raise
        except Exception as error:  # Pillow raises seven types on broken files
            raise _as_image_error(error, self._format.name.upper()) from error
        if resize is None:
            pixels = turn_upright(image, self._orientation)
        else:
            pixels = resize_upright(image, self._orientation, *resize)
        if self._outline.animated:
            noted.append("animated_first_frame")
        rgb = pixels if pixels.mode == "RGB" else pixels.convert("RGB")
        return DecodedImage(rgb, self.size, self._format.name.upper(), tuple(noted))

    def _decode(self, least_side: int | None, noted: list[str]) -> Image.Image:
        """Decode to grey or RGB, as it is stored, and let go of what that is made from."""
        image, self._image = self._opened(), None
        if least_side is not None:
            image.draft(None, (least_side, least_side))  # does nothing unless it is a JPEG
        image.load()
        return to_grey_or_rgb(self._outline.correct(image), noted)

    def _open(self) -> ImageFile.ImageFile:
        return Image.open(self._file, formats=(self._format.name,))

    def _opened(self) -> ImageFile.ImageFile:
        image = self._image or self._open()
        if image.size != self._stored_size:
            raise undecodable(self._format.name.upper())
        return image


def decode_image(
    data: bytes, limits: DecodeLimits, *, least_side: int | None = None
) -> DecodedImage:
    """Open and read an image at once, for a caller who has the memory; raises an `ImageError`."""
    with open_image(data, limits) as image:
        return image.read(least_side)


def open_image(data: bytes, limits: DecodeLimits) -> OpenImage:
    """Rebuild an image file from what its pixels need, and read the header of that.

    Raises an `ImageError`: over a limit, of another format, truncated or broken.
    """
    if len(data) > limits.max_image_bytes:
        raise ImageTooLargeError(f"more than {limits.max_image_bytes} bytes")
    image_format = FORMATS[sniff_format(data, limits.formats)]
    outline = image_format.outline(data, limits.max_pixels)
    try:
        return OpenImage(outline, image_format, limits)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"more than {limits.max_pixels} pixels") from error
    except Exception as error:
        raise _as_image_error(error, image_format.name.upper()) from error


def _most_decode_bytes(
    size: tuple[int, int], image_format: ImageFormat, *, transparent: bool
) -> int:
    width, height = size
    to_flatten = _BYTES_PER_PIXEL_TO_FLATTEN if transparent else 0
    return width * height * (image_format.bytes_per_pixel + to_flatten)


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(f"more than {limits.max_pixels} pixels")
    if max(width, height) > limits.max_side:
        raise ImageTooLargeError(f"a side of more than {limits.max_side} pixels")


def _as_image_error(error: Exception, name: str) -> ImageError:
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return truncated(name)
    return undecodable(name)
