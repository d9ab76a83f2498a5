"""The transparent value of a PNG, against samples read without Pillow."""

import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app.intake.decode import DecodeLimits, decode_image
from app.intake.decode_process import DecodeProcess
from tests.app.intake.mutants import chunk

LIMITS = DecodeLimits(2**26, 64_000_000, 65_535, frozenset({"png"}))
Samples = npt.NDArray[np.uint16]


def png(samples: Samples, depth: int, transparency: bytes) -> bytes:
    """Write samples (height, width, 1 or 3) as a PNG of that depth."""
    height, width, count = samples.shape
    bits = (samples[..., None] >> np.arange(depth)[::-1]) & 1
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    packed = zlib.compress(np.insert(rows, 0, 0, axis=1).tobytes(), 1)
    header = struct.pack(">2I5B", width, height, depth, count - 1, 0, 0, 0)
    parts = (b"IHDR", header), (b"tRNS", transparency), (b"IDAT", packed), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def noise(depth: int, count: int, *, beside: tuple[int, ...] = ()) -> Samples:
    """Make samples, of which many are those of `beside` or differ from them by one bit."""
    random = np.random.default_rng(depth)
    samples = random.integers(0, 2**depth, (14, 20, count), dtype=np.uint16)
    if beside:
        bits = random.integers(0, depth, samples[::2].shape)
        flipped = random.random(samples[::2].shape) < 0.3
        samples[::2] = np.array(beside, np.uint16) ^ np.where(flipped, 1 << bits, 0)
    return samples


def on_white(samples: Samples, depth: int, clear: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return 8-bit RGB, white where a pixel is the clear one: the specification's 11.3.2.1."""
    scaled = (
        samples >> 8 if samples.shape[2] == 3 and depth == 16 else samples * (255 / (2**depth - 1))
    )
    levels = np.floor(scaled + 0.5).astype(np.uint8)
    levels[(samples == clear).all(axis=2)] = 255
    return np.broadcast_to(levels, (*levels.shape[:2], 3))


def assert_clear(data: bytes, samples: Samples, depth: int, clear: tuple[int, ...]) -> None:
    decoded = decode_image(data, LIMITS)
    assert np.array_equal(np.asarray(decoded.pixels), on_white(samples, depth, clear))
    assert "alpha_flattened" in decoded.warnings


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_each_grey_may_be_the_clear_one(depth: int) -> None:
    for value in {0, 1, 2**depth // 2, 2**depth - 2, 2**depth - 1}:
        samples = noise(depth, 1, beside=(value,))
        assert_clear(png(samples, depth, struct.pack(">H", value)), samples, depth, (value,))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("share", [(0, 0, 0), (1, 1, 1), (0.5, 0.2, 0.9)])
def test_a_colour_is_clear_where_all_its_bits_are(
    depth: int, share: tuple[float, float, float]
) -> None:
    red, green, blue = (round(part * (2**depth - 1)) for part in share)
    samples = noise(depth, 3, beside=(red, green, blue))
    data = png(samples, depth, struct.pack(">3H", red, green, blue))
    assert_clear(data, samples, depth, (red, green, blue))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_of_a_value_beyond_the_depth_the_low_bits_count(depth: int) -> None:
    samples = noise(depth, 1)
    data = png(samples, depth, struct.pack(">H", 0xA500 | (0xFF << depth & 0xFF) | 1))
    assert_clear(data, samples, depth, (1,))


def test_a_clear_colour_of_16_bits_that_is_nowhere_changes_no_pixel() -> None:
    samples = noise(16, 3) | np.uint16(1)
    told, untold = (decode_image(png(samples, 16, value), LIMITS) for value in (bytes(6), bytes(1)))
    assert told.pixels.tobytes() == untold.pixels.tobytes()
    assert told.warnings == untold.warnings == ()


def test_clear_colours_of_16_bits_are_turned_with_their_image() -> None:
    samples = noise(16, 3, beside=(1, 2, 3))
    exif = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    data = png(samples, 16, struct.pack(">3H", 1, 2, 3))
    data = data[:33] + chunk(b"eXIf", exif) + data[33:]

    decoded = decode_image(data, LIMITS)

    upright = np.rot90(on_white(samples, 16, (1, 2, 3)), -1)
    assert np.array_equal(np.asarray(decoded.pixels), upright)


def test_filtered_rows_are_compared_too() -> None:
    picture = Image.radial_gradient("L").convert("RGB")
    samples = np.asarray(picture).astype(np.uint16) * 257
    clear = tuple(int(value) for value in samples[9, 9])
    rows = samples.astype(">u2").tobytes()
    row_bytes = 6 * picture.width
    filtered = b"".join(
        b"\2" + _up(rows[at : at + row_bytes], rows[at - row_bytes : at] if at else b"")
        for at in range(0, len(rows), row_bytes)
    )
    header = struct.pack(">2I5B", *picture.size, 16, 2, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"tRNS", struct.pack(">3H", *clear)),
        (b"IDAT", zlib.compress(filtered)),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

    assert_clear(data, samples, 16, clear)


def _up(row: bytes, above: bytes) -> bytes:
    before = above or bytes(len(row))
    return bytes((one - other) & 255 for one, other in zip(row, before, strict=True))


def test_the_largest_colours_of_16_bits_have_the_time_and_the_memory() -> None:
    """Both halves of their samples are decoded."""
    width, height = 4_000, 4_000
    header = struct.pack(">2I5B", width, height, 16, 2, 0, 0, 0)
    rows = zlib.compress(bytes((1 + 6 * width) * height), 1)
    parts = (b"IHDR", header), (b"tRNS", bytes(6)), (b"IDAT", rows), (b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    process = DecodeProcess(LIMITS)

    received = process.decode(data, None, lambda _: None)

    assert received.rgb == b"\xff" * (3 * width * height)
    process.close()
