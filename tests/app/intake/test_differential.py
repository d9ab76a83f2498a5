"""What is rebuilt against Pillow on the file itself: refused, or the same pixels, bit for bit.

The files are honest ones with their structure damaged: lengths, kinds, order, nesting, ends.
"""

import dataclasses
import re
import struct
import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from app.errors import ImageError
from app.intake.decode import DecodedImage, DecodeLimits, decode_image, open_image
from app.intake.formats import FORMATS
from app.intake.jpeg import outline_jpeg
from app.intake.orientation import turn_upright
from app.intake.pixels import to_grey_or_rgb
from tests.app.intake.mutants import mutants, parts_of, seeds

LIMITS = DecodeLimits(2**20, 300_000, 10_000, frozenset(FORMATS))
COUNT = 2_500

# Why files are refused that Pillow reads, and the codes that they get.
REFUSED = {
    "jpeg": {
        "image_undecodable": "an end marker in front of the frame: tables for a next image",
        "image_truncated": "a scan cut off and nothing behind it but the beginning of a segment",
    },
    "png": {
        "image_undecodable": "IHDR is not first, or not alone, or not of 13 bytes; pixels of a"
        " frame without those of an image; a first frame that is not the whole image",
        "image_truncated": "no IDAT",
    },
    "webp": {"image_undecodable": "frames in a file that says it is no animation"},
    "gif": {"image_truncated": "a frame's pixels go on behind their end"},
    "bmp": {},
    "avif": {
        "image_undecodable": "broken boxes that the primary image does not need; a sequence whose"
        " tracks alone can be followed",
    },
    "heic": {
        "image_undecodable": "broken boxes that the primary image does not need; a crop behind a"
        " turn; a grid of another size than it claims",
        "unsupported_image_format": "no HEVC",
    },
    "tiff": {
        "image_undecodable": "a palette of another length than its bits need; tags of other types",
        "unsupported_image_format": "kinds of samples that Pillow takes for others",
    },
}


def read_with_pillow(data: bytes, image_format: str) -> DecodedImage | None:
    """Return what Pillow makes of a file, turned upright and on white; None for a refusal."""
    try:
        with Image.open(BytesIO(data), formats=(image_format,)) as image:
            if image.width * image.height > LIMITS.max_pixels or max(image.size) > LIMITS.max_side:
                return None
            told_in_front = image.info.get("transparency")
            # Which Pillow does to a TIFF as it loads it.
            is_turned = image_format == "tiff" and _orientation(image) != 1
            image.load()
            image.info.pop("transparency", None)
            if told_in_front is not None:
                image.info["transparency"] = told_in_front
            pixels, noted = _finish(image, is_turned=is_turned)
            is_animated = _is_animated(image)
        if image_format == "tiff":
            is_animated = _has_pages(data)
    except Exception:  # noqa: BLE001 # of seven types
        return None
    noted += ["animated_first_frame"] * is_animated
    return DecodedImage(pixels, pixels.size, image_format.upper(), tuple(noted))


def _finish(image: Image.Image, *, is_turned: bool) -> tuple[Image.Image, list[str]]:
    orientation = 1 if is_turned else _orientation(image)
    noted = ["exif_rotated"] if is_turned or orientation != 1 else []
    pixels = to_grey_or_rgb(turn_upright(image, orientation), noted)
    return pixels.convert("RGB"), noted


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_animated(image: Image.Image) -> bool:
    """Tell whether there is another frame; an image of a collection is none."""
    try:
        return image.format not in ("MPO", "HEIF") and bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001
        return False


def _has_pages(data: bytes) -> bool:
    """Tell whether a TIFF has more pages, each of which Pillow opens for that."""
    try:
        with Image.open(BytesIO(data), formats=("TIFF",)) as image:
            return bool(image.n_frames > 1)  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001
        return False


def decode_or_refuse(data: bytes) -> DecodedImage | ImageError:
    try:
        return decode_image(data, LIMITS)
    except ImageError as error:
        return error


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of broken metadata
        yield


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_honest_file_gives_pillows_pixels(image_format: str) -> None:
    for data in seeds(image_format):
        assert b"".join(parts_of(image_format, data)) == data
        assert_same(decode_image(data, LIMITS), read_with_pillow(data, image_format))


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_damaged_file_is_refused_or_gives_pillows_pixels(image_format: str) -> None:
    read = 0
    for data in mutants(image_format, COUNT):
        expected, outcome = read_with_pillow(data, image_format), decode_or_refuse(data)
        if isinstance(outcome, DecodedImage):
            assert outcome.pixels.size == outcome.size
            if expected is not None:
                if image_format == "tiff":  # broken pages are pages to some
                    outcome, expected = map(without_pages, (outcome, expected))
                assert_same(outcome, expected)
                read += 1
        elif expected is not None:
            assert outcome.code in REFUSED[image_format], data
    assert read > COUNT / 12


def without_pages(decoded: DecodedImage) -> DecodedImage:
    noted = tuple(note for note in decoded.warnings if note != "animated_first_frame")
    return dataclasses.replace(decoded, warnings=noted)


def assert_same(decoded: DecodedImage, expected: DecodedImage | None) -> None:
    assert expected is not None
    assert decoded.size == expected.size
    assert decoded.warnings == expected.warnings
    assert np.array_equal(np.asarray(decoded.pixels), np.asarray(expected.pixels))


LAYOUTS = {
    "png": re.compile(rb"IHDR(PLTE)?(tRNS)?IDATIEND"),
    "webp": re.compile(rb"VP8[ L]|VP8X(ANIMANMF)?(ALPHVP8 |VP8[ L])"),
    "gif": re.compile(rb"!?,.;?", re.DOTALL),  # any byte stands for the frame's pixels
}


@pytest.mark.parametrize("image_format", LAYOUTS)
def test_what_is_rebuilt_holds_the_parts_that_pixels_need_and_no_other(image_format: str) -> None:
    rebuilt_files = 0
    for data in mutants(image_format, COUNT):
        if isinstance(decode_or_refuse(data), ImageError):
            continue
        rebuilt = FORMATS[image_format].outline(data, LIMITS.max_pixels).data
        assert LAYOUTS[image_format].fullmatch(_kinds(image_format, rebuilt)), rebuilt
        rebuilt_files += 1
    assert rebuilt_files > COUNT / 10


def _kinds(image_format: str, rebuilt: bytes) -> bytes:
    """Return the kinds of a rebuilt file's parts, behind its head."""
    parts = parts_of(image_format, rebuilt)
    if image_format == "gif":
        has_palette = rebuilt[10] & 0x80
        return b"".join(part[:1] for part in parts[2 if has_palette else 1 :])
    return b"".join(part[4:8] if image_format == "png" else part[:4] for part in parts[1:])


# Scans. A progressive JPEG of one block whose n-th scan sets it to the n-th grey level: what a
# reader shows is the last scan that it followed.


def scan(level: int) -> bytes:
    """Return a scan that sets the block's mean, in a code of 8 bits for any size of it."""
    size = level.bit_length()
    bits = f"{size:08b}{level:0{size}b}" if size else "0" * 8
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"\xff\xda\0\x08\1\1\0\0\0\0" + coded


def scan_file(between: list[bytes]) -> bytes:
    """Put bytes behind each of a number of scans."""
    code = bytes((0, *[0] * 7, 12, *[0] * 8, *range(12)))  # twelve codes of 8 bits
    tables = b"\xff\xdb\0\x43\0" + b"\x08" * 64
    frame = b"\xff\xc2\0\x0b\x08\0\x08\0\x08\1\1\x11\0"
    huffman = b"\xff\xc4" + struct.pack(">H", 2 + len(code)) + code
    scans = b"".join(scan(level + 1) + other for level, other in enumerate(between))
    return b"\xff\xd8" + tables + frame + huffman + scans + b"\xff\xd9"


def last_scan(data: bytes) -> int:
    """Return the number of the last scan that libjpeg followed."""
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        return int(np.asarray(image)[0, 0]) - 128


MARKERS = (0xFE, 0xDC, *range(0xE0, 0xF0))
LENGTHS = range(5)


def segment(marker: int, length: int) -> bytes:
    """Return a segment that claims a length, with as much of an end marker as it has room for."""
    return bytes((0xFF, marker, 0, length)) + b"\xff\xd9"[: max(0, length - 2)]


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("length", LENGTHS)
def test_no_segment_hides_scans(marker: int, length: int) -> None:
    data = scan_file([segment(marker, length)] + [b""] * 20)

    assert last_scan(data) == 21
    outline = outline_jpeg(data)
    assert outline.scans == last_scan(outline.data) == 21


def test_no_damage_hides_scans() -> None:
    strangers = [segment(marker, length) for marker in MARKERS for length in LENGTHS]
    strangers += [b"\xff\xd0", b"\xff\x01", b"\xff\x30", b"\xff\xd8", b"\xff\xc0\0\0"]
    strangers += [
        b"\xff\xdd\0\4\0\1",
        b"\xff\xc4\0\2",
        b"\xff\xc4\0\1",
        b"\xff" * 9,
        b"\xff\0",
        b"a",
    ]
    read = 0
    for seed in range(1_500):
        random_ = np.random.default_rng(seed)
        between = [
            b"".join(strangers[at] for at in random_.integers(len(strangers), size=1 + seed % 3))
            if random_.random() < 0.3
            else b""
            for _ in range(12)
        ]
        data = scan_file(between)
        try:
            followed = last_scan(data)
        except OSError:
            continue
        outline = outline_jpeg(data)
        assert outline.scans >= followed == last_scan(outline.data)
        read += 1
    assert read > 150


class RecordingFile(BytesIO):
    """Remembers how far it was read."""

    furthest = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.furthest = max(self.furthest, self.tell())
        return content


@pytest.mark.parametrize("image_format", FORMATS)
def test_what_follows_an_image_does_not_reach_the_decoder(image_format: str) -> None:
    for data in seeds(image_format):
        file = RecordingFile(FORMATS[image_format].outline(data + bytes(10**6), 10**6).data)
        with Image.open(file, formats=(image_format,)) as image:
            image.load()
        # Room for the largest palette; wider numbers of the same items.
        slack = {"bmp": 300_000, "avif": 100, "heic": 100}.get(image_format, 0)
        assert file.furthest <= len(data) + slack


def test_what_is_open_tells_what_reading_takes() -> None:
    for image_format in FORMATS:
        for data in mutants(image_format, 300):
            try:
                with open_image(data, LIMITS) as image:
                    decoded = image.read()
            except ImageError:
                continue
            assert image.size == decoded.size == decoded.pixels.size
            area = decoded.size[0] * decoded.size[1]
            assert image.decode_bytes >= area * FORMATS[image_format].bytes_per_pixel
