"""JPEGs that cost more than they look like, or claim more than they hold, are refused unread."""

from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from app.errors import ImageSuspiciousError, ImageTruncatedError
from app.intake.decode import DecodeLimits, decode_image
from app.intake.jpeg import JpegOutline

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
        segment(0xE5, bytes(16)) * 1_200,
        b"\xff\xfe\0\0",
        b"\xff\xe5\0\1",
        b"\xff\xdc\0\0",
        segment(0xE0, b"JFIF\0\1"),
        segment(0xEE, b"Adobe"),
    ],
    ids=[
        *("comment", "profile", "pictures", "photoshop", "padding", "junk", "escaped"),
        *("many", "empty comment", "empty application data", "empty DNL", "short JFIF"),
        "short Adobe",
    ],
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


ENDS = {
    "fill before the end": FILL + b"\xff\xd9",
    "fill before a restart": FILL + b"\xd0\0\xff\xd9",
    "fill before what is skipped": FILL + b"\xff\xfe\0\0\xff\xd9",
    "fill before a pixel": FILL + b"\0\xff\xd9",
    "fill behind the end": b"\xff\xd9" + FILL,
    "fill for an end": FILL,
    "zeros behind the end": b"\xff\xd9" + bytes(8192),
    "zeros for an end": bytes(8192),
    "half an end": b"\xff",
    "no end": b"",
    "another beginning": b"\xff\xd8\xff\xe0",
    "half a segment": b"\xff\xfe\0\x50",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_an_image_that_is_whole_is_read_however_it_ends(end: bytes) -> None:
    """As on cards with erased sectors, and after transfers that stop a little early."""
    assert np.array_equal(pixels_of(jpeg(64)[:-2] + end), pixels_of(jpeg(64)))


@pytest.mark.parametrize("lost", [10, 100, 1_000])
@pytest.mark.parametrize("end", [b"", b"\xff\xd8", b"\xff\xf0"], ids=["nothing", "SOI", "JPG0"])
def test_an_image_that_is_not_whole_is_not_filled_up(lost: int, end: bytes) -> None:
    with pytest.raises(ImageTruncatedError):
        decode_image(jpeg(64)[: -2 - lost] + end, LIMITS)


def test_a_run_of_fill_among_the_pixels_is_read_as_by_pillow() -> None:
    """A sector of a card that was erased: it stands for one byte of FF, and what follows is off."""
    whole = jpeg(256)
    middle = len(whole) // 2
    data = whole[:middle] + b"\xff" * 16_384 + b"\0" + whole[middle:]
    with Image.open(BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))

    assert np.array_equal(pixels_of(data), expected)


def test_an_end_marker_inside_a_segment_hides_no_scans() -> None:
    bomb = repeat_last_scan(jpeg(64, progressive=True), 2_000)
    tables = bomb.index(b"\xff\xc4", bomb.index(b"\xff\xda"))
    hidden = bomb[:tables] + segment(0xFE, b"\xff\xd9") + bomb[tables:]
    with pytest.raises(ImageSuspiciousError, match="scans"):
        decode_image(hidden, LIMITS)


@pytest.mark.parametrize("marker", [0xFE, 0xE5, 0xDC])
@pytest.mark.parametrize("length", [0, 1])
def test_a_segment_shorter_than_its_length_hides_no_scans(marker: int, length: int) -> None:
    """Libjpeg reads on behind the length."""
    bomb = repeat_last_scan(jpeg(64, progressive=True), 2_000)
    last = bomb.rindex(b"\xff\xda")
    hidden = bytes((0xFF, marker, 0, length))
    with pytest.raises(ImageSuspiciousError, match="scans"):
        decode_image(bomb[:-2] + hidden + bomb[last:-2] * 2_000 + bomb[-2:], LIMITS)


def test_tens_of_thousands_of_segments_are_refused() -> None:
    with pytest.raises(ImageSuspiciousError, match="segments"):
        decode_image(with_head(segment(0xE1, b"") * 10_000), LIMITS)


def test_thousands_of_tables_are_refused() -> None:
    """Four are in use; Pillow reads each in Python."""
    tables = segment(0xDB, (b"\0" + b"\1" * 64) * 1_000)
    with pytest.raises(ImageSuspiciousError, match="tables"):
        decode_image(with_head(tables + tables), LIMITS)


def test_a_large_arithmetic_coded_jpeg_is_refused() -> None:
    """Pillow writes none, but a frame marker is enough to be taken for one."""
    data = jpeg(2_000).replace(b"\xff\xc0", b"\xff\xc9", 1)

    with pytest.raises(ImageSuspiciousError, match="arithmetic"):
        pixels_of(data)


def test_a_small_arithmetic_coded_jpeg_may_be_shorter_than_a_bit_a_block() -> None:
    JpegOutline(b"", scans=1, arithmetic=True).check_size((1_000, 1_000))
    with pytest.raises(ImageSuspiciousError, match="short"):
        JpegOutline(b"", scans=1, arithmetic=False).check_size((1_000, 1_000))
