"""Encoded image bytes to upright RGB pixels, or an `ImageError`; no network, no disk."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile, PngImagePlugin

from app.errors import (
    ImageError,
    ImageTooLargeError,
    ImageTruncatedError,
    ImageUndecodableError,
)
from app.intake.jpeg import check_jpeg, outline_jpeg
from app.intake.parts import check_parts
from app.intake.sniff import sniff_format

# `Image.open(formats=...)` would otherwise import all plugins inside the first request.
Image.init()
# Our own limits are checked first and answer with a clear error; Pillow's stays as a second line.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# What it says of a file's metadata is as much as the file wants, in its words.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Texts and colour profiles are not used. Honest ones are smaller, all of them together: a scanner's
# profile takes 1 MiB, an editor's history a few.
PngImagePlugin.MAX_TEXT_CHUNK = 2**20
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 2**20
# A JPEG has room for no more. PNG and WebP have, and an orientation may be of any type: as millions
# of fractions it takes Pillow seconds and 600 MB.
_MAX_EXIF_BYTES = 64 * 2**10

# How to undo each EXIF orientation but 1. Pillow's exif_transpose also rewrites all other EXIF,
# which here is a stranger's and not needed.
_UPRIGHT = 1
_TURNS = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
_ON_ITS_SIDE = range(5, 9)


# The most memory that decoding takes, as tests measure it: decoder, turning upright, RGB copy, and
# resizing with PyTorch, which begins with copies: 10.
_BYTES_PER_PIXEL = MappingProxyType({"jpeg": 12, "png": 10, "webp": 20, "gif": 10, "bmp": 10})
_BYTES_PER_PIXEL_TO_FLATTEN = 12


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


def decode_image(
    data: bytes, limits: DecodeLimits, *, least_side: int | None = None
) -> DecodedImage:
    """Decode one image: first frame, EXIF orientation applied, on white, 8 bits, RGB.

    With `least_side` a JPEG may be decoded at a half, quarter or eighth of its size, as long as no
    side falls below it. Raises an `ImageError`: over a limit, of another format, truncated or
    broken.
    """
    with open_image(data, limits) as opened:
        return opened.read(least_side)


class OpenImage(NamedTuple):
    """An image whose header has been read; `size` is the upright width and height."""

    size: tuple[int, int]
    decode_bytes: int
    read: Callable[[int | None], DecodedImage]


@contextmanager
def open_image(data: bytes, limits: DecodeLimits) -> Iterator[OpenImage]:
    """Read an image's header; raises an `ImageError`, as reading its pixels does."""
    if len(data) > limits.max_image_bytes:
        raise ImageTooLargeError(f"more than {limits.max_image_bytes} bytes")
    image_format = sniff_format(data, limits.formats)
    check_parts(data, image_format, limits.max_pixels)
    jpeg = outline_jpeg(data) if image_format == "jpeg" else None
    try:
        with Image.open(BytesIO(jpeg.data if jpeg else data), formats=(image_format,)) as image:
            _check_size(image.size, limits)
            if jpeg is not None:
                check_jpeg(jpeg, image.size)
            size = image.size[::-1] if _orientation(image) in _ON_ITS_SIDE else image.size
            yield OpenImage(
                size,
                _most_decode_bytes(image, image_format),
                lambda least: _read_pixels(image, image_format.upper(), least),
            )
    except ImageError:
        raise
    except Exception as error:  # Pillow raises seven types on broken files
        raise _as_image_error(error, image_format, limits) from error


def _read_pixels(
    image: ImageFile.ImageFile, format_name: str, least_side: int | None
) -> DecodedImage:
    size = image.size
    if least_side is not None:
        image.draft(None, (least_side, least_side))  # does nothing unless it is a JPEG
    transparent = image.has_transparency_data
    image.load()
    if not transparent:
        # Said behind the pixels it is against PNG's rules, and no memory was reserved for it.
        image.info.pop("transparency", None)
    orientation = _orientation(image)
    if orientation in _ON_ITS_SIDE:
        size = size[::-1]
    noted: list[str] = []
    pixels = _turn_upright(image, orientation, noted)
    for step in _STEPS:
        pixels = step(pixels, noted)
    if _is_animated(image):
        noted.append("animated_first_frame")
    return DecodedImage(pixels, size, format_name, tuple(noted))


def _most_decode_bytes(image: Image.Image, image_format: str) -> int:
    bytes_per_pixel = _BYTES_PER_PIXEL[image_format]
    if image.has_transparency_data:
        bytes_per_pixel += _BYTES_PER_PIXEL_TO_FLATTEN
    return image.width * image.height * bytes_per_pixel


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(f"more than {limits.max_pixels} pixels")
    if max(width, height) > limits.max_side:
        raise ImageTooLargeError(f"a side of more than {limits.max_side} pixels")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; broken EXIF is no reason to refuse sound pixels."""
    if "exif" in image.info:
        image.info["exif"] = image.info["exif"][:_MAX_EXIF_BYTES]
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except Exception:  # noqa: BLE001 # Pillow's EXIF reader raises whatever it stumbles over
        return _UPRIGHT
    return value if value in _TURNS else _UPRIGHT


def _turn_upright(image: Image.Image, orientation: int, noted: list[str]) -> Image.Image:
    if orientation == _UPRIGHT:
        return image
    noted.append("exif_rotated")
    return image.transpose(_TURNS[orientation])


def _scale_16_bit(image: Image.Image, noted: list[str]) -> Image.Image:
    """Map 0..65535 to 0..255; Pillow's own conversion would clip at 255."""
    if not image.mode.startswith("I"):
        return image
    noted.append("grey_16bit_scaled")
    # Linear, so Pillow computes it without a copy in a wider type.
    grey = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    clear_value = image.info.get("transparency")
    if clear_value is None:
        return grey
    import numpy as np

    opaque = Image.fromarray(np.where(np.asarray(image) == clear_value, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, opaque))


def _flatten_alpha(image: Image.Image, noted: list[str]) -> Image.Image:
    """Composite transparency on white, as the reference processor does."""
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() != (255, 255):
        noted.append("alpha_flattened")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


def _convert_to_rgb(image: Image.Image, _noted: list[str]) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


_STEPS: tuple[Callable[[Image.Image, list[str]], Image.Image], ...] = (
    _scale_16_bit,
    _flatten_alpha,
    _convert_to_rgb,
)


def _is_animated(image: Image.Image) -> bool:
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 # a broken second frame does not matter
        return False


def _as_image_error(error: Exception, image_format: str, limits: DecodeLimits) -> ImageError:
    name = image_format.upper()
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageTooLargeError(f"more than {limits.max_pixels} pixels")
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return ImageTruncatedError(f"the {name} ends early")
    return ImageUndecodableError(f"the {name} cannot be decoded")
