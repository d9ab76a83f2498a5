"""Which way up an image is, told by its metadata and undone by turning it."""

import re
from types import MappingProxyType

# Pillow reads Exif with the last, which it would import within the first image.
from PIL import ExifTags, Image, TiffImagePlugin  # noqa: F401

from app.intake.outline import MAX_EXIF_BYTES

_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

UPRIGHT = 1
# How to undo each EXIF orientation but 1. Pillow's exif_transpose also rewrites all other EXIF,
# which here is a stranger's and not needed.
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
# The same in two steps: some are flipped, which moves whole rows and is quick, then all are turned.
_FLIPPED_FIRST = (6, 7)
_TURNS_AFTER_FLIP = MappingProxyType(
    {
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.TRANSPOSE,
        7: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_90,
    }
)


def read_orientation(exif: bytes | None, xmp: bytes | memoryview | None) -> int:
    """Return the EXIF orientation, 1 to 8; broken EXIF is no reason to refuse sound pixels."""
    try:
        value = _exif_orientation(exif)
    except Exception:  # noqa: BLE001 # Pillow's EXIF reader raises whatever it stumbles over
        return UPRIGHT
    if value is None and xmp and (found := _XMP_ORIENTATION.search(xmp)):
        value = int(found[1])
    return value if isinstance(value, int) and value in _TURNS else UPRIGHT


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the width and height that an image of `size` has when it is upright."""
    return size[::-1] if orientation in _ON_ITS_SIDE else size


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image turned; itself where there is nothing to turn."""
    return image if orientation == UPRIGHT else image.transpose(_TURNS[orientation])


def resize_upright(
    image: Image.Image, orientation: int, size: tuple[int, int], resample: int
) -> Image.Image:
    """Turn an image and resize it to `size`: `turn_upright(...).resize(...)`, bit for bit.

    Pillow resizes rows, rounds, then resizes columns. What is to be a row is a column while an
    image lies on its side, so those are resized first, and only what is left of them is turned.
    """
    if orientation not in _ON_ITS_SIDE or _resizes_columns_first(image.size[::-1], size):
        return turn_upright(image, orientation).resize(size, resample)
    if orientation in _FLIPPED_FIRST:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    resized = image.resize((image.width, size[0]), resample)
    return resized.transpose(_TURNS_AFTER_FLIP[orientation]).resize(size, resample)


def _resizes_columns_first(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Tell whether Pillow does, as since version 13 for what loses far more rows than columns."""
    columns, rows = (old - new for old, new in zip(before, after, strict=True))
    return rows > max(0, 2 * columns)


def _exif_orientation(exif: bytes | None) -> object:
    if exif is None:
        return None
    directory = Image.Exif()
    directory.load(exif[:MAX_EXIF_BYTES])
    return directory.get(ExifTags.Base.Orientation)
