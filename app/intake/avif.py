"""AVIF: rebuilt from its primary image; the first image of a sequence."""

import struct

from PIL import AvifImagePlugin

from app.intake.heif import HeifImage, check_tiles, needed_items, read_heif, rebuild
from app.intake.outline import Outline

_KEPT = frozenset({b"ispe", b"pixi", b"av1C", b"colr", b"auxC", b"a1op", b"a1lx", b"lsel"})
_EXIF = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1"
# The EXIF orientation for turns by 90 degrees anti-clockwise and then no mirror, one that swaps top
# and bottom, one that swaps left and right.
_ORIENTATIONS = ((1, 4, 2), (8, 5, 7), (3, 2, 4), (6, 7, 5))

# As many as there are cores would each have a part of the image, and their time counts.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def outline_avif(data: bytes, max_pixels: int) -> Outline:
    """Rebuild an AVIF of one image.

    Which way up it is only its own properties tell, not its Exif. Raises `ImageTooLargeError`,
    `ImageSuspiciousError`, `ImageTruncatedError`, `ImageUndecodableError`.
    """
    image = read_heif(data)
    needed = needed_items(image)
    check_tiles(image, needed, max_pixels)
    return Outline(
        rebuild(image, data, needed, b"avif", _KEPT),
        exif=_EXIF + struct.pack(">HHI", _orientation(image), 0, 0),
        animated=image.has_track,
    )


def _orientation(image: HeifImage) -> int:
    item = image.items[image.primary]
    turns, mirror = item.find(b"irot"), item.find(b"imir")
    angle = turns[0] & 3 if turns else 0
    return _ORIENTATIONS[angle][1 + (mirror[0] & 1) if mirror else 0]
