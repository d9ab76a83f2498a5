"""Alpha of a BMP, which many writers leave at 0 where they have none."""

import struct

import numpy as np
import pytest
from PIL import Image

from app.intake.decode import DecodedImage, DecodeLimits, decode_image
from tests.app.images import scene

LIMITS = DecodeLimits(2**20, 10**6, 65_535, frozenset({"bmp"}))
PICTURE = scene(2, (12, 9))
MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
HEADER_BYTES = {"info": 40, "V2": 52, "V3": 56, "V4": 108, "V5": 124}
BITFIELDS, RAW = 3, 0


def bmp(alpha: Image.Image, header: str = "V5", compression: int = BITFIELDS) -> bytes:
    """Write the picture and alpha in 32 bits a pixel, blue first, the last row first."""
    pixels = np.dstack([np.asarray(PICTURE)[..., ::-1], np.asarray(alpha)])[::-1].tobytes()
    size = HEADER_BYTES[header]
    width, height = PICTURE.size
    info = struct.pack("<I2i2H6I", size, width, height, 1, 32, compression, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<4I", *MASKS) if compression == BITFIELDS else b""
    info = (info + (masks if size > 40 else b"")).ljust(size, b"\0")[:size]
    info += masks[:12] if size == 40 else b""
    start = 14 + len(info)
    return struct.pack("<2sI2HI", b"BM", start + len(pixels), 0, 0, start) + info + pixels


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, LIMITS)


def flat(value: int) -> Image.Image:
    return Image.new("L", PICTURE.size, value)


@pytest.mark.parametrize("header", HEADER_BYTES)
@pytest.mark.parametrize("compression", [RAW, BITFIELDS])
@pytest.mark.parametrize("value", [0, 255])
def test_alpha_that_is_zero_or_full_everywhere_is_none(
    header: str, compression: int, value: int
) -> None:
    decoded = decode(bmp(flat(value), header, compression))

    assert decoded.pixels.tobytes() == PICTURE.tobytes()
    assert decoded.warnings == ()


@pytest.mark.parametrize("box", [(3, 3, 4, 4), (0, 0, 6, 9)])
@pytest.mark.parametrize("header", ["V3", "V4", "V5"])
def test_alpha_of_any_pixel_is_alpha_of_all(box: tuple[int, int, int, int], header: str) -> None:
    alpha = flat(0)
    alpha.paste(128, box)

    decoded = decode(bmp(alpha, header))

    clear = PICTURE.convert("RGBA")
    clear.putalpha(alpha)
    white = Image.new("RGBA", PICTURE.size, "white")
    assert decoded.pixels.tobytes() == Image.alpha_composite(white, clear).convert("RGB").tobytes()
    assert decoded.warnings == ("alpha_flattened",)


def test_masks_that_are_all_zero_are_taken_for_the_usual_ones() -> None:
    data = bmp(flat(0))
    data = data[:54] + bytes(16) + data[70:]

    assert decode(data).pixels.tobytes() == PICTURE.tobytes()
