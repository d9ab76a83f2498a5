"""Images made in the tests, and their encodings."""

import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image

Colour = tuple[int, int, int]

NO_IMAGE = b"these bytes are no image"


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """Encode an image with Pillow, and as HEIC with libheif."""
    file = BytesIO()
    if image_format.upper() == "HEIC":
        from pillow_heif import from_pillow  # an extra that few tests need

        from_pillow(image).save(file, **options)
    else:
        image.save(file, image_format, **options)
    return file.getvalue()


def plain(colour: Colour, size: tuple[int, int] = (8, 6)) -> Image.Image:
    """Make an image of one colour."""
    return Image.new("RGB", size, colour)


def plain_png(colour: Colour, size: tuple[int, int] = (8, 6)) -> bytes:
    """Make an image of one colour, encoded without loss."""
    return encode(plain(colour, size))


def scene(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Make an image of large coloured shapes that differs for every seed and has no symmetry."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def oriented(upright: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """Return the stored pixels and the EXIF that make up an upright image."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    return stored, exif


def animation(colours: list[Colour], image_format: str, **options: Any) -> bytes:
    """Encode frames of one colour each as an animation."""
    first, *others = (plain(colour) for colour in colours)
    return encode(first, image_format, save_all=True, append_images=others, **options)


def truncated_jpeg() -> bytes:
    """Return a JPEG that ends in the middle of its data."""
    whole = encode(scene(0), "JPEG")
    return whole[: len(whole) // 2]


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size that its few bytes of data do not fill."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, content) for name, content in chunks)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + name + content + checksum
