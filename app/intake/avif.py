"""AVIF: rebuilt from its primary image; the first image of a sequence."""

from PIL import AvifImagePlugin

from app.intake.heif import check_tiles, needed_items, read_heif
from app.intake.heif_rebuilt import rebuild
from app.intake.heif_turns import read_turns
from app.intake.outline import Outline

_KEPT = frozenset({b"ispe", b"pixi", b"av1C", b"colr", b"auxC", b"a1op", b"a1lx", b"lsel"})

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
        orientation=read_turns(image),
        animated=image.has_track,
    )
