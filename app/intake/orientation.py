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


def _exif_orientation(exif: bytes | None) -> object:
    if exif is None:
        return None
    directory = Image.Exif()
    directory.load(exif[:MAX_EXIF_BYTES])
    return directory.get(ExifTags.Base.Orientation)
