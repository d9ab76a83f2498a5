"""HEIC: rebuilt from its primary image, which may be a grid of tiles; needs the extra `heic`."""

import struct

from PIL import Image

from app.errors import UnsupportedImageFormatError
from app.intake.heif import HeifImage, check_tiles, needed_items, read_heif
from app.intake.heif_rebuilt import item_bytes, rebuild
from app.intake.heif_turns import read_turns, turns_of
from app.intake.outline import Outline, undecodable

# The crop comes before all turns, which are told apart.
_KEPT = frozenset({b"ispe", b"pixi", b"hvcC", b"colr", b"auxC", b"clap"})
_GRID, _CODED = b"grid", b"hvc1"
_WIDE_GRID = 1  # a flag: the size is of four bytes each, and not of two


def load_heic_decoder() -> None:
    """Import libheif, which Pillow then knows as HEIC; raises `ImportError`.

    Its own limits stay on. It has no threads beside the caller's, whose time counts.
    """
    from pillow_heif import HeifImageFile, options

    options.DECODE_THREADS = 0
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    Image.register_open("HEIC", HeifImageFile)


def outline_heic(data: bytes, max_pixels: int) -> Outline:
    """Rebuild a HEIC of one image.

    Which way up it is only its own properties tell, not its Exif. Raises `ImageTooLargeError`,
    `ImageSuspiciousError`, `ImageTruncatedError`, `ImageUndecodableError`, and
    `UnsupportedImageFormatError` for an image that is made of others in another way than a grid.
    """
    image = read_heif(data)
    needed = needed_items(image)
    _check_kinds(image, needed)
    check_tiles(image, needed, max_pixels)
    _check_grids(image, data, needed)
    turns = turns_of(image)
    if b"clap" in turns[1:] or len(set(turns)) < len(turns):
        raise undecodable("HEIC")
    load_heic_decoder()
    return Outline(
        rebuild(image, data, needed, b"heic", _KEPT),
        orientation=read_turns(image, in_order=True),
        animated=image.has_track,
    )


def _check_kinds(image: HeifImage, needed: list[int]) -> None:
    """Refuse what is coded otherwise, and images laid over each other, which cost as many."""
    for number in needed:
        kind = image.items[number].kind
        if kind not in (_GRID, _CODED):
            name = kind.decode("ascii", "replace") if kind.isalnum() else "?"
            raise UnsupportedImageFormatError(
                f"this HEIC is made of {name} items, not of HEVC: convert it"
            )


def _check_grids(image: HeifImage, data: bytes, needed: list[int]) -> None:
    """Refuse a grid that is of another size than its item claims, which was checked."""
    for number in needed:
        item = image.items[number]
        if item.kind != _GRID:
            continue
        content = item_bytes(image, data, number)
        is_wide = len(content) > 1 and content[1] & _WIDE_GRID
        size = ">2I" if is_wide else ">2H"
        claimed = item.find(b"ispe")
        if claimed is None or len(content) < 4 + struct.calcsize(size):
            raise undecodable("HEIC")
        if struct.unpack_from(size, content, 4) != struct.unpack_from(">2I", claimed, 4):
            raise undecodable("HEIC")
