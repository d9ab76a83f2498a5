"""Formats are told by their first bytes."""

import pytest

from app.errors import UnsupportedImageFormatError
from app.intake.formats import FORMATS
from app.intake.sniff import sniff_format
from tests.app.images import encode, scene

ALL = frozenset({"jpeg", "png", "webp", "gif", "bmp", "avif"})
EVERY = frozenset(FORMATS)
FOREIGN = {
    "little-endian TIFF": (b"II*\x00\x08\x00\x00\x00", "TIFF"),
    "big-endian TIFF": (b"MM\x00*\x00\x00\x00\x08", "TIFF"),
    "HEIC": (b"\x00\x00\x00\x18ftypheic\x00", "HEIC"),
    "HEIF": (b"\x00\x00\x00\x18ftypmif1\x00", "HEIC"),
    "HEIF of several": (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1heicmiaf", "HEIC"),
    "HEVC sequence": (b"\x00\x00\x00\x18ftyphevc\x00", "HEIC"),
    "JPEG XL in boxes": (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    "JPEG 2000 codestream": (b"\xffO\xffQ\x00", "JPEG 2000"),
    "CR3": (b"\x00\x00\x00\x18ftypcrx \x00", r"a camera raw \(CR3\)"),
    "CR2": (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "a camera raw"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "a camera raw"),
    "MOV": (b"\x00\x00\x00\x14ftypqt  \x00", r"a video \(QuickTime\)"),
    "MP4": (b"\x00\x00\x00\x20ftypisom\x00", r"a video \(MP4\)"),
    "WebM": (b"\x1aE\xdf\xa3\x9f", r"a video \(WebM or Matroska\)"),
    "AVI": (b"RIFF\x00\x00\x00\x00AVI LIST", r"a video \(AVI\)"),
    "PSD": (b"8BPS\x00\x01", "PSD"),
    "ICO": (b"\x00\x00\x01\x00\x01\x00", "ICO"),
    "PPM": (b"P6\n8 6\n255\n", "PNM"),
    "DICOM": (bytes(128) + b"DICM", "DICOM"),
    "SVG behind its declaration": (b"<?xml version='1.0'?>\n<!-- a -->\n<svg width='1'>", "SVG"),
    "SVG behind a mark and a line": (b"\xef\xbb\xbf\n<svg>", "SVG"),
    "HTML in small letters": (b"\n<!doctype html>", "HTML"),
    "JPEG 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "JPEG XL": (b"\xff\x0a\x00", "JPEG XL"),
    "PDF": (b"%PDF-1.7", "PDF"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
    "XML": (b"<?xml version='1.0'?>", "XML"),
    "HTML document": (b"<!DOCTYPE html>", "HTML"),
    "HTML": (b"<html>", "HTML"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
    "ZIP": (b"PK\x03\x04\x14\x00", "ZIP"),
}


@pytest.mark.parametrize("image_format", sorted(EVERY))
def test_a_format_is_told_from_what_pillow_writes(image_format: str) -> None:
    assert sniff_format(encode(scene(0), image_format), EVERY) == image_format


def test_the_older_gif_is_a_gif_too() -> None:
    assert sniff_format(b"GIF87a" + bytes(10), ALL) == "gif"


@pytest.mark.parametrize("image_format", sorted(EVERY))
def test_a_known_format_that_is_not_allowed_is_named(image_format: str) -> None:
    with pytest.raises(UnsupportedImageFormatError, match="allow it by SIGLIP_FORMATS") as refused:
        sniff_format(encode(scene(0), image_format), EVERY - {image_format})
    assert refused.value.message.startswith(f"this is {image_format.upper()}: convert it")
    for allowed in EVERY - {image_format}:
        assert allowed.upper() in refused.value.message


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_format_is_named(kind: str) -> None:
    data, name = FOREIGN[kind]

    with pytest.raises(UnsupportedImageFormatError, match=f"^this is {name}: convert it"):
        sniff_format(data, ALL)


@pytest.mark.parametrize("kind", ["CR2", "CR3", "MOV", "MP4", "JPEG 2000"])
def test_what_only_begins_like_a_format_is_foreign_wherever_all_are_allowed(kind: str) -> None:
    data, name = FOREIGN[kind]
    with pytest.raises(UnsupportedImageFormatError, match=f"^this is {name}: convert it to"):
        sniff_format(data, EVERY)


@pytest.mark.parametrize("kind", ["HEIC", "HEIF", "HEIF of several", "HEVC sequence"])
def test_heic_has_many_brands(kind: str) -> None:
    assert sniff_format(FOREIGN[kind][0], EVERY) == "heic"


@pytest.mark.parametrize("start", [b"II*\0\x08", b"MM\0*\0", b"II+\0\x08", b"MM\0+\0"])
def test_a_tiff_is_of_either_order_and_either_size(start: bytes) -> None:
    assert sniff_format(start + bytes(20), EVERY) == "tiff"


@pytest.mark.parametrize(
    "data", [b"\xff", b"\xff\xd8", b"RIFF", b"RIFF\x00\x00\x00\x00abcd", b"\x89PNG", b"GIF8"]
)
def test_anything_else_is_no_known_image(data: bytes) -> None:
    with pytest.raises(UnsupportedImageFormatError, match="no image of a known format"):
        sniff_format(data, ALL)


def test_a_signature_counts_only_at_the_start() -> None:
    with pytest.raises(UnsupportedImageFormatError):
        sniff_format(b" " + encode(scene(0), "PNG"), ALL)
