"""Small honest files of every format taken apart, and put together again in wrong ways."""

import random
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.app.images import animation, encode, scene

SIZE = (20, 14)
_COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
_END_OF_CODED = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")


def mutants(image_format: str, count: int) -> Iterator[bytes]:
    """Yield damaged files of a format, the same in every run."""
    random_ = random.Random(image_format)  # noqa: S311 # damage need not be unforeseeable
    honest = seeds(image_format)
    for _ in range(count):
        yield _mutant(random_, image_format, honest)


def seeds(image_format: str) -> list[bytes]:  # noqa: PLR0911 # one a format
    """Return small honest files of a format, of as many kinds as Pillow writes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = scene(1, SIZE)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(SIZE))
    if image_format == "jpeg":
        return [
            encode(picture, "JPEG", exif=exif, comment=b"a comment", icc_profile=bytes(300)),
            encode(picture, "JPEG", progressive=True),
            encode(picture.convert("CMYK"), "JPEG"),
            encode(picture.convert("L"), "JPEG"),
            encode(picture, "JPEG", restart_marker_blocks=1),
            encode(picture, "JPEG", progressive=True, restart_marker_blocks=1, subsampling=0),
            animation(_COLOURS, "MPO"),
        ]
    if image_format == "png":
        texts = PngInfo()
        texts.add_text("Title", "x")
        texts.add_text("Comment", "y" * 50, zip=True)
        texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
        deep = Image.fromarray(np.arange(280, dtype=np.uint16).reshape(14, 20))
        return [
            encode(clear, exif=exif, icc_profile=bytes(300)),
            encode(picture.quantize(16), transparency=3),
            encode(picture.convert("L"), transparency=77),
            encode(picture.convert("1")),
            encode(picture, pnginfo=texts),
            encode(deep),
            animation(_COLOURS, "PNG"),
            animation(_COLOURS, "PNG", default_image=True),
        ]
    if image_format == "gif":
        return [
            encode(picture, "GIF"),
            encode(picture.quantize(16), "GIF", transparency=3, comment=b"x" * 300),
            animation(_COLOURS, "GIF", comment=b"a comment", loop=0),
            animation(_COLOURS, "GIF", transparency=0, disposal=2),
        ]
    if image_format == "webp":
        return [
            encode(picture, "WEBP"),
            encode(picture, "WEBP", exif=exif),
            encode(clear, "WEBP", lossless=True),
            encode(clear, "WEBP", quality=50, xmp=b'<x tiff:Orientation="3"/>'),
            animation(_COLOURS, "WEBP"),
            animation(_COLOURS, "WEBP", exif=exif.tobytes(), lossless=True),
        ]
    if image_format == "avif":
        return [
            encode(picture, "AVIF", exif=exif),
            encode(clear, "AVIF", quality=100, subsampling="4:4:4"),
            encode(picture.convert("L"), "AVIF"),
            animation(_COLOURS, "AVIF"),
        ]
    if image_format == "heic":
        return [
            encode(picture, "HEIC"),
            encode(clear, "HEIC", quality=-1, chroma=444),
            encode(picture.convert("L"), "HEIC"),
        ]
    if image_format == "tiff":
        return [
            encode(picture, "TIFF"),
            encode(clear, "TIFF", compression="tiff_lzw", exif=exif),
            encode(picture.quantize(16), "TIFF", compression="packbits"),
            encode(picture.convert("1"), "TIFF", compression="group4"),
            encode(picture.convert("L"), "TIFF", compression="tiff_adobe_deflate"),
            encode(picture.convert("CMYK"), "TIFF"),
            encode(picture, "TIFF", compression="jpeg"),
            encode(Image.fromarray(np.arange(280, dtype=np.uint16).reshape(14, 20)), "TIFF"),
            animation(_COLOURS, "TIFF"),
        ]
    modes = picture, picture.quantize(16), picture.convert("1"), picture.convert("L"), clear
    return [encode(image, "BMP") for image in modes]


def chunk(name: bytes, content: bytes = b"") -> bytes:
    """Return a PNG chunk."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


# Parts: a JPEG's segments and coded pixels, a PNG's and a WebP's chunks, a GIF's blocks, a TIFF's
# tags.


def parts_of(image_format: str, data: bytes) -> list[bytes]:
    """Take a sound file apart; joined, the parts are the file."""
    found, at = [], 0
    while at < len(data):
        end = _END_OF_PART[image_format](data, at)
        found.append(data[at:end])
        at = max(end, at + 1)
    return [part for part in found if part]


def _end_of_jpeg_part(data: bytes, at: int) -> int:
    if data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:  # coded pixels
        coded_end = _END_OF_CODED.search(data, at)
        return coded_end.start() if coded_end else len(data)
    if data[at + 1] in (0xD8, 0xD9):
        return at + 2
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _end_of_png_part(data: bytes, at: int) -> int:
    return 8 if at == 0 else at + 12 + int.from_bytes(data[at : at + 4], "big")


def _end_of_webp_part(data: bytes, at: int) -> int:
    if at == 0:
        return 12
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    return at + 24 if data[at : at + 4] == b"ANMF" else at + 8 + size + size % 2


def _end_of_gif_part(data: bytes, at: int) -> int:
    if at in (0, 13) and data[10] & 0x80:
        return 13 if at == 0 else 13 + (3 << ((data[10] & 7) + 1))
    if data[at] == 0x3B:
        return at + 1
    if data[at] == 0x2C:
        return at + 10 + (3 << ((data[at + 9] & 7) + 1) if data[at + 9] & 0x80 else 0)
    at += 2 if data[at] == 0x21 else 1  # else a frame's pixels
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _end_of_bmp_part(data: bytes, at: int) -> int:
    pixels = int.from_bytes(data[10:14], "little")
    return next(end for end in (14, 54, pixels, len(data)) if end > at)


_CONTAINERS = {b"meta": 12, b"iinf": 14, b"iref": 12, b"iprp": 8, b"ipco": 8}


def _end_of_heif_part(data: bytes, at: int) -> int:
    """Take a box as one part, and of one that holds boxes its head."""
    name = data[at + 4 : at + 8]
    return at + _CONTAINERS.get(name, int.from_bytes(data[at : at + 4], "big"))


def _end_of_tiff_part(data: bytes, at: int) -> int:
    """Take each entry of the first directory as a part, and what is between as others."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    ends = [8, start, *(start + 2 + 12 * entry for entry in range(count + 1)), len(data)]
    return next(end for end in sorted(ends) if end > at)


_END_OF_PART = {
    "avif": _end_of_heif_part,
    "heic": _end_of_heif_part,
    "tiff": _end_of_tiff_part,
    "jpeg": _end_of_jpeg_part,
    "png": _end_of_png_part,
    "webp": _end_of_webp_part,
    "gif": _end_of_gif_part,
    "bmp": _end_of_bmp_part,
}

# Where a part has its length and its kind, what these may be changed to, and parts of strangers.

_EXIF_ON_ITS_SIDE = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
_LENGTHS = {
    "avif": (0, ">I"),
    "heic": (0, ">I"),
    "tiff": (4, "<I"),
    "jpeg": (2, ">H"),
    "png": (0, ">I"),
    "webp": (4, "<I"),
    "gif": (2, "B"),
}
_KINDS: dict[str, tuple[int, list[bytes]]] = {
    "jpeg": (1, [bytes((marker,)) for marker in (*range(3), 0x30, *range(0xBF, 256))]),
    "png": (
        4,
        b"IHDR PLTE tRNS IDAT IEND eXIf tEXt zTXt iTXt iCCP acTL fcTL fdAT gAMA abCd DDAT".split(),
    ),
    "webp": (0, [b"VP8 ", b"XMP ", *b"VP8L VP8X ALPH ANIM ANMF EXIF ICCP abcd".split()]),
    "avif": (4, b"ftyp meta iloc iinf infe iref auxl dimg iprp ipco ispe irot mdat free".split()),
    "heic": (4, b"ftyp meta iloc iinf infe iref auxl dimg iprp ipco ispe clap mdat free".split()),
    "tiff": (0, [bytes((tag, 1)) for tag in range(256)]),
    "gif": (1, [b"\xf9", b"\xfe", b"\xff", b"\1", b"\0", b",", b";"]),
}
_STRANGERS = {
    "jpeg": [
        *(bytes((0xFF, marker, 0, size)) for marker in (0xFE, 0xE5, 0xDC) for size in range(3)),
        *(b"\xff" * 300, bytes(40), b"\xff\0", b"\xff\xd0", b"\xff\xd7", b"\xff\x01", b"\xff\x30"),
        *(b"\xff\xd8", b"\xff\xd9", b"\xff\xdd\0\4\0\1", b"\xff\xdd\0\4\0\0", b"\xff\xc4\0\2"),
        *(b"\xff\xfe\0\x08\xff\xd9\xff\xda\0\0", b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\1"),
    ],
    "png": [
        *(chunk(b"tEXt", b"a\0b"), chunk(b"IDAT"), chunk(b"abCd"), chunk(b"tRNS", bytes(6))),
        *(chunk(b"acTL", struct.pack(">II", frames, 0)) for frames in (1, 2)),
        chunk(b"fcTL", struct.pack(">5I2H2B", 0, *SIZE, 0, 0, 1, 1, 0, 0)),
        chunk(b"fcTL", struct.pack(">5I2H2B", 0, 9, 9, 0, 0, 1, 1, 0, 0)),
        *(chunk(b"PLTE", b"abc" * 16), chunk(b"eXIf", _EXIF_ON_ITS_SIDE)),
        chunk(
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(b"\nexif\n26\n" + _EXIF_ON_ITS_SIDE.hex().encode()),
        ),
    ],
    "webp": [
        *(b"EXIF\x1a\0\0\0" + _EXIF_ON_ITS_SIDE, b"XMP \x14\0\0\0tiff:Orientation>6\0\0"),
        *(b"abcd\0\0\0\0", b"abcd\3\0\0\0abc\0", b"abcd\xff\xff\0\0", b"ALPH\2\0\0\0\0\0"),
        *(b"ANIM\6\0\0\0\0\0\0\0\0\0", b"ANMF\x10\0\0\0" + bytes(16)),
    ],
    "gif": [
        *(b"!" + bytes((label, 0)) for label in (1, 0xF9, 0xFE, 0xFF)),
        *(b"!\xff\x0bNETSCAPE2.0\0", b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0", b"!\xf9\1\1\0"),
        *(b"!\xf9\4\5\0\0\3\0", b"!\x01\0;" + b"a" * 59 + b"\0", b"\0\0\0", b";", b","),
    ],
    "bmp": [bytes(100), b"\xff" * 30],
    "heic": [
        *(b"\0\0\0\x08free", bytes(8), b"\0\0\0\x14ispe\0\0\0\0\0\0\0\x14\0\0\0\x0e"),
        b"\0\0\0\x1ainfe\2\0\0\0\0\2\0\0hvc1Alpha\0",
    ],
    "tiff": [
        *(
            bytes((tag, 1, 3, 0, 1, 0, 0, 0, value, 0, 0, 0))
            for tag in range(256)
            for value in (1, 2)
        ),
    ],
    "avif": [
        *(b"\0\0\0\x09irot\1", b"\0\0\0\x09imir\0", b"\0\0\0\x08free", bytes(8)),
        *(b"\0\0\0\x14ispe\0\0\0\0\0\0\0\x14\0\0\0\x0e", b"\0\0\0\1free\0\0\0\0\0\0\0\x10"),
        b"\0\0\0\x1ainfe\2\0\0\0\0\2\0\0av01Alpha\0",
    ],
}


def _mutant(random_: random.Random, image_format: str, honest: list[bytes]) -> bytes:
    parts = parts_of(image_format, random_.choice(honest))
    for _ in range(random_.choice((1, 1, 2, 3))):
        damage = random_.choice(_DAMAGES)
        parts = [part for part in damage(random_, image_format, parts) if part] or parts
    data = b"".join(parts)
    if image_format == "webp" and random_.random() < 0.8:
        data = data[:4] + struct.pack("<I", max(0, len(data) - 8)) + data[8:]
    return data


Parts = list[bytes]


def _somewhere(random_: random.Random, parts: Parts) -> int:
    return random_.randrange(min(1, len(parts) - 1), len(parts))


def _change_length(random_: random.Random, image_format: str, parts: Parts) -> Parts:
    at = _somewhere(random_, parts)
    if image_format == "bmp":
        return _flip(random_, image_format, parts)
    where, kind = _LENGTHS[image_format]
    size = struct.calcsize(kind)
    most = 256**size - 1
    length = random_.choice(
        (0, 1, 2, 3, 4, 59, most, max(0, len(parts[at]) - random_.randrange(16)))
    )
    changed = parts[at][:where] + struct.pack(kind, min(length, most)) + parts[at][where + size :]
    return [*parts[:at], changed, *parts[at + 1 :]]


def _change_kind(random_: random.Random, image_format: str, parts: Parts) -> Parts:
    if image_format == "bmp":
        return _flip(random_, image_format, parts)
    at = _somewhere(random_, parts)
    where, kinds = _KINDS[image_format]
    kind = random_.choice(kinds)
    changed = parts[at][:where] + kind + parts[at][where + len(kind) :]
    if image_format == "png":  # else it is refused for its checksum
        changed = changed[:-4] + struct.pack(">I", zlib.crc32(changed[4:-4]))
    return [*parts[:at], changed, *parts[at + 1 :]]


def _flip(random_: random.Random, image_format: str, parts: Parts) -> Parts:
    at = _somewhere(random_, parts)
    changed = bytearray(parts[at])
    start = 8 if image_format == "png" and len(changed) > 12 else 0
    changed[random_.randrange(start, len(changed))] = random_.choice((0, 1, random_.randrange(256)))
    if start:
        changed[-4:] = struct.pack(">I", zlib.crc32(changed[4:-4]))
    return [*parts[:at], bytes(changed), *parts[at + 1 :]]


def _insert(random_: random.Random, image_format: str, parts: Parts) -> Parts:
    at = _somewhere(random_, parts)
    return [*parts[:at], random_.choice(_STRANGERS[image_format]), *parts[at:]]


def _insert_within(random_: random.Random, image_format: str, parts: Parts) -> Parts:
    at = _somewhere(random_, parts)
    cut = random_.randrange(len(parts[at]) + 1)
    stranger = random_.choice([*_STRANGERS[image_format], *parts])
    return [*parts[:at], parts[at][:cut] + stranger + parts[at][cut:], *parts[at + 1 :]]


def _repeat(random_: random.Random, _: str, parts: Parts) -> Parts:
    part, at = random_.choice(parts), _somewhere(random_, parts)
    return [*parts[:at], *[part] * random_.choice((1, 2, 8)), *parts[at:]]


def _swap(random_: random.Random, _: str, parts: Parts) -> Parts:
    one, other = _somewhere(random_, parts), _somewhere(random_, parts)
    swapped = [*parts]
    swapped[one], swapped[other] = parts[other], parts[one]
    return swapped


def _drop(random_: random.Random, _: str, parts: Parts) -> Parts:
    at = _somewhere(random_, parts)
    return [*parts[:at], *parts[at + 1 :]]


def _truncate(random_: random.Random, _: str, parts: Parts) -> Parts:
    at = _somewhere(random_, parts)
    return [*parts[:at], parts[at][: random_.randrange(len(parts[at]) + 1)], *parts[at + 1 :]][
        : random_.choice((at + 1, len(parts)))
    ]


def _append(random_: random.Random, image_format: str, parts: Parts) -> Parts:
    tails = bytes(50), b"\xff" * 50, b"".join(parts), random_.choice(_STRANGERS[image_format])
    return [*parts, random_.choice(tails)]


_DAMAGES = (
    *(_change_length, _change_length, _change_kind, _flip, _insert, _insert, _insert_within),
    *(_repeat, _swap, _drop, _truncate, _append),
)
