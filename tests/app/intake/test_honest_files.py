"""Files that viewers open, and odd ones of their kind, are read as Pillow reads what is sound."""

import random
import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from app.errors import ImageError
from app.intake.decode import DecodeLimits, decode_image
from app.intake.formats import FORMATS
from tests.app.images import encode
from tests.app.intake.mutants import chunk

LIMITS = DecodeLimits(20 * 2**20, 50_000_000, 16_384, frozenset(FORMATS))
PICTURE = Image.radial_gradient("L").resize((96, 64)).convert("RGB")
JPEG, PNG, WEBP, BMP = (encode(PICTURE, name) for name in ("JPEG", "PNG", "WEBP", "BMP"))
GIF = encode(PICTURE.quantize(16), "GIF")
TIFF = encode(PICTURE, "TIFF")
LZW_TIFF = encode(PICTURE, "TIFF", compression="tiff_lzw")
# Text that is not in blocks; what follows it leads a reader of blocks to the end from anywhere.
XMP_OF_GIF = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>\1' + bytes(range(255, -1, -1)) + b"\0"
_RANDOM = random.Random(1)  # noqa: S311 # what cannot be packed


def letters(count: int) -> bytes:
    return bytes(_RANDOM.choices(b"abcdefghijklmnopqrstuvwxyz {}:,", k=count))


def png_with(chunks: bytes) -> bytes:
    return PNG[:33] + chunks + PNG[33:]


def jpeg_with(head: bytes) -> bytes:
    return JPEG[:2] + head + JPEG[2:]


def gif_with(blocks: bytes) -> bytes:
    start = 13 + (3 << ((GIF[10] & 7) + 1))
    return GIF[:start] + blocks + GIF[start:]


def tiff_with(tag: int, other: int, data: bytes = b"", number: int | None = None) -> bytes:
    """Rename a tag of a TIFF of one strip, or give it another number."""
    changed = bytearray(data or TIFF)
    start = int.from_bytes(changed[4:8], "little")
    for at in range(start + 2, start + 2 + 12 * changed[start], 12):
        if int.from_bytes(changed[at : at + 2], "little") == tag:
            changed[at : at + 2] = struct.pack("<H", other)
            if number is not None:
                changed[at + 2 : at + 12] = struct.pack("<HII", 4, 1, number)
            return bytes(changed)
    raise LookupError(tag)


def wrong_checksum(name: bytes, content: bytes) -> bytes:
    return chunk(name, content)[:-4] + bytes(4)


# Each with the sound file whose pixels it has.
FILES: dict[str, tuple[bytes, Callable[[], bytes]]] = {
    "PNG with 400 kB of zeros behind its end": (PNG, lambda: PNG + bytes(400_000)),
    "PNG with chunks behind its end": (PNG, lambda: PNG + chunk(b"abCd") * 200_000),
    "PNG with 5 MiB of text": (PNG, lambda: png_with(chunk(b"tEXt", b"a\0" + letters(5 << 20)))),
    "PNG with 120 texts": (PNG, lambda: png_with(chunk(b"iTXt", b"a\0\0\0\0\0b") * 120)),
    "PNG with 5 MiB of XMP": (
        PNG,
        lambda: png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + letters(5 << 20))),
    ),
    "PNG with 1.5 MiB of packed XMP": (
        PNG,
        lambda: png_with(
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(letters(3 << 19)))
        ),
    ),
    "PNG with 1.5 MiB of packed text": (
        PNG,
        lambda: png_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(letters(3 << 19)))),
    ),
    "PNG with a profile of 1.5 MiB": (
        PNG,
        lambda: png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(_RANDOM.randbytes(3 << 19)))),
    ),
    "PNG with a broken profile": (PNG, lambda: png_with(chunk(b"iCCP", b"a\0\0garbage"))),
    "PNG with a profile packed otherwise": (PNG, lambda: png_with(chunk(b"iCCP", b"a\0\1garbage"))),
    "PNG with a text in no encoding": (
        PNG,
        lambda: png_with(chunk(b"iTXt", b"a\0\0\0\0\0\xff\xfe")),
    ),
    "PNG with Exif in a text": (
        PNG,
        lambda: png_with(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 10\n457869660000\n")),
    ),
    "PNG with a wrong checksum over its gamma": (
        PNG,
        lambda: png_with(wrong_checksum(b"gAMA", b"\0\0\xb1\x8f")),
    ),
    **{
        f"PNG with a wrong checksum over its {name.decode()}": (
            PNG,
            partial(png_with, wrong_checksum(name, content)),
        )
        for name, content in {
            b"pHYs": bytes(9),
            b"iCCP": b"a\0\0" + zlib.compress(bytes(100)),
            b"tEXt": b"a\0b",
            b"zTXt": b"a\0\0" + zlib.compress(b"b"),
            b"tIME": bytes(7),
        }.items()
    },
    "PNG with a gamma too short": (PNG, lambda: png_with(chunk(b"gAMA", b"\0"))),
    "PNG with a transparency too short": (PNG, lambda: png_with(chunk(b"tRNS", b"\0"))),
    "PNG with a wrong checksum over its end": (PNG, lambda: PNG[:-4] + bytes(4)),
    "PNG without an end": (PNG, lambda: PNG[:-12]),
    "PNG cut off in a text behind its pixels": (
        PNG,
        lambda: PNG[:-12] + chunk(b"tEXt", b"a\0" + letters(100))[:50],
    ),
    "JPEG with a comment of length 0 in its head": (JPEG, lambda: jpeg_with(b"\xff\xfe\0\0")),
    "JPEG with application data of length 0 in its head": (
        JPEG,
        lambda: jpeg_with(b"\xff\xe5\0\0"),
    ),
    "JPEG with 1200 segments": (JPEG, lambda: jpeg_with((b"\xff\xe5\0\x12" + b"a" * 16) * 1_200)),
    "JPEG with 8 kB of FF before its end": (JPEG, lambda: JPEG[:-2] + b"\xff" * 8_192 + JPEG[-2:]),
    "JPEG with 8 kB of FF for an end": (JPEG, lambda: JPEG[:-2] + b"\xff" * 8_192),
    "JPEG with 8 kB of zeros for an end": (JPEG, lambda: JPEG[:-2] + bytes(8_192)),
    "JPEG without its last two bytes": (JPEG, lambda: JPEG[:-2]),
    "WebP with 300 kB of zeros behind its end": (WEBP, lambda: WEBP + bytes(300_000)),
    "WebP with an odd byte inside": (
        WEBP,
        lambda: WEBP[:4] + struct.pack("<I", len(WEBP) - 7) + WEBP[8:] + b"\0",
    ),
    "WebP with 5 MiB of XMP": (WEBP, lambda: encode(PICTURE, "WEBP", xmp=letters(5 << 20))),
    "WebP with a profile of 2 MiB": (
        WEBP,
        lambda: encode(PICTURE, "WEBP", icc_profile=_RANDOM.randbytes(2 << 20)),
    ),
    "GIF with 4 MiB of comment": (
        GIF,
        lambda: gif_with(b"!\xfe" + (b"\xff" + b"x" * 255) * (4 << 12) + b"\0"),
    ),
    "GIF with XMP as Adobe writes it": (
        GIF,
        lambda: gif_with(b"!\xff\x0bXMP DataXMP" + XMP_OF_GIF),
    ),
    "GIF without an end": (GIF, lambda: GIF[:-1]),
    "GIF with zeros behind its end": (GIF, lambda: GIF + bytes(1_000)),
    "GIF with zeros between its blocks": (GIF, lambda: gif_with(bytes(10))),
    "GIF with an empty extension": (GIF, lambda: gif_with(b"!\xfe\0")),
    "BMP that tells no size": (BMP, lambda: BMP[:2] + bytes(4) + BMP[6:]),
    "BMP with 100 kB behind its pixels": (BMP, lambda: BMP + bytes(100_000)),
    "TIFF with 100 kB behind its end": (TIFF, lambda: TIFF + bytes(100_000)),
    "TIFF with 5 MiB of XMP and of a profile": (
        TIFF,
        lambda: encode(
            PICTURE, "TIFF", tiffinfo={700: letters(5 << 20)}, icc_profile=bytes(5 << 20)
        ),
    ),
    "TIFF that tells no lengths": (TIFF, lambda: tiff_with(279, 65_000)),
    "packed TIFF that tells no lengths": (LZW_TIFF, lambda: tiff_with(279, 65_000, LZW_TIFF)),
    "TIFF of strips that are 0 bytes long": (TIFF, lambda: tiff_with(279, 279, number=0)),
    "TIFF of one strip and no rows": (TIFF, lambda: tiff_with(278, 65_000)),
    "TIFF of strips taller than itself": (TIFF, lambda: tiff_with(278, 278, number=2**32 - 1)),
    "TIFF whose tags are not in order": (TIFF, lambda: tiff_with(259, 7, number=1)),
}

# Pillow does not read these either. Of a progressive JPEG without an end it cannot be told how much
# is missing: every scan goes over the whole image.
REFUSED = {
    "a line in front of a JPEG": b"\n" + JPEG,
    "a byte order mark in front of a PNG": b"\xef\xbb\xbf" + PNG,
    "a WebP that says it is longer": WEBP[:4] + struct.pack("<I", len(WEBP) - 6) + WEBP[8:],
    "a WebP that says it is empty": WEBP[:4] + bytes(4) + WEBP[8:],
    "a PNG with a wrong checksum over its palette": png_with(wrong_checksum(b"PLTE", b"abc")),
    "a PNG with a wrong checksum over its transparency": png_with(
        wrong_checksum(b"tRNS", bytes(6))
    ),
    "a progressive JPEG without its last two bytes": encode(PICTURE, "JPEG", progressive=True)[:-2],
}


@pytest.mark.parametrize("kind", FILES)
def test_an_odd_file_has_the_pixels_of_the_sound_one(kind: str) -> None:
    sound, make = FILES[kind]
    with Image.open(BytesIO(sound)) as image:
        expected = np.asarray(image.convert("RGB"))

    decoded = decode_image(make(), LIMITS)

    assert np.array_equal(np.asarray(decoded.pixels), expected)
    assert decoded.warnings == ()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_pillow_does_not_read_either_is_refused(kind: str) -> None:
    assert not is_read_by_pillow(REFUSED[kind])
    with pytest.raises(ImageError):
        decode_image(REFUSED[kind], LIMITS)


def is_read_by_pillow(data: bytes) -> bool:
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
    except (OSError, ValueError):
        return False
    return True


_ON_ITS_SIDE = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
_XMP = b'<x tiff:Orientation="6"/>'
_LINES = b"\nexif\n      26\n" + _ON_ITS_SIDE.hex().encode() + b"\n"


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"eXIf", _ON_ITS_SIDE),
        chunk(b"tEXt", b"Raw profile type exif\0" + _LINES),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(_LINES)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(_XMP)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0en\0x\0" + _XMP + bytes(5 << 20)),
    ],
    ids=["eXIf", "text", "packed text", "XMP", "packed XMP", "5 MiB of XMP"],
)
@pytest.mark.parametrize("place", ["in front of", "behind"])
def test_a_png_is_turned_by_any_metadata_wherever_it_is(metadata: bytes, place: str) -> None:
    data = png_with(metadata) if place == "in front of" else PNG[:-12] + metadata + PNG[-12:]

    decoded = decode_image(data, LIMITS)

    turned = PICTURE.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(decoded.pixels), np.asarray(turned))
    assert decoded.size == (64, 96)
