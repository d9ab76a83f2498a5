"""JPEGs that cost more than they look like, or claim more than they hold, are refused unread."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from app.errors import ImageSuspiciousError
from app.intake.decode import DecodeLimits, decode_image

LIMITS = DecodeLimits(20 * 2**20, 50_000_000, 16384, frozenset({"jpeg"}))


def jpeg(side: int, *, progressive: bool = False) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (side, side), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "JPEG", progressive=progressive)
    return file.getvalue()


def repeat_last_scan(data: bytes, times: int) -> bytes:
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * times + b"\xff\xd9"


@pytest.mark.parametrize("progressive", [False, True])
def test_an_honest_jpeg_is_read(progressive: bool) -> None:
    data = jpeg(64, progressive=progressive)
    assert decode_image(data, LIMITS).size == (64, 64)


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = repeat_last_scan(jpeg(64, progressive=True), 2000)
    with pytest.raises(ImageSuspiciousError, match="scans"):
        decode_image(data, LIMITS)


def test_few_scans_over_very_many_pixels_are_refused() -> None:
    data = repeat_last_scan(jpeg(1000, progressive=True), 60)
    huge = data.replace((1000).to_bytes(2, "big") * 2, (7000).to_bytes(2, "big") * 2, 1)
    with pytest.raises(ImageSuspiciousError):
        decode_image(huge, LIMITS)


def test_scan_markers_inside_a_comment_do_not_count() -> None:
    data = jpeg(64)
    comment = b"\xff\xda" * 500
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    assert decode_image(data[:2] + segment + data[2:], LIMITS).size == (64, 64)


def test_a_few_bytes_that_claim_many_pixels_are_refused() -> None:
    data = jpeg(8)
    lying = data.replace((8).to_bytes(2, "big") * 2, (7000).to_bytes(2, "big") * 2, 1)
    assert lying != data
    with pytest.raises(ImageSuspiciousError, match="too short"):
        decode_image(lying, LIMITS)
