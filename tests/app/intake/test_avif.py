"""AVIF: upright as its own properties say, and bounded by what its items claim."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from app.errors import ImageError, ImageSuspiciousError, ImageTooLargeError
from app.intake.avif import outline_avif
from app.intake.decode import DecodeLimits, decode_image
from app.intake.decode_process import DecodeProcess
from tests.app.images import animation, encode, scene

LIMITS = DecodeLimits(2**24, 64_000_000, 65_535, frozenset({"avif"}))
PICTURE = scene(1)
AVIF = encode(PICTURE, "AVIF")


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Let a file claim a size."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_it_is_upright_as_pillow_has_it(orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = PICTURE.convert(mode)
    if mode == "RGBA":
        stored.putalpha(Image.linear_gradient("L").resize(stored.size))
    data = encode(stored, "AVIF", exif=exif)

    decoded = decode_image(data, LIMITS)

    with Image.open(BytesIO(data)) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGBA")
    white = Image.new("RGBA", expected.size, "white")
    on_white = Image.alpha_composite(white, expected).convert("RGB")
    assert np.array_equal(np.asarray(decoded.pixels), np.asarray(on_white))
    assert decoded.size == on_white.size
    assert ("exif_rotated" in decoded.warnings) == (orientation > 1)


def test_a_sequence_is_its_first_image() -> None:
    data = animation([(255, 0, 0), (0, 0, 255)], "AVIF", quality=100, subsampling="4:4:4")

    decoded = decode_image(data, LIMITS)

    assert decoded.warnings == ("animated_first_frame",)
    assert np.abs(np.asarray(decoded.pixels).astype(int) - (255, 0, 0)).max() <= 3


def test_a_file_that_names_its_container_first_is_read() -> None:
    data = AVIF.replace(b"ftypavif", b"ftypmif1")
    assert decode_image(data, LIMITS).pixels.tobytes() == (
        decode_image(AVIF, LIMITS).pixels.tobytes()
    )


@pytest.mark.parametrize("size", [(8000, 8001), (2**31, 1), (2**32 - 1, 2**32 - 1)])
def test_a_claim_over_the_limit_is_refused_before_anything_is_opened(
    size: tuple[int, int],
) -> None:
    with pytest.raises(ImageTooLargeError):
        outline_avif(with_size(AVIF, *size), LIMITS.max_pixels)


def test_pixels_far_beyond_what_a_file_claims_have_no_memory() -> None:
    """Those of fewer are enlarged to the claim, within the memory and the time of that."""
    process = DecodeProcess(LIMITS)
    large = encode(scene(2, (6_000, 6_000)), "AVIF", speed=10)
    try:
        with pytest.raises(ImageError):
            process.decode(with_size(large, 8, 8), None, lambda _: None)
        enlarged = process.decode(with_size(AVIF, 4_000, 4_000), None, lambda _: None)
    finally:
        process.close()
    assert enlarged.pixels_size == enlarged.size == (4_000, 4_000)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_a_file_that_ends_early_is_refused(share: float) -> None:
    with pytest.raises(ImageError):
        decode_image(AVIF[: int(len(AVIF) * share)], LIMITS)


def test_bytes_that_are_used_again_and_again_are_no_image() -> None:
    at = AVIF.index(b"iloc")
    entry = AVIF[at + 18 : at + 26]
    iloc = AVIF[at + 4 : at + 16] + struct.pack(">H", 5_000) + entry * 5_000
    size = struct.pack(">I", len(iloc) + 8)
    grown = AVIF[: at - 4] + size + b"iloc" + iloc + AVIF[at + 26 :]
    meta = grown.index(b"meta") - 4
    grown_by = len(grown) - len(AVIF)
    old = int.from_bytes(grown[meta : meta + 4], "big")
    grown = grown[:meta] + struct.pack(">I", old + grown_by) + grown[meta + 4 :]

    with pytest.raises(ImageSuspiciousError):
        outline_avif(grown.ljust(10**5, b"\0"), LIMITS.max_pixels)


def test_boxes_without_end_are_no_image() -> None:
    with pytest.raises(ImageSuspiciousError):
        outline_avif(AVIF[:32] + b"\0\0\0\x08free" * 20_000, LIMITS.max_pixels)
