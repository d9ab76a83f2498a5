"""Formats are told by their first bytes."""

import pytest

from app.errors import UnsupportedImageFormatError
from app.intake.sniff import sniff_format
from tests.app.images import encode, scene

ALL = frozenset({"jpeg", "png", "webp", "gif", "bmp"})
FOREIGN = {
    "little-endian TIFF": (b"II*\x00\x08\x00\x00\x00", "TIFF"),
    "big-endian TIFF": (b"MM\x00*\x00\x00\x00\x08", "TIFF"),
    "AVIF": (b"\x00\x00\x00\x20ftypavif\x00", "AVIF"),
    "HEIC": (b"\x00\x00\x00\x18ftypheic\x00", "HEIC"),
    "HEIF": (b"\x00\x00\x00\x18ftypmif1\x00", "HEIC"),
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


@pytest.mark.parametrize("image_format", sorted(ALL))
def test_a_format_is_told_from_what_pillow_writes(image_format: str) -> None:
    assert sniff_format(encode(scene(0), image_format), ALL) == image_format


def test_the_older_gif_is_a_gif_too() -> None:
    assert sniff_format(b"GIF87a" + bytes(10), ALL) == "gif"


@pytest.mark.parametrize("image_format", sorted(ALL))
def test_a_known_format_that_is_not_allowed_is_named(image_format: str) -> None:
    with pytest.raises(UnsupportedImageFormatError, match=image_format.upper()) as refused:
        sniff_format(encode(scene(0), image_format), ALL - {image_format})
    for allowed in ALL - {image_format}:
        assert allowed.upper() in refused.value.message


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_format_is_named(kind: str) -> None:
    data, name = FOREIGN[kind]

    with pytest.raises(UnsupportedImageFormatError, match=f"^{name} is not accepted"):
        sniff_format(data, ALL)


@pytest.mark.parametrize(
    "data", [b"\xff", b"\xff\xd8", b"RIFF", b"RIFF\x00\x00\x00\x00WAVE", b"\x89PNG", b"GIF8"]
)
def test_anything_else_is_no_known_image(data: bytes) -> None:
    with pytest.raises(UnsupportedImageFormatError, match="no image of a known format"):
        sniff_format(data, ALL)


def test_a_signature_counts_only_at_the_start() -> None:
    with pytest.raises(UnsupportedImageFormatError):
        sniff_format(b" " + encode(scene(0), "PNG"), ALL)
