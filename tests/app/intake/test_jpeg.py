"""JPEGs that cost more than they look like, or claim more than they hold, are refused unread."""

from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from app.errors import ImageSuspiciousError
from app.intake.decode import DecodeLimits, decode_image
from app.intake.jpeg import JpegOutline, check_jpeg

LIMITS = DecodeLimits(20 * 2**20, 50_000_000, 16384, frozenset({"jpeg"}))


def jpeg(side: int, *, progressive: bool = False) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (side, side), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "JPEG", progressive=progressive)
    return file.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data, LIMITS).pixels)


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


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def with_head(head: bytes) -> bytes:
    data = jpeg(64)
    return data[:2] + head + data[2:]


def orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return segment(0xE1, exif.tobytes())


@pytest.mark.parametrize(
    "head",
    [
        segment(0xFE, b"a comment with an end marker: \xff\xd9"),
        segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) * 300,
        segment(0xE2, b"MPF\0" + bytes(100)),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 100),
        b"\xff" * 1_000,
        segment(0xFE, b"") + bytes(1_000),
        segment(0xFE, b"") + b"\xff\x00" * 100,
    ],
    ids=["comment", "profile", "pictures", "photoshop", "padding", "junk", "escaped"],
)
def test_what_the_pixels_do_not_need_does_not_change_them(head: bytes) -> None:
    assert np.array_equal(pixels_of(with_head(head)), pixels_of(jpeg(64)))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr"])
def test_what_tells_the_colour_space_is_kept(mode: str) -> None:
    file = BytesIO()
    Image.linear_gradient("L").convert(mode).save(file, "JPEG", comment=b"dropped")
    with Image.open(BytesIO(file.getvalue())) as opened:
        expected = np.asarray(opened.convert("RGB"))
    assert np.array_equal(pixels_of(file.getvalue()), expected)


def test_the_first_exif_tells_the_orientation() -> None:
    data = with_head(segment(0xFE, b"before") + orientation(6) + orientation(3))
    turned = decode_image(jpeg(64), LIMITS).pixels.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(pixels_of(data), np.asarray(turned))


def test_without_exif_the_xmp_tells_the_orientation() -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    assert decode_image(with_head(segment(0xE1, xmp)), LIMITS).warnings == ("exif_rotated",)


def test_what_follows_the_image_does_not_count() -> None:
    """As in a photograph with a film behind it."""
    data = jpeg(64) + b"\xff\xda" * 5_000
    assert decode_image(data, LIMITS).size == (64, 64)


FILL = b"\xff" * 5_000


@pytest.mark.parametrize(
    "end", [FILL + b"\xff\xd9", FILL + b"\xd0\0\xff\xd9", FILL + b"\0", FILL, FILL + b"\xff\xfe\0"]
)
def test_long_padding_among_the_pixels_is_refused(end: bytes) -> None:
    with pytest.raises(ImageSuspiciousError, match="padding"):
        decode_image(jpeg(64)[:-2] + end, LIMITS)


@pytest.mark.parametrize("end", [b"\xff" * 100 + b"\xd9", b"\xff\xd9" + FILL])
def test_other_padding_is_not(end: bytes) -> None:
    """What is short may be an encoder's, what is behind the image anything."""
    assert np.array_equal(pixels_of(jpeg(64)[:-2] + end), pixels_of(jpeg(64)))


def test_an_end_marker_inside_a_segment_hides_no_scans() -> None:
    bomb = repeat_last_scan(jpeg(64, progressive=True), 2_000)
    tables = bomb.index(b"\xff\xc4", bomb.index(b"\xff\xda"))
    hidden = bomb[:tables] + segment(0xFE, b"\xff\xd9") + bomb[tables:]
    with pytest.raises(ImageSuspiciousError, match="scans"):
        decode_image(hidden, LIMITS)


def test_thousands_of_segments_are_refused() -> None:
    with pytest.raises(ImageSuspiciousError, match="segments"):
        decode_image(with_head(segment(0xE1, b"") * 1_000), LIMITS)


def test_a_large_arithmetic_coded_jpeg_is_refused() -> None:
    """Pillow writes none, but a frame marker is enough to be taken for one."""
    data = jpeg(2_000).replace(b"\xff\xc0", b"\xff\xc9", 1)

    with pytest.raises(ImageSuspiciousError, match="arithmetic"):
        pixels_of(data)


def test_a_small_arithmetic_coded_jpeg_may_be_shorter_than_a_bit_a_block() -> None:
    check_jpeg(JpegOutline(b"", scans=1, arithmetic=True), (1_000, 1_000))
    with pytest.raises(ImageSuspiciousError, match="short"):
        check_jpeg(JpegOutline(b"", scans=1, arithmetic=False), (1_000, 1_000))
