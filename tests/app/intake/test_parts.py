"""Files of very many parts are refused unread, honest ones of many parts are not."""

import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from app.errors import ImageSuspiciousError, ImageTooLargeError
from app.intake.decode import DecodeLimits, decode_image
from app.intake.gif import outline_gif
from tests.app.images import animation, encode, scene

LIMITS = DecodeLimits(20 * 2**20, 50_000_000, 16384, frozenset({"png", "gif", "webp", "bmp"}))


def chunk(name: bytes, content: bytes = b"") -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png_with(chunks: bytes) -> bytes:
    whole = encode(scene(0))
    return whole[:33] + chunks + whole[33:]


def run_length_bmp(runs: bytes, size: tuple[int, int]) -> bytes:
    palette = b"".join(struct.pack("<I", 0x010101 * grey) for grey in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + palette + runs


@pytest.mark.parametrize(
    "chunks",
    [
        90_000 * chunk(b"abCd"),
        20_000 * chunk(b"tEXt", b"a\0b"),
        15_000 * chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20))),
        15_000 * chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(2**20))),
    ],
    ids=["unknown", "texts", "profiles", "packed texts"],
)
def test_a_png_of_many_chunks_is_read(chunks: bytes) -> None:
    pixels = np.asarray(decode_image(png_with(chunks), LIMITS).pixels)
    assert np.array_equal(pixels, np.asarray(scene(0)))


@pytest.mark.parametrize("name", [b"iCCP", b"IDAT", b"abCd"])
def test_a_png_of_very_many_chunks_is_refused(name: bytes) -> None:
    with pytest.raises(ImageSuspiciousError, match="chunks"):
        decode_image(png_with(100_000 * chunk(name)), LIMITS)


def test_chunks_behind_the_pixels_count() -> None:
    data = encode(scene(0))[:-12] + 100_000 * chunk(b"abCd") + chunk(b"IEND")
    with pytest.raises(ImageSuspiciousError, match="chunks"):
        decode_image(data, LIMITS)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP"])
def test_an_animation_of_many_frames_is_read(image_format: str) -> None:
    data = animation([(i % 256, i // 256, 0) for i in range(1_000)], image_format)
    assert decode_image(data, LIMITS).warnings == ("animated_first_frame",)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_webp_of_very_many_chunks_is_refused(size: int) -> None:
    part = b"abCd" + struct.pack("<I", size) + bytes(size + size % 2)
    content = encode(scene(0), "WEBP", xmp=b"<x/>")[8:] + 65_000 * part
    with pytest.raises(ImageSuspiciousError, match="chunks"):
        decode_image(b"RIFF" + struct.pack("<I", len(content)) + content, LIMITS)


@pytest.mark.parametrize(
    "blocks",
    [
        b"!\x01\1a\0" * 30_000,
        b"!\x01" + b"\x01a" * 300_000 + b"\0",
        b"!\x01\0;" + b"a" * 59 + b"\x01a" * 300_000 + b"\0",
        b"!\xff\x0bNETSCAPE2.0\0" + b"\x01a" * 300_000 + b"\0",
    ],
    ids=["extensions", "of one", "behind an empty one", "behind a loop count that is missing"],
)
def test_a_gif_of_very_many_blocks_is_refused(blocks: bytes) -> None:
    with pytest.raises(ImageSuspiciousError, match="blocks"):
        decode_image(gif_with(blocks), LIMITS)


def test_a_gif_of_much_between_its_blocks_is_read() -> None:
    assert decode_image(gif_with(bytes(300_000)), LIMITS).size == (8, 6)


def test_very_many_blocks_behind_a_gifs_first_frame_are_not_read() -> None:
    """Then it is not known to be an animation."""
    comment = b"!\xfe" + b"\x01a" * 300_000 + b"\0"
    two_frames = animation([(255, 0, 0), (0, 0, 255)], "GIF")
    second = two_frames.rindex(b"!\xf9")

    decoded = decode_image(two_frames[:second] + comment + two_frames[second:], LIMITS)

    assert decoded.pixels.getcolors() == [(48, (255, 0, 0))]
    assert decoded.warnings == ()


def test_a_gif_whose_later_frame_is_huge_has_a_first_frame() -> None:
    two_frames = animation([(255, 0, 0), (0, 0, 255)], "GIF")
    second = two_frames.rindex(b",\0\0\0\0\x08\0\x06\0")
    huge = two_frames[: second + 5] + b"\xff\xff\xff\xff" + two_frames[second + 9 :]

    decoded = decode_image(huge, LIMITS)

    assert decoded.pixels.getcolors() == [(48, (255, 0, 0))]
    assert decoded.warnings == ("animated_first_frame",)


def gif_with(blocks: bytes) -> bytes:
    """Put blocks in front of a GIF's frame."""
    grey = encode(Image.new("L", (8, 6)), "GIF")
    start = 13 + (3 << ((grey[10] & 7) + 1))
    return grey[:start] + blocks + grey[start:]


def test_an_honest_run_length_coded_bmp_is_read() -> None:
    data = run_length_bmp((b"\x08\x80" + b"\0\0") * 6 + b"\0\1", (8, 6))
    assert decode_image(data, LIMITS).pixels.getcolors() == [(48, (128, 128, 128))]


@pytest.mark.parametrize(
    ("runs", "size"), [(b"\1\1" * 1_100_000, (1_000, 1_000)), (b"\0\1", (3_000, 2_000))]
)
def test_a_large_run_length_coded_bmp_is_refused(runs: bytes, size: tuple[int, int]) -> None:
    with pytest.raises(ImageSuspiciousError, match="run-length"):
        decode_image(run_length_bmp(runs, size), LIMITS)


@pytest.mark.parametrize(
    "in_front", [b"", b"!\x01\0;" + b"a" * 59 + b"\0"], ids=["openly", "behind an empty block"]
)
def test_a_gif_whose_frame_reaches_far_beyond_its_screen_is_refused_before_pillow_fills_it(
    in_front: bytes,
) -> None:
    control = b"!\xf9\x04" + bytes([2 << 2 | 1, 0, 0, 1]) + b"\0"
    frame = b"," + struct.pack("<4HB", 0, 0, 13_370, 13_370, 0) + b"\x02\x01\x44\0"
    data = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + in_front + control + frame + b";"

    tracemalloc.start()
    with pytest.raises(ImageTooLargeError):
        outline_gif(data, LIMITS.max_pixels)
    with pytest.raises(ImageTooLargeError):
        decode_image(data, LIMITS)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_transparency_that_is_told_behind_the_pixels_comes_too_late() -> None:
    """No memory was reserved for it, and PNG's rules want it in front."""
    grey = encode(Image.new("L", (8, 6), 77))
    late = grey[:-12] + chunk(b"tRNS", b"\0\x4d") + grey[-12:]
    in_front = grey[:33] + chunk(b"tRNS", b"\0\x4d") + grey[33:]

    assert decode_image(in_front, LIMITS).pixels.getpixel((0, 0)) == (255, 255, 255)
    assert decode_image(late, LIMITS).pixels.getpixel((0, 0)) == (77, 77, 77)


def test_what_metadata_says_of_itself_is_not_logged() -> None:
    """In a process of its own: warnings are errors here."""
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 9)
    exif += b"".join(struct.pack(">HHII", tag, 1, 10**7, 8) for tag in range(9)) + bytes(4)
    data = png_with(chunk(b"eXIf", exif))
    script = """
import sys
from app.intake.decode import DecodeLimits, decode_image
limits = DecodeLimits(2**20, 10**6, 16384, frozenset({"png"}))
print(decode_image(sys.stdin.buffer.read(), limits).size)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=True
    )

    assert shown.stdout.startswith(b"(")
    assert shown.stderr == b""
